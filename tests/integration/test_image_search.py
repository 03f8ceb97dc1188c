"""`ImageSearch` over photos that `ingest` took in: modes, reasons, near misses."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier
from typing import TYPE_CHECKING

import pytest

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import ClusterError, QueryError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch, QueryInputs, SearchOptions
from stair_es.sources.registry import open_source
from stair_es.token_policy import parse_policy

if TYPE_CHECKING:
    from stair_es.search import Hit, SearchResult

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "two-spaniels.jpg", "dairy-cow.jpg", "red-panda.jpg", "giant-panda.jpg")


@pytest.fixture(scope="module")
def photos(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSearch]:
    """Six photos with captions, on a real node."""
    folder = tmp_path_factory.mktemp("photos")
    for name in NAMES:
        shutil.copy(PHOTOS / name, folder)
    rows = [{"image": str(folder / name), "caption": name.removesuffix(".jpg").replace("-", " ")} for name in NAMES]
    table = folder / "photos.jsonl"
    table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    connection = Connection(url=node_url)
    options = IngestOptions(
        alias="test-image-search", model=ModelSpec(name="stair-mini"), runner="local", dead_letters=folder / "letters.jsonl"
    )
    report = run_ingest([open_source(str(table))], connection, options, progress=lambda _: None)
    assert report.written == len(NAMES)
    with ImageSearch(options.alias, url=node_url) as search:
        yield search
    with Cluster(connection) as cluster:
        cluster.client.indices.delete(index=f"{options.alias}-*")


def names(result: SearchResult) -> list[str]:
    return [Path(hit.uri).name for hit in result.hits]


def test_the_model_is_the_one_that_the_index_names(photos: ImageSearch) -> None:
    assert photos.encoder.model_id == "stair-mini-2"
    assert set(names(photos.search("a kitten", k=2))) == {"tabby-cat.jpg", "kitten-with-yarn.jpg"}
    assert names(photos.search(PHOTOS / "red-panda.jpg", k=1)) == ["red-panda.jpg"]


def test_required_and_excluded_words(photos: ImageSearch) -> None:
    everything = {hit.uri: hit.source["tokens"] for hit in photos.search("animal dog cat panda cow", k=100).hits}
    with_dog = {Path(uri).name for uri, tokens in everything.items() if "dog" in tokens}
    assert 0 < len(with_dog) < len(everything)
    assert set(names(photos.search("animal +dog", k=100))) == with_dog
    assert not set(names(photos.search("animal cat panda -dog", k=100))) & with_dog
    assert photos.search("animal -dog", k=100).hits
    weights = sorted(tokens["animal"] for tokens in everything.values() if "animal" in tokens)
    least = (weights[0] + weights[-1]) / 2
    strongly = {Path(uri).name for uri, tokens in everything.items() if tokens.get("animal", 0) >= least}
    assert 0 < len(strongly) < len(weights)
    assert set(names(photos.search(QueryInputs(query_string="animal", required=["animal"], min_weight=least), k=100))) == strongly


def test_several_inputs_and_boosts_make_one_vector(photos: ImageSearch) -> None:
    cat, dog = (photos.build_query(text).vector.to_dict() for text in ("cat", "dog"))
    both = photos.build_query(QueryInputs(query_string="cat", texts=["dog"], weights=[1, 0.25])).vector.to_dict()
    assert both == pytest.approx({word: cat.get(word, 0) + 0.25 * dog.get(word, 0) for word in (*cat, *dog)})
    boosted = photos.build_query("cat^3").vector.to_dict()
    assert boosted == {word: weight * (3 if word == "cat" else 1) for word, weight in cat.items()}
    assert "cat" not in photos.build_query(QueryInputs(query_string="cat", muted=frozenset({"cat"}))).vector.tokens


def test_single_words_are_required_and_excluded_whole(photos: ImageSearch) -> None:
    assert photos.build_query("animal -sheepdog-puppy").excluded == [("sheepdog", "puppy")]
    found = names(photos.search("animal cat -tabby", k=100))
    assert "tabby-cat.jpg" not in found
    assert found
    with pytest.raises(QueryError, match="'the' is not in the vocabulary"):
        photos.search("animal -the")


def test_filters_are_clauses_or_query_strings(photos: ImageSearch) -> None:
    wide = {hit.uri for hit in photos.search("animal", k=100).hits if hit.source["width"] > 300}
    assert {hit.uri for hit in photos.search(QueryInputs(query_string="animal", filters=["width:>300"]), k=100).hits} == wide
    clause = {"range": {"width": {"gt": 300}}}
    assert {hit.uri for hit in photos.search(QueryInputs(query_string="animal", filters=[clause]), k=100).hits} == wide
    assert not photos.search(QueryInputs(query_string="animal", filters=["format:png"])).hits


def test_captions_add_their_bm25_or_fuse_by_rank(photos: ImageSearch) -> None:
    plain = photos.search("animal", k=100)
    added = photos.search(QueryInputs(query_string="animal", caption="spaniels"), k=100)
    assert names(added)[0] == "two-spaniels.jpg"
    before = next(hit for hit in plain.hits if hit.uri.endswith("two-spaniels.jpg"))
    assert added.hits[0].contributions == before.contributions
    assert added.hits[0].text_score > 0.5
    assert added.hits[1].text_score == pytest.approx(0, abs=0.004)
    fused = photos.search(QueryInputs(query_string="a kitten", caption="spaniels"), k=100, options=SearchOptions(fusion="rrf"))
    assert names(fused)[0] == "two-spaniels.jpg"  # in both rankings, and first by its caption
    assert fused.hits[0].score == pytest.approx(1 / 61 + 1 / (60 + fused.hits[0].ranks["tokens"]))
    assert fused.hits[1].ranks == {"tokens": 1}
    assert [hit.score for hit in fused.hits] == sorted((hit.score for hit in fused.hits), reverse=True)


def test_a_missing_caption_field_is_an_error(photos: ImageSearch) -> None:
    with pytest.raises(QueryError, match="'titel'"):
        photos.search(QueryInputs(query_string="animal", caption="spaniels", caption_field="titel"))


def test_an_unreadable_filter_is_reported_in_one_line(photos: ImageSearch) -> None:
    with pytest.raises(QueryError, match=r"can't parse the query: .*Failed to parse query \[width:\(\]") as caught:
        photos.search(QueryInputs(query_string="animal", filters=["width:("]))
    assert "\n" not in caught.value.message
    with pytest.raises(ClusterError, match="nowhere"):
        photos.search("animal", options=SearchOptions(search_pipeline="nowhere"))


def test_each_page_continues_after_the_previous_one(photos: ImageSearch) -> None:
    whole = photos.search("animal", k=100)
    assert whole.after is None
    page = photos.search("animal", k=2)
    paged: list[Hit] = []
    while page.hits:
        paged += page.hits
        if page.after is None:
            break
        page = photos.search("animal", k=2, after=page.after)
    assert [hit.id for hit in paged] == [hit.id for hit in whole.hits]


def test_the_engine_explains_the_same_words(photos: ImageSearch) -> None:
    for hit in photos.search("a kitten", options=SearchOptions(explain_engine=True)).hits:
        assert set(hit.engine_scores) == {reason.token for reason in hit.contributions}
        for reason in hit.contributions:
            assert reason.contribution * (1 - 2**-8) <= hit.engine_scores[reason.token] <= reason.contribution * (1 + 1e-6)
        assert sum(hit.engine_scores.values()) == pytest.approx(hit.score, rel=1e-5)


def test_pruning_is_reported(photos: ImageSearch) -> None:
    whole = photos.build_query("a kitten").vector
    kept = 3
    result = photos.search("a kitten", options=SearchOptions(weight_mass=sum(whole.weights[:kept]) / sum(whole.weights) - 1e-6))
    assert result.pruned.tokens == whole.tokens[kept:]
    assert all(len(hit.contributions) <= kept for hit in result.hits)


def test_near_misses(photos: ImageSearch) -> None:
    spaniels, kitten = (PHOTOS / name for name in ("two-spaniels.jpg", "tabby-cat.jpg"))
    uri = next(hit.uri for hit in photos.search(spaniels, k=1).hits)
    found = photos.explain(uri, "a kitten", k=1)
    assert (found.uri, found.failed_conditions) == (uri, ())
    assert found.rank is not None
    assert found.rank > 1
    assert found.cutoff_score == photos.search("a kitten", k=1).hits[0].score
    assert found.missing_tokens.tokens[0] == "kitten"
    query = photos.build_query("a kitten").vector.tokens
    assert found.extra_tokens.tokens[0] == next(word for word in photos.build_query(spaniels).vector.tokens if word not in query)
    best = photos.explain(photos.search(kitten, k=1).hits[0].id, "a kitten")
    assert (best.rank, best.cutoff_score) == (1, None)
    refused = photos.explain(uri, QueryInputs(query_string="a kitten -dog", required=["kitten"], filters=["format:png"]))
    assert refused.score is None
    assert [reason.split(" ", 2)[1] for reason in refused.failed_conditions] == ["lacks", "has", "doesn't"]
    with pytest.raises(QueryError, match="no document"):
        photos.explain("nowhere", "a kitten")


def test_near_misses_are_explained_for_the_query_that_was_sent(photos: ImageSearch) -> None:
    yarn, cow = (photos.search(PHOTOS / name, k=1).hits[0].id for name in ("kitten-with-yarn.jpg", "dairy-cow.jpg"))
    one = SearchOptions(weight_mass=0.01)
    ranked = [hit.id for hit in photos.search("a kitten", k=100, options=one).hits]
    found = photos.explain(yarn, "a kitten", options=one)
    assert (found.rank, [reason.token for reason in found.contributions]) == (ranked.index(yarn) + 1, ["kitten"])
    assert cow not in ranked
    assert "pruning left out: animal" in photos.explain(cow, "a kitten", options=one).failed_conditions[0]
    missed = photos.explain(cow, QueryInputs(query_string="a kitten", min_score=5))
    assert missed.score is None
    assert "below the minimum score 5" in missed.failed_conditions[0]
    with pytest.raises(QueryError, match="does not support --hybrid rrf"):
        photos.explain(cow, QueryInputs(query_string="a kitten", caption="a kitten"), options=SearchOptions(fusion="rrf"))


def test_an_invalid_query_is_rejected(photos: ImageSearch) -> None:
    with pytest.raises(QueryError, match="list"):
        photos.search(["cat"])  # type: ignore[arg-type]


def test_it_needs_a_cluster(photos: ImageSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(QueryError, match="no index"):
        ImageSearch("missing-index", connection=photos._connection).search("cat")
    monkeypatch.delenv("STAIR_ES_URL", raising=False)
    with pytest.raises(Exception, match="STAIR_ES_URL"):
        ImageSearch("photos")


def test_threads_share_one_model_and_one_searcher(photos: ImageSearch) -> None:
    barrier = Barrier(4)
    with ImageSearch("test-image-search", connection=photos._connection) as fresh, ThreadPoolExecutor(4) as pool:

        def search(word: str) -> tuple[int, int, list[str]]:
            barrier.wait()
            found = names(fresh.search(word, k=1))
            return id(fresh.encoder), id(fresh.searcher), found

        encoders, searchers, found = zip(*pool.map(search, ["panda", "cow", "kitten", "spaniel"]), strict=True)
    assert (len(set(encoders)), len(set(searchers))) == (1, 1)
    assert found[1] == ["dairy-cow.jpg"]
    assert found[3] == ["two-spaniels.jpg"]


def test_queries_follow_the_words_of_a_policy(photos: ImageSearch, node_url: str) -> None:
    policy = parse_policy({"stair_es_policy": 1, "rename": {"puppy": "houndstooth", "espresso": "houndstooth"}}, "here")
    before = photos.search("puppy", k=100)
    with Cluster(Connection(url=node_url)) as cluster:
        manager = PolicyManager(cluster, "test-image-search")
        manager.apply_policy(policy, UpdateLimits(), lambda _: None)
        try:
            with ImageSearch("test-image-search", url=node_url) as with_policy:
                after = with_policy.search(QueryInputs(query_string="puppy", required=["puppy"]), k=100)
                missed = with_policy.explain(names_and_ids(after)["two-spaniels.jpg"], "puppy -espresso")
        finally:
            manager.rollback_policy(UpdateLimits(), lambda _: None)
    hit = next(hit for hit in after.hits if hit.uri.endswith("two-spaniels.jpg"))
    was = next(hit for hit in before.hits if hit.uri.endswith("two-spaniels.jpg"))
    moved = {"puppy": "houndstooth"}
    assert {reason.token for reason in hit.contributions} == {
        moved.get(reason.token, reason.token) for reason in was.contributions
    }
    assert hit.score == pytest.approx(was.score, rel=0.004)
    assert missed.failed_conditions == (f"it has the excluded word houndstooth (weight {hit.source['tokens']['houndstooth']:g})",)


def names_and_ids(result: SearchResult) -> dict[str, str]:
    return {Path(hit.uri).name: hit.id for hit in result.hits}


def test_a_result_says_how_good_it_is(photos: ImageSearch) -> None:
    found = photos.search("a kitten", k=6)
    assert found.weak_below == pytest.approx(0.4, abs=0.001)
    named = [hit.source["tokens"].get("kitten", 0) >= 0.25 for hit in found.hits]
    assert [hit.weak for hit in found.hits] == [
        hit.score < 0.4 and not has_word for hit, has_word in zip(found.hits, named, strict=True)
    ]
    assert {hit.weak for hit in found.hits} == {True, False}
    page = photos.search("a kitten", k=1, after=photos.search("a kitten", k=2).after)
    assert page.weak_below == found.weak_below
    below = [hit for hit in photos.search("animal", k=6).hits if hit.score < 0.4]  # the query has the names of many animals, too
    assert [hit.weak for hit in below] == [hit.source["tokens"].get("animal", 0) < 0.25 for hit in below]
    assert not below[0].weak
    boosted = photos.search("kitten^2 dog", k=6)
    assert not boosted.hits[0].weak
    by_caption = QueryInputs(query_string="kitten", caption="kitten")
    assert photos.search(by_caption).weak_below is None
    assert photos.search(by_caption, options=SearchOptions(fusion="rrf")).weak_below is None
    assert photos.search(PHOTOS / "red-panda.jpg").weak_below == pytest.approx(0.35, abs=0.001)


def test_a_result_says_why_it_is_empty(photos: ImageSearch) -> None:
    assert photos.search("cat +submarine").remarks == ("nothing found: no image has +submarine",)
    assert "meets its conditions" in photos.search(QueryInputs(query_string="cat", filters=["width:>99999"])).remarks[0]
    with pytest.raises(QueryError, match="'foldr'"):
        photos.search(QueryInputs(query_string="cat", filters=["foldr:x"]))
    with pytest.raises(QueryError) as caught:
        photos.search("cat +elefant")
    assert "elephant" in caught.value.remedy

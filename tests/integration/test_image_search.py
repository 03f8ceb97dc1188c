"""`ImageSearch` over photos that `ingest` took in: modes, reasons, near misses."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Barrier, Event
from typing import TYPE_CHECKING, Any

import pytest
from elasticsearch import AsyncElasticsearch
from opensearchpy import AsyncOpenSearch, OpenSearch
from support.errors import expect_error
from support.servers.fault_proxy import Response, start_server

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.config.policy_file import parse_policy
from stair_es.errors import ClusterError, ClusterUnreachable, QueryError
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.search import AsyncImageSearch, ImageSearch, QueryInputs, SearchOptions
from stair_es.sources.base import ReadLimits, UrlPolicy
from stair_es.sources.registry import open_source
from stair_es.types import TokensType

if TYPE_CHECKING:
    from stair_es.search import Hit, SearchResult

NOWHERE = "http://127.0.0.1:1"
PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
NAMES = ("tabby-cat.jpg", "kitten-with-yarn.jpg", "two-spaniels.jpg", "dairy-cow.jpg", "red-panda.jpg", "giant-panda.jpg")


@pytest.fixture(scope="module")
def search(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ImageSearch]:
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
    with ImageSearch(options.alias, url=node_url) as image_search:
        yield image_search
    with Cluster(connection) as cluster:
        cluster.client.indices.delete(index=f"{options.alias}-*")


def list_names(result: SearchResult) -> list[str]:
    return [Path(hit.uri).name for hit in result.hits]


def find_hit(result: SearchResult, name: str) -> Hit:
    return next(hit for hit in result.hits if Path(hit.uri).name == name)


def test_the_model_is_the_one_that_the_index_names(search: ImageSearch) -> None:
    assert search.encoder.model_id == "stair-mini-3"
    assert set(list_names(search.search("a kitten", k=2))) == {"tabby-cat.jpg", "kitten-with-yarn.jpg"}
    assert list_names(search.search(PHOTOS / "red-panda.jpg", k=1)) == ["red-panda.jpg"]


def test_required_and_excluded_words(search: ImageSearch) -> None:
    everything = {hit.uri: hit.source["tokens"] for hit in search.search("animal dog cat panda cow", k=100).hits}
    with_dog = {Path(uri).name for uri, tokens in everything.items() if "dog" in tokens}
    assert 0 < len(with_dog) < len(everything)
    assert set(list_names(search.search("animal +dog", k=100))) == with_dog
    without_dog = list_names(search.search("animal cat panda -dog", k=100))
    assert not set(without_dog) & with_dog
    assert search.search("animal -dog", k=100).hits
    weights = sorted(tokens["animal"] for tokens in everything.values() if "animal" in tokens)
    least = (weights[0] + weights[-1]) / 2
    strongly = {Path(uri).name for uri, tokens in everything.items() if tokens.get("animal", 0) >= least}
    assert 0 < len(strongly) < len(weights)
    assert (
        set(list_names(search.search(QueryInputs(query_string="animal", required=["animal"], min_weight=least), k=100)))
        == strongly
    )


def test_several_inputs_and_boosts_make_one_vector(search: ImageSearch) -> None:
    cat, dog = (search.build_query(text).vector.to_dict() for text in ("cat", "dog"))
    both = search.build_query(QueryInputs(query_string="cat", texts=["dog"], weights=[1, 0.25])).vector.to_dict()
    assert both == pytest.approx({word: cat.get(word, 0) + 0.25 * dog.get(word, 0) for word in (*cat, *dog)})
    boosted = search.build_query("cat^3").vector.to_dict()
    assert boosted == {word: weight * (3 if word == "cat" else 1) for word, weight in cat.items()}
    assert "cat" not in search.build_query(QueryInputs(query_string="cat", muted=frozenset({"cat"}))).vector.tokens


def test_single_words_are_required_and_excluded_whole(search: ImageSearch) -> None:
    plain = QueryInputs(query_string="animal -sheepdog-puppy", hybrid=False)
    assert search.build_query(plain).excluded == [("sheepdog", "puppy")]
    [word] = search.build_query("animal -sheepdog-puppy").excluded_words
    assert (word.text, word.tokens) == ("sheepdog-puppy", ("sheepdog", "puppy"))
    found = list_names(search.search("animal cat -tabby", k=100))
    assert "tabby-cat.jpg" not in found
    assert found
    with expect_error("word-not-in-vocabulary") as caught:
        search.search("animal -the")
    assert "'the'" in caught.value.message


def test_a_required_or_excluded_word_may_be_in_a_caption(search: ImageSearch) -> None:
    """The captions are the names of the files; *yarn* is in one, and images have its token, too."""
    everything = search.search("animal", k=100)
    with_yarn = {hit.uri for hit in everything.hits if "yarn" in hit.source["tokens"] or "yarn" in hit.source["caption"]}
    assert {hit.uri for hit in search.search("animal +yarn", k=100).hits} >= with_yarn
    assert not {hit.uri for hit in search.search("animal -yarn", k=100).hits} & with_yarn
    assert "two-spaniels.jpg" not in list_names(search.search("animal -spaniels", k=100))
    assert search.search("animal -qwzx", k=100).remarks
    assert len(search.search("animal -qwzx", k=100).hits) == len(everything.hits)
    nothing = search.search("animal +qwzx", k=100)
    assert not nothing.hits
    assert any("+qwzx" in remark for remark in nothing.remarks)
    spaniels = find_hit(everything, "two-spaniels.jpg").uri
    assert search.explain(spaniels, "animal -spaniels").failed_conditions
    assert not search.explain(spaniels, "animal +spaniels").failed_conditions


def test_filters_are_clauses_or_query_strings(search: ImageSearch) -> None:
    wide = {hit.uri for hit in search.search("animal", k=100).hits if hit.source["width"] > 300}
    assert {hit.uri for hit in search.search(QueryInputs(query_string="animal", filters=["width:>300"]), k=100).hits} == wide
    clause = {"range": {"width": {"gt": 300}}}
    assert {hit.uri for hit in search.search(QueryInputs(query_string="animal", filters=[clause]), k=100).hits} == wide
    assert not search.search(QueryInputs(query_string="animal", filters=["format:png"])).hits


def test_captions_add_their_words_or_fuse_by_rank(search: ImageSearch) -> None:
    plain = search.search(QueryInputs(query_string="animal", hybrid=False), k=100)
    added = search.search(QueryInputs(query_string="animal", caption="spaniels"), k=100)
    assert list_names(added)[0] == "two-spaniels.jpg"
    assert added.hits[0].contributions == find_hit(plain, "two-spaniels.jpg").contributions
    assert added.hits[0].text_score == pytest.approx(0.8, abs=0.004)
    assert [hit.caption_words for hit in added.hits[:2]] == [("spaniels",), ()]
    assert added.hits[1].text_score == pytest.approx(0, abs=0.004)
    fused = search.search(QueryInputs(query_string="a kitten", caption="spaniels"), k=100, options=SearchOptions(fusion="rrf"))
    assert list_names(fused)[0] == "two-spaniels.jpg"  # in both rankings, and first by its caption
    assert fused.hits[0].score == pytest.approx(0.8 / 61 + 1 / (60 + fused.hits[0].ranks["tokens"]))
    assert fused.hits[1].ranks == {"tokens": 1}
    assert [hit.score for hit in fused.hits] == sorted((hit.score for hit in fused.hits), reverse=True)


@pytest.mark.parametrize(
    ("query", "code", "fact"),
    [
        (QueryInputs(query_string="animal", caption="spaniels", caption_field="titel"), "no-such-caption-field", "'titel'"),
        (QueryInputs(query_string="cat", filters=["foldr:x"]), "no-such-filter-field", "'foldr'"),
        (QueryInputs(query_string="animal", filters=["width:("]), "query-rejected", "[width:(]"),
        (QueryInputs(query_string="cat +elephnt", hybrid=False), "word-not-in-vocabulary", "elephant"),
        (["cat"], "unsupported-query", "list"),
    ],
)
def test_invalid_queries_are_rejected_with_their_fault(search: ImageSearch, query: Any, code: str, fact: str) -> None:  # noqa: ANN401
    with expect_error(code, QueryError) as caught:
        search.search(query)
    assert fact in str(caught.value)
    assert "\n" not in caught.value.message


def test_a_missing_search_pipeline_is_an_error_of_the_cluster(search: ImageSearch) -> None:
    with pytest.raises(ClusterError, match="nowhere"):
        search.search("animal", options=SearchOptions(search_pipeline="nowhere"))


def test_each_page_continues_after_the_previous_one(search: ImageSearch) -> None:
    whole = search.search("animal", k=100)
    assert whole.after is None
    page = search.search("animal", k=2)
    paged: list[Hit] = []
    while page.hits:
        paged += page.hits
        if page.after is None:
            break
        page = search.search("animal", k=2, after=page.after)
    assert [hit.id for hit in paged] == [hit.id for hit in whole.hits]


def test_pruning_is_reported(search: ImageSearch) -> None:
    whole = search.build_query("a kitten").vector
    kept = 3
    result = search.search("a kitten", options=SearchOptions(weight_mass=sum(whole.weights[:kept]) / sum(whole.weights) - 1e-6))
    assert result.pruned.tokens == whole.tokens[kept:]
    assert all(len(hit.contributions) <= kept for hit in result.hits)


def test_near_misses(search: ImageSearch) -> None:
    spaniels, kitten = (PHOTOS / name for name in ("two-spaniels.jpg", "tabby-cat.jpg"))
    uri = next(hit.uri for hit in search.search(spaniels, k=1).hits)
    found = search.explain(uri, "a kitten", k=1)
    assert (found.uri, found.failed_conditions) == (uri, ())
    assert found.rank is not None
    assert found.rank > 1
    assert found.cutoff_score == search.search("a kitten", k=1).hits[0].score
    assert found.missing_tokens.tokens[0] == "kitten"
    query = search.build_query("a kitten").vector.tokens
    assert found.extra_tokens.tokens[0] == next(word for word in search.build_query(spaniels).vector.tokens if word not in query)
    best = search.explain(search.search(kitten, k=1).hits[0].id, QueryInputs(query_string="a kitten", hybrid=False))
    assert (best.rank, best.cutoff_score) == (1, None)
    excluded = search.explain(uri, QueryInputs(query_string="a kitten -dog", required=["kitten"], filters=["format:png"]))
    assert excluded.score is None
    for reason, fact in zip(excluded.failed_conditions, ("kitten", "dog", "format:png"), strict=True):
        assert fact in reason
    with expect_error("no-such-image"):
        search.explain("nowhere", "a kitten")


def test_near_misses_are_explained_for_the_query_that_was_sent(search: ImageSearch) -> None:
    yarn, cow = (search.search(PHOTOS / name, k=1).hits[0].id for name in ("kitten-with-yarn.jpg", "dairy-cow.jpg"))
    one_token = SearchOptions(weight_mass=0.01)
    ranked = [hit.id for hit in search.search("a kitten", k=100, options=one_token).hits]
    found = search.explain(yarn, "a kitten", options=one_token)
    assert (found.rank, [reason.token for reason in found.contributions]) == (ranked.index(yarn) + 1, ["kitten"])
    assert cow not in ranked
    assert "animal" in search.explain(cow, "a kitten", options=one_token).failed_conditions[0]
    missed = search.explain(cow, QueryInputs(query_string="a kitten", min_score=5))
    assert missed.score is None
    assert missed.failed_conditions[0].endswith(" 5")
    with expect_error("rrf-not-explainable"):
        search.explain(cow, QueryInputs(query_string="a kitten", caption="a kitten"), options=SearchOptions(fusion="rrf"))


def test_it_needs_a_cluster_and_an_index(search: ImageSearch, monkeypatch: pytest.MonkeyPatch) -> None:
    with expect_error("index-not-found", QueryError):
        ImageSearch("missing-index", connection=search._cluster.connection).search("cat")
    monkeypatch.delenv("STAIR_ES_URL", raising=False)
    with expect_error("no-cluster"):
        ImageSearch("photos")


def test_threads_share_one_model_and_one_searcher(search: ImageSearch) -> None:
    barrier = Barrier(4)
    with ImageSearch("test-image-search", connection=search._cluster.connection) as fresh, ThreadPoolExecutor(4) as pool:

        def search_word(word: str) -> tuple[int, int, list[str]]:
            barrier.wait()
            found = list_names(fresh.search(word, k=1))
            return id(fresh.encoder), id(fresh.searcher), found

        encoders, searchers, found = zip(*pool.map(search_word, ["panda", "cow", "kitten", "spaniel"]), strict=True)
    assert (len(set(encoders)), len(set(searchers))) == (1, 1)
    assert found[1] == ["dairy-cow.jpg"]
    assert found[3] == ["two-spaniels.jpg"]


def test_queries_follow_the_words_of_a_policy(search: ImageSearch, node_url: str) -> None:
    policy = parse_policy({"stair_es_policy": 1, "rename": {"puppy": "houndstooth", "espresso": "houndstooth"}}, "here")
    before = search.search("puppy", k=100)
    with Cluster(Connection(url=node_url)) as cluster:
        manager = PolicyManager(cluster, "test-image-search")
        manager.apply_policy(policy, UpdateLimits(), lambda _: None)
        try:
            with ImageSearch("test-image-search", url=node_url) as with_policy:
                after = with_policy.search(QueryInputs(query_string="puppy", required=["puppy"]), k=100)
                missed = with_policy.explain(
                    find_hit(after, "two-spaniels.jpg").id, QueryInputs(query_string="puppy -espresso", hybrid=False)
                )
        finally:
            manager.rollback_policy(UpdateLimits(), lambda _: None)
    hit, former = find_hit(after, "two-spaniels.jpg"), find_hit(before, "two-spaniels.jpg")
    renamed = {"houndstooth" if reason.token == "puppy" else reason.token for reason in former.contributions}
    assert {reason.token for reason in hit.contributions} == renamed
    assert hit.score == pytest.approx(former.score, rel=0.004)
    [condition] = missed.failed_conditions
    assert "houndstooth" in condition
    assert f"{hit.source['tokens']['houndstooth']:g}" in condition


def test_a_result_says_how_good_it_is(search: ImageSearch) -> None:
    found = search.search(QueryInputs(query_string="a kitten", hybrid=False), k=6)
    assert found.weak_below == pytest.approx(0.4, abs=0.001)
    named = [hit.source["tokens"].get("kitten", 0) >= 0.25 for hit in found.hits]
    assert [hit.weak for hit in found.hits] == [
        hit.score < 0.4 and not has_word for hit, has_word in zip(found.hits, named, strict=True)
    ]
    assert {hit.weak for hit in found.hits} == {True, False}
    page = search.search("a kitten", k=1, after=search.search("a kitten", k=2).after)
    assert page.weak_below == found.weak_below
    animals = search.search(QueryInputs(query_string="animal", hybrid=False), k=6)
    below = [hit for hit in animals.hits if hit.score < 0.4]  # the query has the names of many animals, too
    assert [hit.weak for hit in below] == [hit.source["tokens"].get("animal", 0) < 0.25 for hit in below]
    assert not below[0].weak
    boosted = search.search("kitten^2 dog", k=6)
    assert not boosted.hits[0].weak
    by_caption = QueryInputs(query_string="kitten", caption="spaniels")
    assert not find_hit(search.search(by_caption), "two-spaniels.jpg").weak  # its caption has every word
    assert search.search(by_caption, options=SearchOptions(fusion="rrf")).weak_below is None
    assert search.search(PHOTOS / "red-panda.jpg").weak_below == pytest.approx(0.45, abs=0.001)


def test_a_result_says_why_it_is_empty(search: ImageSearch) -> None:
    unmet, uncarried = search.search("cat +submarine").remarks
    assert "+submarine" in unmet
    assert "'submarine'" in uncarried
    [remark] = search.search(QueryInputs(query_string="cat", filters=["width:>99999"])).remarks
    assert "conditions" in remark
    assert search.search("cat").remarks == ()


@asynccontextmanager
async def open_client(kind: str, url: str) -> AsyncIterator[Any]:
    if kind == "opensearch":
        async with AsyncOpenSearch([url]) as client:
            yield client
    elif kind == "elasticsearch":
        async with AsyncElasticsearch([url], max_retries=0) as client:
            yield client
    else:
        yield None


def ingest_photos(url: str, index: str, letters: Path, vector: TokensType) -> None:
    document = DocumentSettings(vector=vector, thumbnail_px=0)
    options = IngestOptions(alias=index, model=ModelSpec(name="stair-mini"), document=document, dead_letters=letters)
    sources = [open_source(str(PHOTOS / name)) for name in NAMES]
    assert run_ingest(sources, Connection(url=url), options, progress=lambda _: None).failed == 0


@pytest.mark.parametrize("kind", ["opensearch", "elasticsearch", "url"])
def test_an_event_loop_searches_with_the_client_of_its_program(
    kind: str, request: pytest.FixtureRequest, make_index_name: Callable[[str], str], tmp_path: Path
) -> None:
    url = request.getfixturevalue("elasticsearch9_url" if kind == "elasticsearch" else "node_url")
    index = make_index_name(url)
    ingest_photos(url, index, tmp_path / "x.jsonl", "sparse_vector" if kind == "elasticsearch" else "rank_features")

    async def search() -> None:
        async with open_client(kind, url) as client:
            address = None if client else url
            async with AsyncImageSearch(index, client=client, max_concurrency=4, url=address) as images:
                assert (await images.load_encoder()).model_id == "stair-mini-3"
                queries = ["panda", "cow", "kitten", "spaniel"] * 3
                found = await asyncio.gather(*(images.search(query, k=1) for query in queries))
                assert list_names(found[1]) == ["dairy-cow.jpg"]
                assert list_names(found[-1]) == ["two-spaniels.jpg"]
                assert (await images.explain(found[0].hits[0].id, await images.build_query("panda"))).rank == 1
                with expect_error("no-known-word"):
                    await images.search("zzxq", options=SearchOptions())
            async with AsyncImageSearch("missing-index", client=client, url=address) as images:
                with expect_error("index-not-found", QueryError):
                    await images.search("cat")
            if client:
                assert (await client.cluster.health())["status"], "the client of the program stays open"
        async with (
            open_client(kind, NOWHERE) as client,
            AsyncImageSearch(index, client=client, url=None if client else NOWHERE) as images,
        ):
            with expect_error("cluster-unreachable", ClusterUnreachable):
                await images.search("cat")

    asyncio.run(search())


def test_a_cancelled_search_ends(node_url: str) -> None:
    """A cluster that never answers holds neither the caller nor the end of the program."""

    async def never_answer(*_: Any, **__: Any) -> None:  # noqa: ANN401
        await asyncio.Event().wait()

    async def search() -> None:
        async with AsyncOpenSearch([node_url]) as client:
            client.transport.perform_request = never_answer
            async with AsyncImageSearch("photos", client=client, max_concurrency=1) as images:
                searches = [asyncio.create_task(images.search("cat")) for _ in range(3)]
                await asyncio.sleep(0.1)
                for task in searches:
                    task.cancel()
                assert [type(each) for each in await asyncio.gather(*searches, return_exceptions=True)] == [
                    asyncio.CancelledError
                ] * 3

    asyncio.run(asyncio.wait_for(search(), 60))


def test_a_search_belongs_to_one_event_loop(node_url: str) -> None:
    class OwnClient(AsyncOpenSearch):
        """A subclass, as programs have them."""

    client = OwnClient([node_url])
    images = AsyncImageSearch("missing-index", client=client)

    async def search(code: str) -> None:
        with expect_error(code):
            await asyncio.wait_for(images.search("cat"), 60)
        if code == "index-not-found":
            await client.close()

    asyncio.run(search("index-not-found"))
    asyncio.run(search("other-event-loop"))


def test_a_slow_picture_holds_nobody_else(search: ImageSearch, node_url: str) -> None:
    released = Event()

    def answer(_: object) -> Response:
        released.wait(60)
        return Response(kind="image/jpeg", body=(PHOTOS / "koala.jpg").read_bytes())

    async def run(url: str) -> None:
        limits = ReadLimits(url_policy=UrlPolicy(allow_private=True))
        async with AsyncImageSearch("test-image-search", url=node_url, read_limits=limits) as images:
            slow = [asyncio.create_task(images.search(QueryInputs(images=[f"{url}/{number}.jpg"]))) for number in range(4)]
            assert (await asyncio.wait_for(images.search("a kitten"), 60)).hits
            assert not any(task.done() for task in slow)
            released.set()
            assert all(result.hits for result in await asyncio.gather(*slow))

    with start_server(answer) as url:
        asyncio.run(run(url))


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({"max_concurrency": 0}, "invalid-max-concurrency"),
        ({"client": object(), "url": "http://localhost:9200"}, "option-conflict"),
        ({"client": object()}, "unsupported-client"),
        ({"client": OpenSearch("http://localhost:9200")}, "unsupported-client"),
    ],
)
def test_the_options_of_an_event_loop_are_checked(options: dict[str, Any], code: str) -> None:
    with expect_error(code):
        AsyncImageSearch("photos", **options)

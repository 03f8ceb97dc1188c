"""Every panel's request on real nodes: its figures against those counted from the documents themselves."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

import pytest
from support.corpora.dashboard_corpus import KINDS, PIECES, WORDLESS, ingest_corpus
from support.corpora.token_index import build_entries, build_token_index, read_documents
from support.dashboards.checks import find_errors
from support.dashboards.clicks import list_clicks
from support.oracles.vega_render import list_charts, render_marks, render_png
from support.servers.saved_objects_requests import PanelRequest, build_phrase_filter, list_requests

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.dashboards.bundle import SavedObject, build_bundle
from stair_es.dashboards.index_info import DashboardSpec, Product, inspect_index

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

VEGA_LITE = ["5.8", "5.21", "6.4"]
"""What the products came with, from OpenSearch Dashboards 2.6 to now."""
Document = Mapping[str, Any]


def is_whole(word: str) -> bool:
    return not (word.startswith("##") or re.fullmatch("[A-Za-z0-9]", word))


@dataclass(frozen=True)
class ChartCorpus:
    """A corpus on a node, and what is in it."""

    client: OpenSearch
    spec: DashboardSpec
    docs: Mapping[str, Document]
    rows: Sequence[Document]
    """What the token index holds, built from `docs`, not read from it."""

    def search_index(self, index: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.search(index=index, body=body)
        return answer

    def query_panels(self, product: Product, *filters: Mapping[str, Any]) -> dict[str, tuple[PanelRequest, dict[str, Any]]]:
        """Return the request of each kind of panel, and the answer of the node."""
        objects = build_bundle(self.spec, product)
        assert find_errors(objects, product) == []
        return {
            self.get_kind(request.panel): (request, self.search_index(request.index, request.body))
            for request in list_requests(objects, product, filters)
        }

    def get_kind(self, id_: str) -> str:
        return id_.removeprefix(self.spec.build_id("")).lstrip("-")

    def list_words(self) -> list[str]:
        """Return the words that charts show: no pieces of words, no single letters."""
        return [word for doc in self.docs.values() for word in doc["top_tokens"] if is_whole(word)]

    def list_values(self, name: str, token: str) -> list[float]:
        return [row[name] for row in self.rows if row["token"] == token]


@contextmanager
def open_corpus(url: str, alias: str) -> Iterator[Cluster]:
    """Yield the cluster, and delete the indices of the alias afterward."""
    with Cluster(Connection(url=url)) as cluster:
        yield cluster
        cluster.client.indices.delete(index=",".join(cluster.client.indices.get(index=f"{alias}*")))


@pytest.fixture(scope="module", params=["node_url", "elasticsearch7_url", "elasticsearch9_url"])
def engine_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(request.param)
    return url


def read_corpus(cluster: Cluster, alias: str) -> ChartCorpus:
    docs = read_documents(cluster.client, alias)
    rows = [entry for id_, source in docs.items() for entry in build_entries(id_, source)]
    return ChartCorpus(cluster.client, inspect_index(cluster, alias).spec, docs, rows)


@pytest.fixture(scope="module")
def corpus(engine_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChartCorpus]:
    """With the token index that `ingest` writes."""
    with open_corpus(engine_url, "test-dashboards") as cluster:
        vector = "sparse_vector" if get_cluster_info(cluster).supports_sparse_vector else "rank_features"
        ingest_corpus(engine_url, "test-dashboards", tmp_path_factory.mktemp("photos"), vector=vector)
        yield read_corpus(cluster, "test-dashboards")


@pytest.fixture(scope="module")
def manual_corpus(node_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChartCorpus]:
    """With a token index that another program has written, and that names tokens as the main index does."""
    alias = "test-dashboards-by-hand"
    with open_corpus(node_url, alias) as cluster:
        ingest_corpus(node_url, alias, tmp_path_factory.mktemp("photos"), token_index=False, every=2)
        build_token_index(cluster.client, alias)
        yield read_corpus(cluster, alias)


def round_to_float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


ON_ONE_NODE = pytest.mark.parametrize("engine_url", ["node_url"], indirect=True)
"""For what doesn't depend on the engine: `test_every_panel_shows_document_values` asks all of them."""


# --- what the panels should show, from the documents ---


def rank_counts(counts: Mapping[str, int], size: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:size]


def count_top(values: Iterator[Any] | list[Any], size: int) -> list[tuple[str, int]]:
    return rank_counts(Counter(values), size)


def get_buckets(answer: Mapping[str, Any], name: str) -> list[Any]:
    values: list[Any] = answer["aggregations"][name]["buckets"]
    return values


def get_total(answer: Mapping[str, Any]) -> int:
    total: int = answer["hits"]["total"]["value"]
    return total


def read_counts(answer: Mapping[str, Any], name: str) -> list[tuple[Any, int]]:
    return [(bucket["key"], bucket["doc_count"]) for bucket in get_buckets(answer, name)]


PanelCheck = Callable[[ChartCorpus, PanelRequest, dict[str, Any]], None]


def check_numbers(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert get_total(answer) == len(corpus.docs)
    assert answer["aggregations"]["2"]["value"] == len({word for doc in corpus.docs.values() for word in doc["top_tokens"]})


def build_word_check(size: int) -> PanelCheck:
    def check_words(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
        assert read_counts(answer, "2") == count_top(corpus.list_words(), size)

    return check_words


def count_neighbors(corpus: ChartCorpus, word: str) -> Counter[str]:
    return Counter(
        other for doc in corpus.docs.values() if word in doc["top_tokens"] for other in doc["top_tokens"] if is_whole(other)
    )


def check_together(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert read_counts(answer, "tokens") == count_top(corpus.list_words(), 20)
    for bucket in get_buckets(answer, "tokens"):
        values = [(other["key"], other["doc_count"]) for other in bucket["others"]["buckets"]]
        assert values == rank_counts(count_neighbors(corpus, bucket["key"]), 200)


def check_sources(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert read_counts(answer, "sources") == count_top([doc["source"] for doc in corpus.docs.values()], 12)
    assert len(get_buckets(answer, "sources")) == 5
    for bucket in get_buckets(answer, "sources"):
        of_source = [doc for doc in corpus.docs.values() if doc["source"] == bucket["key"]]
        inside = Counter(word for doc in of_source for word in doc["top_tokens"] if is_whole(word))
        assert [(word["key"], word["doc_count"]) for word in bucket["tokens"]["buckets"]] == rank_counts(inside, 300)


def check_labels(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    labels = [label for doc in corpus.docs.values() for label in doc.get("top_labels", ())]
    assert read_counts(answer, "labels") == count_top(labels, 20)
    for bucket in get_buckets(answer, "labels"):
        inside = count_words_by_label(corpus, bucket["key"])
        assert [(word["key"], word["doc_count"]) for word in bucket["tokens"]["buckets"]] == rank_counts(inside, 200)


def count_words_by_label(corpus: ChartCorpus, label: str) -> Counter[str]:
    docs = [doc for doc in corpus.docs.values() if label in doc.get("top_labels", ())]
    return Counter(word for doc in docs for word in doc["top_tokens"] if is_whole(word))


def check_months(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert corpus.spec.time_field == "taken_at"
    assert read_counts(answer, "2") == count_top(corpus.list_words(), 8)
    for bucket in get_buckets(answer, "2"):
        months = Counter(
            doc["taken_at"][:7] for doc in corpus.docs.values() if bucket["key"] in doc["top_tokens"] and "taken_at" in doc
        )
        assert {each["key_as_string"][:7]: each["doc_count"] for each in bucket["3"]["buckets"]} == months


def check_colors(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert read_counts(answer, "2") == count_top((color for doc in corpus.docs.values() for color in doc["colors"]), 12)
    assert len(get_buckets(answer, "2")) > 3


def check_map(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert count_locations(get_sources(answer)) == count_locations(corpus.docs.values())
    assert all(source.keys() == {"location"} for source in get_sources(answer))


def count_locations(sources: Iterable[Document]) -> Counter[tuple[float, float]]:
    return Counter((source["location"]["lat"], source["location"]["lon"]) for source in sources if "location" in source)


def check_average_weight(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert read_counts(answer, "tokens") == count_top([row["token"] for row in corpus.rows if is_whole(row["token"])], 25)
    for bucket in get_buckets(answer, "tokens"):
        weights = corpus.list_values("weight", bucket["key"])
        assert bucket["weight"]["value"] == pytest.approx(mean(weights), rel=1e-6)
        assert bucket["heaviest"]["value"] == pytest.approx(max(weights), rel=1e-6)


def check_token_table(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert read_counts(answer, "2") == count_top([row["token"] for row in corpus.rows], 100)
    for bucket in get_buckets(answer, "2"):
        weights = corpus.list_values("weight", bucket["key"])
        shares = corpus.list_values("weight_share", bucket["key"])
        assert bucket["3"]["value"] == pytest.approx(mean(weights), rel=1e-6)
        assert bucket["4"]["value"] == pytest.approx(max(weights), rel=1e-6)
        assert bucket["5"]["value"] == pytest.approx(mean(shares), rel=1e-6)


def check_distribution(corpus: ChartCorpus, request: PanelRequest, answer: dict[str, Any]) -> None:
    ranges = list(answer["aggregations"]["2"]["buckets"].values())
    weights = [round_to_float32(row["weight"]) for row in corpus.rows]
    for each in ranges:
        inside = [weight for weight in weights if each["from"] <= weight < each.get("to", float("inf"))]
        assert each["doc_count"] == len(inside)
    assert sum(each["doc_count"] for each in ranges) == len(weights)
    assert 10 < len(ranges) <= 41


def check_tokens_per_image(corpus: ChartCorpus, request: PanelRequest, answer: dict[str, Any]) -> None:
    width = request.body["aggs"]["2"]["histogram"]["interval"]
    token_counts = {row["image_id"]: row["token_count"] for row in corpus.rows}
    values = {bucket["key"] // width: bucket["1"]["value"] for bucket in get_buckets(answer, "2") if bucket["doc_count"]}
    assert values == Counter(count // width for count in token_counts.values())
    assert len(get_buckets(answer, "2")) <= 51


def get_sources(answer: Mapping[str, Any]) -> list[Any]:
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def check_one_image(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    first = min(row["uri"] for row in corpus.rows)
    expected = sorted((row for row in corpus.rows if row["uri"] == first), key=lambda row: row["rank"])
    values = get_sources(answer)
    assert [(row["token"], row["rank"]) for row in values] == [(row["token"], row["rank"]) for row in expected]
    assert [row["weight"] for row in values] == pytest.approx([row["weight"] for row in expected])


def check_found(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    hits = answer["hits"]["hits"]
    assert {hit["_id"] for hit in hits} == set(corpus.docs)
    times = [hit["_source"]["ingested_at"] for hit in hits]
    assert times == sorted(times, reverse=True)
    for hit in hits:
        assert hit["_source"]["thumbnail"].startswith("data:image/webp;base64,")
        assert not {"tokens", "policy_undo", "version"} & set(hit["_source"])


def check_heaviest(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    weights = [row["weight"] for row in get_sources(answer)]
    assert weights == pytest.approx(sorted((row["weight"] for row in corpus.rows), reverse=True)[:500])


def list_first_rows(corpus: ChartCorpus) -> list[Document]:
    return [row for row in corpus.rows if row["rank"] == 1]


def check_few_tokens(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert [row["token_count"] for row in get_sources(answer)] == sorted(row["token_count"] for row in list_first_rows(corpus))
    assert {row["uri"] for row in get_sources(answer)} == {row["uri"] for row in list_first_rows(corpus)}


def check_dominated(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    expected = sorted(list_first_rows(corpus), key=lambda row: -row["weight_share"])
    assert [row["weight_share"] for row in get_sources(answer)] == pytest.approx([row["weight_share"] for row in expected])
    assert get_sources(answer)[0]["token"] == expected[0]["token"]


def check_wordless(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [WORDLESS]


def build_choice_check(field: str, kind: str) -> PanelCheck:
    def check_choice(corpus: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
        values = [value for doc in corpus.docs.values() for value in to_list(doc.get(field))]
        assert read_counts(answer, kind) == count_top(values, 10)

    return check_choice


def to_list(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


PANELS: dict[str, PanelCheck] = {
    "numbers": check_numbers,
    "cloud": build_word_check(40),
    "bars": build_word_check(20),
    "together": check_together,
    "by-source": check_sources,
    "over-time": check_months,
    "colors": check_colors,
    "map": check_map,
    "by-label": check_labels,
    "average-weight": check_average_weight,
    "in-numbers": check_token_table,
    "distribution": check_distribution,
    "one-image": check_one_image,
    "found": check_found,
    "by-weight": check_heaviest,
    "tokens-per-image": check_tokens_per_image,
    "few-tokens": check_few_tokens,
    "dominated": check_dominated,
    "wordless": check_wordless,
}
CONTROLS: dict[Product, tuple[str, str]] = {
    "opensearch-dashboards": ("controls", "termsAgg"),
    "kibana": ("dashboard", "suggestions"),
}


@pytest.mark.parametrize("product", ["opensearch-dashboards", "kibana"])
def test_every_panel_shows_document_values(corpus: ChartCorpus, product: Product) -> None:
    panel, name = CONTROLS[product]
    fields = ("top_tokens", "colors", corpus.spec.name_field, "source", "model")
    choices = {f"{panel}/{field}": build_choice_check(field, name) for field in fields}
    answers = corpus.query_panels(product)
    assert set(answers) == set(PANELS) | set(choices)  # none is left out
    for kind, check in {**PANELS, **choices}.items():
        request, answer = answers[kind]
        assert answer["_shards"]["failed"] == 0, kind
        assert get_total(answer) > 0, kind
        check(corpus, request, answer)


def test_the_panels_that_were_checked_are_complete(corpus: ChartCorpus) -> None:
    assert find_errors(build_bundle(corpus.spec, "kibana"), "kibana") == []
    assert corpus.spec == replace(corpus.spec, has_token_index=True, thumbnails=True, interval="M", captions=False)
    assert corpus.spec.largest_weight == round_to_float32(max(row["weight"] for row in corpus.rows))
    counts = [row["token_count"] for row in corpus.rows]
    assert corpus.spec.token_counts == (min(counts), max(counts))


@ON_ONE_NODE
def test_pieces_of_words_are_in_tables_only(corpus: ChartCorpus) -> None:
    [chosen] = [build_phrase_filter("uri", [doc["uri"]]) for id_, doc in corpus.docs.items() if id_ == "pieces"]
    answers = {kind: answer for kind, (_, answer) in corpus.query_panels("kibana", chosen).items()}
    assert {key for key, _ in read_counts(answers["in-numbers"], "2")} == set(PIECES)
    assert [row["token"] for row in get_sources(answers["one-image"])] == list(PIECES)
    for kind, name in (("cloud", "2"), ("bars", "2"), ("over-time", "2"), ("together", "tokens"), ("average-weight", "tokens")):
        assert read_counts(answers[kind], name) == [], kind
    assert [each["tokens"]["buckets"] for each in get_buckets(answers["by-source"], "sources")] == [[]]


# --- filters ---


def test_a_chosen_word_reaches_every_panel(manual_corpus: ChartCorpus) -> None:
    word = "animal"
    chosen = build_phrase_filter("top_tokens", [word])
    inside = {id_: doc for id_, doc in manual_corpus.docs.items() if word in doc["top_tokens"]}
    assert 1 < len(inside) < len(manual_corpus.docs)
    narrowed = replace(manual_corpus, docs=inside, rows=[row for row in manual_corpus.rows if row["token"] == word])
    answers = manual_corpus.query_panels("kibana", chosen)
    for kind in set(PANELS) - {"by-source", "one-image", "few-tokens", "dominated", "wordless"}:
        PANELS[kind](narrowed, *answers[kind])
    assert [row["token"] for row in get_sources(answers["by-weight"][1])] == [word] * len(inside)


@ON_ONE_NODE
def test_a_chosen_color_reaches_every_panel(corpus: ChartCorpus) -> None:
    inside = {id_: doc for id_, doc in corpus.docs.items() if "blue" in doc["colors"]}
    assert 1 < len(inside) < len(corpus.docs)
    uris = {doc["uri"] for doc in inside.values()}
    narrowed = replace(corpus, docs=inside, rows=[row for row in corpus.rows if row["uri"] in uris])
    answers = corpus.query_panels("kibana", build_phrase_filter("colors", ["blue"]))
    for kind in ("colors", "cloud", "bars", "over-time", "found", "average-weight", "in-numbers", "distribution", "few-tokens"):
        PANELS[kind](narrowed, *answers[kind])


@ON_ONE_NODE
def test_a_chosen_image_shows_its_weights_and_its_thumbnail(corpus: ChartCorpus) -> None:
    [uri] = [doc["uri"] for doc in corpus.docs.values() if doc["uri"].endswith("/koala.jpg")]
    answers = corpus.query_panels("opensearch-dashboards", build_phrase_filter("uri", [uri]))
    expected = [row["token"] for row in corpus.rows if row["uri"] == uri]
    assert [row["token"] for row in get_sources(answers["one-image"][1])] == expected
    assert [row["uri"] for row in get_sources(answers["found"][1])] == [uri]


def test_several_words_are_either_of_them(manual_corpus: ChartCorpus) -> None:
    words = ["bird", "cat"]
    _, answer = manual_corpus.query_panels("kibana", build_phrase_filter("top_tokens", words))["numbers"]
    assert get_total(answer) == sum(any(word in doc["top_tokens"] for word in words) for doc in manual_corpus.docs.values())


# --- clicks ---


def count_matches(corpus: ChartCorpus, request: PanelRequest, filters: Sequence[Mapping[str, Any]]) -> int:
    query = {**request.body["query"]["bool"], "filter": [*request.body["query"]["bool"]["filter"], *filters]}
    answer = corpus.search_index(request.index, {"size": 0, "track_total_hits": True, "query": {"bool": query}})
    return get_total(answer)


@pytest.mark.parametrize("product", ["opensearch-dashboards", "kibana"])
def test_a_click_finds_the_documents_of_its_bar(corpus: ChartCorpus, product: Product) -> None:
    answers = corpus.query_panels(product)
    clicked = {}
    for obj in list_classic_charts(build_bundle(corpus.spec, product)):
        kind = corpus.get_kind(obj["id"])
        request, answer = answers[kind]
        clicks = list(list_clicks(obj, answer))
        for click in clicks:
            assert count_matches(corpus, request, click.filters) == click.documents > 0, (kind, click)
        clicked[kind] = len(clicks)
    assert {kind for kind, count in clicked.items() if count} == CLICKABLE
    assert clicked["distribution"] > 10
    assert clicked["tokens-per-image"] > 3


@ON_ONE_NODE
def test_a_click_on_a_weight_filters_by_a_field_that_images_lack(corpus: ChartCorpus) -> None:
    """The documentation says how to keep the panels about images then."""
    [chart] = [obj for obj in list_classic_charts(build_bundle(corpus.spec, "kibana")) if obj["id"].endswith("-distribution")]
    click = next(iter(list_clicks(chart, corpus.query_panels("kibana")["distribution"][1])))
    answers = corpus.query_panels("kibana", *click.filters)
    assert get_total(answers["numbers"][1]) == 0
    assert get_total(answers["in-numbers"][1]) == click.documents


def test_the_field_list_has_what_the_panels_use(corpus: ChartCorpus) -> None:
    for obj in build_bundle(corpus.spec, "kibana"):
        if obj["type"] == "index-pattern":
            fields = {each["name"]: each for each in json.loads(obj["attributes"]["fields"])}
            is_main = obj["attributes"]["title"] == corpus.spec.name
            mapped = corpus.client.indices.get_mapping(index=obj["attributes"]["title"])
            [properties] = [each["mappings"]["properties"] for each in mapped.values()]
            assert set(properties) - {"policy_undo", "text_boxes"} <= set(fields)
            assert fields["top_tokens"]["aggregatable"]
            assert fields["top_tokens"]["type"] == "string"
            number = fields["width" if is_main else "weight"]
            assert (number["type"], number["aggregatable"], number["readFromDocValues"]) == ("number", True, True)
            assert fields["_id"]["type"] == "string"


# --- what Vega makes of it ---


CLICKABLE = {"cloud", "bars", "over-time", "colors", "in-numbers", "distribution", "tokens-per-image"}


def list_classic_charts(objects: Sequence[SavedObject]) -> list[SavedObject]:
    return [obj for obj in objects if json.loads(obj["attributes"].get("visState", "{}")).get("aggs")]


@ON_ONE_NODE
@pytest.mark.parametrize("version", VEGA_LITE)
def test_vega_draws_the_figures(corpus: ChartCorpus, version: str) -> None:
    specs = {corpus.get_kind(id_): spec for id_, spec in list_charts(build_bundle(corpus.spec, "kibana"), corpus.search_index)}
    assert set(specs) == set(DRAWN)
    for kind, check in DRAWN.items():
        check(corpus, render_marks(specs[kind], version=version))


Marks = list[dict[str, str]]


def parse_percent(text: str) -> float:
    return float(text.removesuffix("%"))


def check_drawn_pairs(corpus: ChartCorpus, marks: Marks) -> None:
    cells = [mark for mark in marks if "Other word" in mark]
    top = [word for word, _ in count_top(corpus.list_words(), 20)]
    expected = {(one, other): count_neighbors(corpus, one)[other] for one in top for other in top if one != other}
    drawn = {(cell["Word"], cell["Other word"]): int(cell["Images with both"]) for cell in cells}
    assert drawn == {pair: both for pair, both in expected.items() if both}
    for cell in cells:
        both, one, other = (int(cell[name]) for name in ("Images with both", "with the first", "with the second"))
        assert parse_percent(cell["Shared"]) == pytest.approx(100 * both / (one + other - both), abs=0.051)


def check_drawn_sources(corpus: ChartCorpus, marks: Marks) -> None:
    dots = [mark for mark in marks if "Part" in mark]
    assert {dot["Word"] for dot in dots} == {word for word, _ in count_top(corpus.list_words(), 20)}
    images = Counter(doc["source"] for doc in corpus.docs.values())
    assert len({dot["Source"] for dot in dots}) == 3
    for dot in dots:
        both = sum(doc["source"] == dot["Source"] and dot["Word"] in doc["top_tokens"] for doc in corpus.docs.values())
        assert int(dot["Images with it"]) == both
        assert parse_percent(dot["Part"]) == pytest.approx(100 * both / images[dot["Source"]], abs=0.051)


def check_drawn_map(corpus: ChartCorpus, marks: Marks) -> None:
    signed = [{name: value.replace("\u2212", "-") for name, value in mark.items()} for mark in marks if "Images" in mark]
    cells = {(float(mark["Latitude"]), float(mark["Longitude"])): int(mark["Images"]) for mark in signed}
    assert cells == count_locations(corpus.docs.values())
    assert len(cells) == 2


def check_drawn_labels(corpus: ChartCorpus, marks: Marks) -> None:
    cells = [mark for mark in marks if "Label" in mark]
    assert {cell["Label"] for cell in cells} == {"photo", *KINDS}
    assert len({cell["Word"] for cell in cells}) == 30
    for cell in cells:
        both, images = int(cell["Images with both"]), int(cell["with the label"])
        assert both == count_words_by_label(corpus, cell["Label"])[cell["Word"]]
        assert parse_percent(cell["Part"]) == pytest.approx(100 * both / images, abs=0.051)


def check_drawn_averages(corpus: ChartCorpus, marks: Marks) -> None:
    averages = {mark["Word"]: float(mark["Average weight"]) for mark in marks if "Average weight" in mark}
    assert set(averages) == {word for word, _ in count_top([row["token"] for row in corpus.rows if is_whole(row["token"])], 25)}
    for word, average in averages.items():
        weights = corpus.list_values("weight", word)
        assert average == pytest.approx(mean(weights), abs=6e-4)


def check_drawn_image(corpus: ChartCorpus, marks: Marks) -> None:
    first = min(row["uri"] for row in corpus.rows)
    [name] = {row.get("name", first) for row in corpus.rows if row["uri"] == first}
    drawn = {mark["Word"]: float(mark["Weight"]) for mark in marks if "Weight" in mark and mark["Image"] == name}
    expected = {row["token"]: row["weight"] for row in corpus.rows if row["uri"] == first}
    assert drawn == pytest.approx(expected, abs=6e-4)
    assert {mark["Image"] for mark in marks if "Image" in mark} == {name}


DRAWN: dict[str, Callable[[ChartCorpus, Marks], None]] = {
    "together": check_drawn_pairs,
    "by-source": check_drawn_sources,
    "map": check_drawn_map,
    "by-label": check_drawn_labels,
    "average-weight": check_drawn_averages,
    "one-image": check_drawn_image,
}


@pytest.mark.parametrize("version", VEGA_LITE)
def test_vega_draws_a_picture_without_data(manual_corpus: ChartCorpus, version: str) -> None:
    nothing = build_phrase_filter("top_tokens", ["no such word"])
    empty = {kind: answer for kind, (_, answer) in manual_corpus.query_panels("kibana", nothing).items()}
    for id_, spec in list_charts(build_bundle(manual_corpus.spec, "kibana"), manual_corpus.search_index):
        assert len(render_png(spec, version=version)) > 10_000
        none = {**spec, "data": {**spec["data"], "values": empty[manual_corpus.get_kind(id_)]}}
        assert render_png(none, version=version).startswith(b"\x89PNG")


def test_without_a_token_index_there_is_no_panel_about_weights(node_url: str, tmp_path: Path) -> None:
    alias = "test-dashboards-alone"
    with open_corpus(node_url, alias) as cluster:
        ingest_corpus(node_url, alias, tmp_path, token_index=False, every=3)
        info = inspect_index(cluster, alias)
        assert not info.spec.has_token_index
        assert f"--index {alias} --token-index" in info.remarks[0]
        corpus = read_corpus(cluster, alias)
        answers = corpus.query_panels("kibana")
        assert {kind for kind in answers if "/" not in kind} == set(PANELS) - {
            "average-weight",
            "in-numbers",
            "distribution",
            "one-image",
            "by-weight",
            "tokens-per-image",
            "few-tokens",
            "dominated",
        }
        assert f"{alias}-tokens" not in json.dumps([request.index for request, _ in answers.values()])

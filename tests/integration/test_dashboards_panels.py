"""Every panel's request on real nodes: its figures against those counted from the documents themselves."""

from __future__ import annotations

import json
import re
import struct
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from support.corpora.dashboard_corpus import PIECES, WORDLESS, ingest_corpus
from support.corpora.token_index import build_entries, build_token_index, read_documents
from support.dashboards.checks import find_errors
from support.dashboards.clicks import list_clicks
from support.oracles.vega_render import list_charts, render_marks, render_png
from support.servers.saved_objects_requests import PanelRequest, build_phrase_filter, list_requests

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.dashboards.bundle import SavedObject, build_bundle
from stair_es.dashboards.index_info import DashboardSpec, Product, inspect_index

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

VEGA_LITE = ["5.8", "5.21", "6.4"]
"""What the products came with, from OpenSearch Dashboards 2.6 to now."""
Document = Mapping[str, Any]


@dataclass(frozen=True)
class ChartCorpus:
    """A corpus on a node, and what is in it."""

    client: OpenSearch
    corpus: DashboardSpec
    docs: Mapping[str, Document]
    rows: Sequence[Document]
    """What the companion holds, made from `docs`, not from it."""

    def search(self, index: str, body: dict[str, Any]) -> dict[str, Any]:
        answer: dict[str, Any] = self.client.search(index=index, body=body)
        return answer

    def answers(self, product: Product, *filters: Mapping[str, Any]) -> dict[str, tuple[PanelRequest, dict[str, Any]]]:
        """Kind of panel -> its request and the node's answer."""
        made = build_bundle(self.corpus, product)
        assert find_errors(made, product) == []
        prefix = self.corpus.build_id("")
        asked = list_requests(made, product, filters)
        return {ask.panel.removeprefix(prefix).lstrip("-"): (ask, self.search(ask.index, ask.body)) for ask in asked}


@contextmanager
def gone_afterwards(client: OpenSearch, alias: str) -> Iterator[None]:
    yield
    found = client.indices.get(index=f"{alias}*")
    client.indices.delete(index=",".join(found))


@dataclass(frozen=True)
class Node:
    url: str
    vector: str


NODES = {"node_url": "rank_features", "elasticsearch7_url": "rank_features", "elasticsearch9_url": "sparse_vector"}


@pytest.fixture(scope="module", params=list(NODES), ids=["opensearch", "elasticsearch7", "elasticsearch9"])
def node(request: pytest.FixtureRequest) -> Node:
    return Node(request.getfixturevalue(request.param), NODES[request.param])


def _album(cluster: Cluster, alias: str) -> ChartCorpus:
    docs = read_documents(cluster.client, alias)
    rows = [entry for id_, source in docs.items() for entry in build_entries(id_, source)]
    return ChartCorpus(cluster.client, inspect_index(cluster, alias).spec, docs, rows)


@pytest.fixture(scope="module")
def album(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChartCorpus]:
    """With the companion that `ingest` writes."""
    connection, alias = Connection(url=node.url), "test-dashboards"
    with Cluster(connection) as cluster, gone_afterwards(cluster.client, alias):
        ingest_corpus(node.url, alias, tmp_path_factory.mktemp("photos"), vector=node.vector)
        yield _album(cluster, alias)


@pytest.fixture(scope="module")
def manual_album(node: Node, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ChartCorpus]:
    """With one that somebody else has written after the contract, and that calls words as the main index does."""
    connection, alias = Connection(url=node.url), "test-dashboards-by-hand"
    with Cluster(connection) as cluster, gone_afterwards(cluster.client, alias):
        ingest_corpus(node.url, alias, tmp_path_factory.mktemp("photos"), token_index=False, vector=node.vector, every=2)
        build_token_index(cluster.client, alias)
        yield _album(cluster, alias)


def _float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


# --- what the panels should show, from the documents ---


def ranked(counts: Mapping[str, int], size: int) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:size]


def counted(values: Iterator[Any] | list[Any], size: int) -> list[tuple[str, int]]:
    return ranked(Counter(values), size)


def buckets(answer: Mapping[str, Any], name: str) -> list[Any]:
    found: list[Any] = answer["aggregations"][name]["buckets"]
    return found


def pairs(answer: Mapping[str, Any], name: str) -> list[tuple[Any, int]]:
    return [(bucket["key"], bucket["doc_count"]) for bucket in buckets(answer, name)]


def is_whole(word: str) -> bool:
    """Return whether charts show a token: no piece of a word, no single letter."""
    return not (word.startswith("##") or re.fullmatch("[A-Za-z0-9]", word))


def words_of(album: ChartCorpus) -> Iterator[str]:
    return (word for doc in album.docs.values() for word in doc["top_tokens"] if is_whole(word))


def numbers(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert answer["hits"]["total"]["value"] == len(album.docs)
    assert answer["aggregations"]["2"]["value"] == len({word for doc in album.docs.values() for word in doc["top_tokens"]})


def cloud(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "2") == counted(words_of(album), 40)


def bars(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "2") == counted(words_of(album), 20)


def count_neighbors(album: ChartCorpus, word: str) -> Counter[str]:
    return Counter(
        other for doc in album.docs.values() if word in doc["top_tokens"] for other in doc["top_tokens"] if is_whole(other)
    )


def together(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "tokens") == counted(words_of(album), 20)
    for bucket in buckets(answer, "tokens"):
        found = [(other["key"], other["doc_count"]) for other in bucket["others"]["buckets"]]
        assert found == ranked(count_neighbors(album, bucket["key"]), 200)


def by_source(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "sources") == counted([doc["source"] for doc in album.docs.values()], 12)
    assert len(buckets(answer, "sources")) == 5
    for bucket in buckets(answer, "sources"):
        of_source = [doc for doc in album.docs.values() if doc["source"] == bucket["key"]]
        inside = Counter(word for doc in of_source for word in doc["top_tokens"] if is_whole(word))
        assert [(word["key"], word["doc_count"]) for word in bucket["tokens"]["buckets"]] == ranked(inside, 300)


def over_time(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert album.corpus.time_field == "taken_at"
    assert pairs(answer, "2") == counted(words_of(album), 8)
    for bucket in buckets(answer, "2"):
        months = Counter(
            doc["taken_at"][:7] for doc in album.docs.values() if bucket["key"] in doc["top_tokens"] and "taken_at" in doc
        )
        assert {each["key_as_string"][:7]: each["doc_count"] for each in bucket["3"]["buckets"]} == months


def colors(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "2") == counted((color for doc in album.docs.values() for color in doc["colors"]), 12)
    assert len(buckets(answer, "2")) > 3


def by_token(album: ChartCorpus) -> dict[str, list[Document]]:
    found = defaultdict[str, list[Document]](list)
    for row in album.rows:
        found[row["token"]].append(row)
    return found


def average_weight(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "tokens") == counted([row["token"] for row in album.rows if is_whole(row["token"])], 25)
    for bucket in buckets(answer, "tokens"):
        weights = [row["weight"] for row in by_token(album)[bucket["key"]]]
        assert bucket["weight"]["value"] == pytest.approx(sum(weights) / len(weights), rel=1e-6)
        assert bucket["heaviest"]["value"] == pytest.approx(max(weights), rel=1e-6)


def in_numbers(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert pairs(answer, "2") == counted([row["token"] for row in album.rows], 100)
    for bucket in buckets(answer, "2"):
        of_word = by_token(album)[bucket["key"]]
        weights, shares = [row["weight"] for row in of_word], [row["weight_share"] for row in of_word]
        assert bucket["3"]["value"] == pytest.approx(sum(weights) / len(weights), rel=1e-6)
        assert bucket["4"]["value"] == pytest.approx(max(weights), rel=1e-6)
        assert bucket["5"]["value"] == pytest.approx(sum(shares) / len(shares), rel=1e-6)


def distribution(album: ChartCorpus, ask: PanelRequest, answer: dict[str, Any]) -> None:
    ranges = list(answer["aggregations"]["2"]["buckets"].values())
    weights = [_float32(row["weight"]) for row in album.rows]
    for each in ranges:
        inside = [weight for weight in weights if each["from"] <= weight < each.get("to", float("inf"))]
        assert each["doc_count"] == len(inside)
    assert sum(each["doc_count"] for each in ranges) == len(weights)
    assert 10 < len(ranges) <= 41


def words_per_image(album: ChartCorpus, ask: PanelRequest, answer: dict[str, Any]) -> None:
    width = ask.body["aggs"]["2"]["histogram"]["interval"]
    token_counts = {row["image_id"]: row["token_count"] for row in album.rows}
    found = {bucket["key"] // width: bucket["1"]["value"] for bucket in buckets(answer, "2") if bucket["doc_count"]}
    assert found == Counter(count // width for count in token_counts.values())
    assert len(buckets(answer, "2")) <= 51


def sources(answer: Mapping[str, Any]) -> list[Any]:
    return [hit["_source"] for hit in answer["hits"]["hits"]]


def one_image(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    first = min(row["uri"] for row in album.rows)
    expected = sorted((row for row in album.rows if row["uri"] == first), key=lambda row: row["rank"])
    found = sources(answer)
    assert [(row["token"], row["rank"]) for row in found] == [(row["token"], row["rank"]) for row in expected]
    assert [row["weight"] for row in found] == pytest.approx([row["weight"] for row in expected])


def found(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    hits = answer["hits"]["hits"]
    assert {hit["_id"] for hit in hits} == set(album.docs)
    times = [hit["_source"]["ingested_at"] for hit in hits]
    assert times == sorted(times, reverse=True)
    for hit in hits:
        assert hit["_source"]["thumbnail"].startswith("data:image/webp;base64,")
        assert not {"tokens", "policy_undo", "version"} & set(hit["_source"])


def by_weight(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    weights = [row["weight"] for row in sources(answer)]
    assert weights == pytest.approx(sorted((row["weight"] for row in album.rows), reverse=True)[:500])


def first_rows(album: ChartCorpus) -> list[Document]:
    return [row for row in album.rows if row["rank"] == 1]


def few_words(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert [row["token_count"] for row in sources(answer)] == sorted(row["token_count"] for row in first_rows(album))
    assert {row["uri"] for row in sources(answer)} == {row["uri"] for row in first_rows(album)}


def dominated(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    expected = sorted(first_rows(album), key=lambda row: -row["weight_share"])
    assert [row["weight_share"] for row in sources(answer)] == pytest.approx([row["weight_share"] for row in expected])
    assert sources(answer)[0]["token"] == expected[0]["token"]


def wordless(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
    assert [hit["_id"] for hit in answer["hits"]["hits"]] == [WORDLESS]


def choice(field: str, kind: str) -> Callable[[ChartCorpus, PanelRequest, dict[str, Any]], None]:
    def check(album: ChartCorpus, _: PanelRequest, answer: dict[str, Any]) -> None:
        values = [value for doc in album.docs.values() for value in _listed(doc.get(field))]
        assert pairs(answer, kind) == counted(values, 10)

    return check


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


PANELS: dict[str, Callable[[ChartCorpus, PanelRequest, dict[str, Any]], None]] = {
    "numbers": numbers,
    "cloud": cloud,
    "bars": bars,
    "together": together,
    "by-source": by_source,
    "over-time": over_time,
    "colors": colors,
    "average-weight": average_weight,
    "in-numbers": in_numbers,
    "distribution": distribution,
    "one-image": one_image,
    "found": found,
    "by-weight": by_weight,
    "tokens-per-image": words_per_image,
    "few-tokens": few_words,
    "dominated": dominated,
    "wordless": wordless,
}
CONTROLS: dict[Product, tuple[str, str]] = {
    "opensearch-dashboards": ("controls", "termsAgg"),
    "kibana": ("dashboard", "suggestions"),
}


@pytest.mark.parametrize("product", ["opensearch-dashboards", "kibana"])
def test_every_panel_shows_document_values(album: ChartCorpus, product: Product) -> None:
    panel, name = CONTROLS[product]
    fields = ("top_tokens", "colors", album.corpus.name_field, "source", "model")
    choices = {f"{panel}/{field}": choice(field, name) for field in fields}
    answers = album.answers(product)
    assert set(answers) == set(PANELS) | set(choices)  # none is left out
    for kind, check in {**PANELS, **choices}.items():
        ask, answer = answers[kind]
        assert answer["_shards"]["failed"] == 0, kind
        assert answer["hits"]["total"]["value"] > 0, kind
        check(album, ask, answer)


def test_the_panels_that_were_checked_are_complete(album: ChartCorpus) -> None:
    assert find_errors(build_bundle(album.corpus, "kibana"), "kibana") == []
    assert album.corpus == replace(album.corpus, has_token_index=True, thumbnails=True, interval="M", captions=False)
    assert album.corpus.largest_weight == _float32(max(row["weight"] for row in album.rows))
    counts = [row["token_count"] for row in album.rows]
    assert album.corpus.token_counts == (min(counts), max(counts))


def test_pieces_of_words_are_in_tables_only(album: ChartCorpus) -> None:
    [chosen] = [build_phrase_filter("uri", [doc["uri"]]) for id_, doc in album.docs.items() if id_ == "pieces"]
    answers = {kind: answer for kind, (_, answer) in album.answers("kibana", chosen).items()}
    assert {key for key, _ in pairs(answers["in-numbers"], "2")} == set(PIECES)
    assert [row["token"] for row in sources(answers["one-image"])] == list(PIECES)
    for kind, name in (("cloud", "2"), ("bars", "2"), ("over-time", "2"), ("together", "tokens"), ("average-weight", "tokens")):
        assert pairs(answers[kind], name) == [], kind
    assert [each["tokens"]["buckets"] for each in buckets(answers["by-source"], "sources")] == [[]]


# --- filters ---


def test_a_chosen_word_reaches_every_panel(manual_album: ChartCorpus) -> None:
    word = "animal"
    chosen = build_phrase_filter("top_tokens", [word])
    inside = {id_: doc for id_, doc in manual_album.docs.items() if word in doc["top_tokens"]}
    assert 1 < len(inside) < len(manual_album.docs)
    narrowed = replace(manual_album, docs=inside, rows=[row for row in manual_album.rows if row["token"] == word])
    answers = manual_album.answers("kibana", chosen)
    for kind in set(PANELS) - {"by-source", "one-image", "few-tokens", "dominated", "wordless"}:
        PANELS[kind](narrowed, *answers[kind])
    assert [row["token"] for row in sources(answers["by-weight"][1])] == [word] * len(inside)


def test_a_chosen_color_reaches_every_panel(album: ChartCorpus) -> None:
    inside = {id_: doc for id_, doc in album.docs.items() if "blue" in doc["colors"]}
    assert 1 < len(inside) < len(album.docs)
    uris = {doc["uri"] for doc in inside.values()}
    narrowed = replace(album, docs=inside, rows=[row for row in album.rows if row["uri"] in uris])
    answers = album.answers("kibana", build_phrase_filter("colors", ["blue"]))
    for kind in ("colors", "cloud", "bars", "over-time", "found", "average-weight", "in-numbers", "distribution", "few-tokens"):
        PANELS[kind](narrowed, *answers[kind])


def test_a_chosen_image_shows_its_weights_and_its_thumbnail(album: ChartCorpus) -> None:
    [uri] = [doc["uri"] for doc in album.docs.values() if doc["uri"].endswith("/koala.jpg")]
    answers = album.answers("opensearch-dashboards", build_phrase_filter("uri", [uri]))
    expected = [row["token"] for row in album.rows if row["uri"] == uri]
    assert [row["token"] for row in sources(answers["one-image"][1])] == expected
    assert [row["uri"] for row in sources(answers["found"][1])] == [uri]


def test_several_words_are_either_of_them(manual_album: ChartCorpus) -> None:
    words = ["bird", "cat"]
    total = manual_album.answers("kibana", build_phrase_filter("top_tokens", words))["numbers"][1]["hits"]["total"]["value"]
    assert total == sum(any(word in doc["top_tokens"] for word in words) for doc in manual_album.docs.values())


# --- clicks ---


def matches(album: ChartCorpus, ask: PanelRequest, filters: Sequence[Mapping[str, Any]]) -> int:
    query = {**ask.body["query"]["bool"], "filter": [*ask.body["query"]["bool"]["filter"], *filters]}
    found: int = album.search(ask.index, {"size": 0, "track_total_hits": True, "query": {"bool": query}})["hits"]["total"][
        "value"
    ]
    return found


@pytest.mark.parametrize("product", ["opensearch-dashboards", "kibana"])
def test_a_click_finds_the_documents_of_its_bar(album: ChartCorpus, product: Product) -> None:
    answers = album.answers(product)
    clicked = {}
    for obj in classic_charts(build_bundle(album.corpus, product)):
        kind = kind_of(album, obj["id"])
        ask, answer = answers[kind]
        clicks = list(list_clicks(obj, answer))
        for click in clicks:
            assert matches(album, ask, click.filters) == click.documents > 0, (kind, click)
        clicked[kind] = len(clicks)
    assert {kind for kind, count in clicked.items() if count} == CLICKABLE
    assert clicked["distribution"] > 10
    assert clicked["tokens-per-image"] > 3


def test_a_click_on_a_bar_of_another_index_is_a_filter_on_a_field_that_images_lack(album: ChartCorpus) -> None:
    """The documentation says how to keep the panels about images then."""
    [chart] = [obj for obj in classic_charts(build_bundle(album.corpus, "kibana")) if obj["id"].endswith("-distribution")]
    click = next(iter(list_clicks(chart, album.answers("kibana")["distribution"][1])))
    assert album.answers("kibana", *click.filters)["numbers"][1]["hits"]["total"]["value"] == 0
    assert album.answers("kibana", *click.filters)["in-numbers"][1]["hits"]["total"]["value"] == click.documents


def test_the_field_list_has_what_the_panels_use(album: ChartCorpus) -> None:
    for obj in build_bundle(album.corpus, "kibana"):
        if obj["type"] == "index-pattern":
            fields = {each["name"]: each for each in json.loads(obj["attributes"]["fields"])}
            is_main = obj["attributes"]["title"] == album.corpus.name
            mapped = album.client.indices.get_mapping(index=obj["attributes"]["title"])
            [properties] = [each["mappings"]["properties"] for each in mapped.values()]
            assert set(properties) - {"policy_undo"} <= set(fields)
            assert fields["top_tokens"]["aggregatable"]
            assert fields["top_tokens"]["type"] == "string"
            number = fields["width" if is_main else "weight"]
            assert (number["type"], number["aggregatable"], number["readFromDocValues"]) == ("number", True, True)
            assert fields["_id"]["type"] == "string"


# --- what Vega makes of it ---


CLICKABLE = {"cloud", "bars", "over-time", "colors", "in-numbers", "distribution", "tokens-per-image"}


def classic_charts(objects: Sequence[SavedObject]) -> list[SavedObject]:
    return [obj for obj in objects if json.loads(obj["attributes"].get("visState", "{}")).get("aggs")]


def kind_of(album: ChartCorpus, id_: str) -> str:
    return id_.removeprefix(album.corpus.build_id("")).lstrip("-")


ON_ONE_NODE = pytest.mark.parametrize("node", ["node_url"], indirect=True, ids=["opensearch"])
"""What the others answer is the same: the tests above say so."""


@ON_ONE_NODE
@pytest.mark.parametrize("version", VEGA_LITE)
def test_vega_draws_the_figures(album: ChartCorpus, version: str) -> None:
    specs = {kind_of(album, id_): spec for id_, spec in list_charts(build_bundle(album.corpus, "kibana"), album.search)}
    assert set(specs) == set(DRAWN)
    for kind, check in DRAWN.items():
        check(album, render_marks(specs[kind], version=version))


Marks = list[dict[str, str]]


def percent(text: str) -> float:
    return float(text.removesuffix("%"))


def drawn_together(album: ChartCorpus, marks: Marks) -> None:
    cells = [mark for mark in marks if "Other word" in mark]
    top = [word for word, _ in counted(words_of(album), 20)]
    expected = {(one, other): count_neighbors(album, one)[other] for one in top for other in top if one != other}
    shown = {(cell["Word"], cell["Other word"]): int(cell["Images with both"]) for cell in cells}
    assert shown == {pair: both for pair, both in expected.items() if both}
    for cell in cells:
        both, one, other = (int(cell[name]) for name in ("Images with both", "with the first", "with the second"))
        assert percent(cell["Shared"]) == pytest.approx(100 * both / (one + other - both), abs=0.051)


def drawn_by_source(album: ChartCorpus, marks: Marks) -> None:
    dots = [mark for mark in marks if "Part" in mark]
    assert {dot["Word"] for dot in dots} == {word for word, _ in counted(words_of(album), 20)}
    images = Counter(doc["source"] for doc in album.docs.values())
    assert len({dot["Source"] for dot in dots}) == 3
    for dot in dots:
        both = sum(doc["source"] == dot["Source"] and dot["Word"] in doc["top_tokens"] for doc in album.docs.values())
        assert int(dot["Images with it"]) == both
        assert percent(dot["Part"]) == pytest.approx(100 * both / images[dot["Source"]], abs=0.051)


def drawn_average_weight(album: ChartCorpus, marks: Marks) -> None:
    averages = {mark["Word"]: float(mark["Average weight"]) for mark in marks if "Average weight" in mark}
    assert set(averages) == {word for word, _ in counted([row["token"] for row in album.rows if is_whole(row["token"])], 25)}
    for word, average in averages.items():
        weights = [row["weight"] for row in by_token(album)[word]]
        assert average == pytest.approx(sum(weights) / len(weights), abs=6e-4)


def drawn_one_image(album: ChartCorpus, marks: Marks) -> None:
    first = min(row["uri"] for row in album.rows)
    [name] = {row.get("name", first) for row in album.rows if row["uri"] == first}
    shown = {mark["Word"]: float(mark["Weight"]) for mark in marks if "Weight" in mark and mark["Image"] == name}
    expected = {row["token"]: row["weight"] for row in album.rows if row["uri"] == first}
    assert shown == pytest.approx(expected, abs=6e-4)
    assert {mark["Image"] for mark in marks if "Image" in mark} == {name}


DRAWN: dict[str, Callable[[ChartCorpus, Marks], None]] = {
    "together": drawn_together,
    "by-source": drawn_by_source,
    "average-weight": drawn_average_weight,
    "one-image": drawn_one_image,
}


@ON_ONE_NODE
@pytest.mark.parametrize("version", VEGA_LITE)
def test_vega_draws_a_picture_without_data(manual_album: ChartCorpus, version: str) -> None:
    nothing = build_phrase_filter("top_tokens", ["no such word"])
    empty = {kind: answer for kind, (_, answer) in manual_album.answers("kibana", nothing).items()}
    for id_, spec in list_charts(build_bundle(manual_album.corpus, "kibana"), manual_album.search):
        assert len(render_png(spec, version=version)) > 10_000
        none = {**spec, "data": {**spec["data"], "values": empty[kind_of(manual_album, id_)]}}
        assert render_png(none, version=version).startswith(b"\x89PNG")


@ON_ONE_NODE
def test_without_a_token_index_there_is_no_panel_about_weights(node: Node, tmp_path: Path) -> None:
    connection, alias = Connection(url=node.url), "test-dashboards-alone"
    with Cluster(connection) as cluster, gone_afterwards(cluster.client, alias):
        ingest_corpus(node.url, alias, tmp_path, token_index=False, vector=node.vector, every=3)
        looked = inspect_index(cluster, alias)
        assert not looked.spec.has_token_index
        assert f"stair-es ingest ... --index {alias} --token-index" in looked.remarks[0]
        album = _album(cluster, alias)
        answers = album.answers("kibana")
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
        assert f"{alias}-tokens" not in json.dumps([ask.index for ask, _ in answers.values()])

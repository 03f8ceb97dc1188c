"""Search templates on real nodes, used over plain HTTP as from any language.

The test node of Elasticsearch 9 has no mustache: its template is rendered by Elasticsearch 7, and the result is sent to it.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from support.commands import CommandRunner
from support.errors import expect_error

from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings, encode_impacts
from stair_es.cluster.index.mappings import build_index_body
from stair_es.errors import ClusterError, QueryError
from stair_es.feature_names import escape_feature
from stair_es.search.dsl.pagination import SORT_ORDER
from stair_es.search.dsl.select import build_rank_features_query
from stair_es.search.templates import (
    TEMPLATE_NAMES,
    build_template,
    delete_template,
    detect_templates,
    get_template_state,
    publish_template,
)
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opensearchpy import OpenSearch

DOG = [{"token": "dog", "weight": 2}]
HOSTILE_VALUES = [
    '"',
    "\\",
    '\\"',
    "}",
    '"}}',
    "]}",
    '"}},{"match_all":{}},{"x":"',
    "{{tokens}}",
    "{{#toJson}}tokens{{/toJson}}",
    "{{{x}}}",
    "{{=<% %>=}}",
    "{{/tokens}}",
    "\n\r\t\x00\x1f",
    "\u2028",
    "<&>'",
    "犬🐕",
    "*",
    "a b",
]
INJECTION = '{"match_all":{}}]}},"query":{"match_all":{}},"x":{"y":[{"z":{"a":["'

_WEIGHTS: tuple[object, ...] = (INJECTION, "", None, [2], {"a": 1}, -1, "NaN", 1e39)
_TOKENS: tuple[object, ...] = ("dog", True, 5, {"dog": 2}, [None], ["dog"], [{"token": "dog"}], [[]])
_VALUES: dict[str, tuple[object, ...]] = {
    "size": (INJECTION, "1}", ["1"], {"a": 1}, 1.5e9, "x", True),
    "from": ("1}", [1], {"a": 1}),
    "min_score": (INJECTION, [1, 2], {"a": 1}, "x"),
    "filter": (INJECTION, "s", ["s"], [None], [{}], {}, {"match_all": {}}, {"size": 1, "match_all": {}}, 5, True),
    "tokens": (*_TOKENS, *([{"token": "dog", "weight": weight}] for weight in _WEIGHTS)),
}
INVALID_PARAMS: list[dict[str, object]] = [
    *({name: value} for name, values in _VALUES.items() for value in values),
    {"filter": [['],"x":[', 1], [{"match_all": {}}]]},
]


def send_request(url: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class TemplateClient:
    """An index with published templates, used over HTTP."""

    def __init__(self, url: str, index: str, prefix: str) -> None:
        self.url, self.index, self.prefix = url, index, prefix

    def search(self, name: str, **params: object) -> tuple[int, dict[str, float]]:
        body = {"id": f"{self.prefix}{name}", "params": params}
        status, response = send_request(self.url, "POST", f"/{self.index}/_search/template", body)
        return status, {hit["_id"]: hit["_score"] for hit in response["hits"]["hits"]} if status == 200 else {}

    def render(self, name: str, **params: object) -> dict[str, Any]:
        status, response = send_request(self.url, "POST", "/_render/template", {"id": f"{self.prefix}{name}", "params": params})
        assert status == 200, response
        rendered: dict[str, Any] = response["template_output"]
        return rendered


@pytest.fixture
def template_client(engine: OpenSearch, rank_features_url: str, engine_index: str) -> Iterator[TemplateClient]:
    cluster = Cluster(Connection(url=rank_features_url), engine)
    engine.indices.create(index=engine_index, body=build_index_body(get_cluster_info(cluster), DocumentSettings()))
    documents = [
        ({"dog": 1.5, "a.b": 2.0, "": 0.75, "50%": 0.5}, "a dog", 0),
        ({"cat": 1.0}, "a cat", 1),
        ({"dog": 0.5, 'q"': 1.0, "}}": 3.0}, "nothing", 2),
    ]
    for tokens, caption, width in documents:
        body = {"tokens": {escape_feature(word): weight for word, weight in tokens.items()}, "caption": caption, "width": width}
        engine.index(index=engine_index, id=str(width), body={**body, "thumbnail": "data:,"})
    engine.indices.refresh(index=engine_index)
    prefix = f"{engine_index}-"
    for name in TEMPLATE_NAMES:
        assert publish_template(cluster, build_template(name, "rank_features", prefix=prefix)) == "created"
    yield TemplateClient(rank_features_url, engine_index, prefix)
    for name in TEMPLATE_NAMES:
        delete_template(cluster, f"{prefix}{name}")


def test_tokens_with_paging_filter_and_min_score(template_client: TemplateClient) -> None:
    all_dogs, width_2 = {"0": 3.0, "2": 1.0}, {"term": {"width": 2}}
    rows: list[tuple[dict[str, object], dict[str, float]]] = [
        ({}, all_dogs),
        ({"tokens": [*DOG, {"token": "cat", "weight": 1.25}]}, {"0": 3.0, "1": 1.25, "2": 1.0}),
        ({"size": 1}, {"0": 3.0}),
        ({"size": 1, "from": 1}, {"2": 1.0}),
        ({"size": 0}, {}),
        ({"min_score": 2}, {"0": 3.0}),
        ({"filter": [width_2]}, {"2": 1.0}),
        ({"filter": [width_2, {"match": {"caption": "dog"}}]}, {}),
        ({"filter": []}, all_dogs),
        ({"filter": None}, all_dogs),
    ]
    for params, scores in rows:
        assert template_client.search("tokens", **{"tokens": DOG, **params}) == (200, scores), params


def test_tokens_are_escaped_as_in_the_index(template_client: TemplateClient) -> None:
    for word, found in {"a%2Eb": {"0": 2.0}, "%": {"0": 0.75}, "50%25": {"0": 0.5}, 'q"': {"2": 1.0}, "}}": {"2": 3.0}}.items():
        assert template_client.search("tokens", tokens=[{"token": word, "weight": 1}]) == (200, found)


def test_hits_lack_thumbnail_and_total(template_client: TemplateClient) -> None:
    body = {"id": f"{template_client.prefix}tokens", "params": {"tokens": DOG}}
    _, response = send_request(template_client.url, "POST", f"/{template_client.index}/_search/template", body)
    assert "total" not in response["hits"]
    assert all("tokens" in hit["_source"] and "thumbnail" not in hit["_source"] for hit in response["hits"]["hits"])


def test_a_template_without_parameters_finds_nothing(template_client: TemplateClient) -> None:
    nothing: tuple[dict[str, object], ...] = ({}, {"tokens": []}, {"tokens": None}, {"tokens": ""}, {"tokens": False})
    for name in TEMPLATE_NAMES:
        for params in nothing:
            assert template_client.search(name, **params) == (200, {})
            assert template_client.search(name, **params, filter=[{"match_all": {}}], caption="", text="") == (200, {})


def test_hybrid_adds_the_weighted_scores(template_client: TemplateClient) -> None:
    words, caption = template_client.search("hybrid", tokens=DOG)[1], template_client.search("hybrid", caption="cat dog")[1]
    assert words == {"0": 3.0, "2": 1.0}
    assert caption.keys() == {"0", "1"}
    both = template_client.search("hybrid", tokens=DOG, caption="cat dog", tokens_weight=0.5, caption_weight=10)[1]
    for name, score in both.items():
        assert score == pytest.approx(0.5 * words.get(name, 0) + 10 * caption.get(name, 0), rel=1e-6)
    assert both.keys() == {"0", "1", "2"}
    assert template_client.search("hybrid", tokens=DOG, caption="cat", filter=[{"term": {"width": 1}}])[1].keys() == {"1"}


def test_scores_match_the_library(template_client: TemplateClient, engine: OpenSearch) -> None:
    rng = np.random.default_rng(9)
    words = [*(f"w{i}" for i in range(200)), *HOSTILE_VALUES, "a.b", "3.14", "", "%"]
    for number in range(60):
        chosen = rng.choice(len(words), 30, replace=False)
        tokens = {escape_feature(words[i]): float(np.exp(rng.normal(-1, 1))) for i in chosen}
        engine.index(index=template_client.index, id=f"drawn{number}", body={"tokens": tokens})
    engine.indices.refresh(index=template_client.index)
    for size in (1, 3, 20, 80, 150):
        chosen = rng.choice(len(words), size, replace=False)
        vector = SparseVector.from_pairs((words[i], float(np.exp(rng.normal(-1, 1)))) for i in chosen)
        clause = build_rank_features_query(vector).clause
        hits = engine.search(index=template_client.index, body={"query": clause, "size": 100})["hits"]["hits"]
        tokens_of = [{"token": escape_feature(word), "weight": weight} for word, weight in vector]
        found = template_client.search("tokens", tokens=tokens_of, size=100)[1]
        assert found == {hit["_id"]: pytest.approx(hit["_score"], rel=1e-6) for hit in hits}
        assert found


def test_hostile_values_are_contained(template_client: TemplateClient) -> None:
    for hostile_value in [*HOSTILE_VALUES, INJECTION]:
        tokens = [{"token": hostile_value, "weight": hostile_value}]
        body = template_client.render(
            "hybrid",
            tokens=tokens,
            caption=hostile_value,
            size=hostile_value,
            tokens_weight=hostile_value,
            min_score=hostile_value,
            **{"from": hostile_value},
        )
        clause = {"rank_feature": {"field": f"tokens.{hostile_value}", "boost": hostile_value, "linear": {}}}
        inner = {"bool": {"should": [clause, {"match_none": {}}], "minimum_should_match": 1, "boost": hostile_value}}
        caption = {"match": {"caption": {"query": hostile_value, "boost": "1"}}}
        assert body == {
            "size": hostile_value,
            "from": hostile_value,
            "min_score": hostile_value,
            "track_total_hits": False,
            "_source": {"excludes": ["thumbnail", "policy_undo", "labels_undo", "text_boxes"]},
            "sort": SORT_ORDER,
            "query": {"bool": {"should": [inner, caption], "minimum_should_match": 1, "filter": []}},
        }
        query = {"bool": {"must": [{"match": {"impacts": {"query": hostile_value}}}], "filter": []}}
        assert template_client.render("match", text=hostile_value)["query"] == query


def test_wrong_values_are_errors(template_client: TemplateClient) -> None:
    for params in INVALID_PARAMS:
        status, found = template_client.search("tokens", **{"tokens": DOG, **params})
        assert (400 <= status < 500, found) == (True, {}), params


def test_too_many_tokens_are_an_error(template_client: TemplateClient) -> None:
    tokens = [{"token": f"w{number}", "weight": 1} for number in range(1024)]
    assert template_client.search("tokens", tokens=[*tokens[:1022], *DOG]) == (200, {"0": 3.0, "2": 1.0})
    assert template_client.search("tokens", tokens=tokens)[0] == 400


def test_match_finds_images_by_plain_text(client: OpenSearch, node_url: str, index_name: str) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    client.indices.create(index=index_name, body=build_index_body(get_cluster_info(cluster), DocumentSettings(impacts=True)))
    for name, vector in {"1": {"dog": 1.5, "grass": 0.3}, "2": {"dog": 0.5}}.items():
        client.index(index=index_name, id=name, body={"impacts": encode_impacts(SparseVector.from_mapping(vector))})
    client.indices.refresh(index=index_name)
    detected = detect_templates(cluster, index_name)
    assert (detected.query_type, detected.names) == ("rank_features", TEMPLATE_NAMES)
    template_client = TemplateClient(node_url, index_name, f"{index_name}-")
    template = build_template("match", detected.query_type, prefix=template_client.prefix)
    publish_template(cluster, template)
    assert template_client.search("match", text="a Dog, grass!") == (200, {"1": 1800.0, "2": 500.0})
    assert template_client.search("match", text="dog", min_score=1000, size=5)[1] == {"1": 1500.0}
    assert template_client.search("match", text="dog", filter=[{"ids": {"values": ["2"]}}])[1] == {"2": 500.0}
    for nothing in ("", "the", "?", None):
        assert template_client.search("match", text=nothing) == (200, {})
    assert delete_template(cluster, template.id)


def test_publishing_is_idempotent_and_per_tenant(client: OpenSearch, node_url: str, index_name: str) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    template_a = build_template("tokens", "rank_features", prefix=f"{index_name}-a-")
    template_b = build_template("tokens", "sparse_vector", prefix=f"{index_name}-b-")
    assert [publish_template(cluster, template_a) for _ in range(2)] == ["created", "unchanged"]
    assert get_template_state(cluster, "tokens", prefix=f"{index_name}-b-") == "missing"
    assert publish_template(cluster, template_b) == "created"
    client.put_script(id=template_a.id, body={"script": {"lang": "mustache", "source": "{}"}})
    assert get_template_state(cluster, "tokens", prefix=f"{index_name}-a-") == "different"
    assert publish_template(cluster, template_a) == "updated"
    assert [get_template_state(cluster, "tokens", prefix=f"{index_name}-{tenant}-") for tenant in "ab"] == ["published"] * 2
    deletions = [delete_template(cluster, template.id) for template in (template_a, template_a, template_b)]
    assert deletions == [True, False, True]


@pytest.mark.parametrize("name", [None, "", ","], ids=["missing", "empty", "comma"])
def test_a_missing_index_is_an_error(client: OpenSearch, node_url: str, index_name: str, name: str | None) -> None:
    with expect_error("index-not-found", QueryError) as caught:  # a cluster takes an empty name for all indices
        detect_templates(Cluster(Connection(url=node_url), client), index_name if name is None else name)
    assert "--query-type" in caught.value.remedy


def test_the_sparse_vector_template_is_exact_on_elasticsearch_9(
    elasticsearch7_url: str, elasticsearch9_url: str, make_index_name: Callable[[str], str]
) -> None:
    index = make_index_name(elasticsearch9_url)
    connection = Connection(url=elasticsearch9_url)
    cluster = Cluster(connection)
    cluster.client.indices.create(
        index=index,
        body=build_index_body(get_cluster_info(cluster), DocumentSettings(vector="sparse_vector")),
    )
    for name, tokens in {"1": {"dog": 1.5, 'q"': 1.0}, "2": {"dog": 0.5}, "3": {"cat": 1.0}}.items():
        cluster.client.index(index=index, id=name, body={"tokens": tokens})
    cluster.client.indices.refresh(index=index)
    assert detect_templates(cluster, index).query_type == "sparse_vector"
    with pytest.raises(ClusterError, match="mustache"):
        publish_template(cluster, build_template("tokens", "sparse_vector"))
    for params, expected in (
        ({"tokens": [*DOG, {"token": 'q"', "weight": 0.5}], "min_score": 0.1}, {"1": 3.5, "2": 1.0}),
        ({"tokens": DOG, "filter": [{"ids": {"values": ["2"]}}]}, {"2": 1.0}),
        ({}, {}),
    ):
        source = build_template("tokens", "sparse_vector").source
        _, rendered = send_request(elasticsearch7_url, "POST", "/_render/template", {"source": source, "params": params})
        found = cluster.client.search(index=index, body=rendered["template_output"])["hits"]["hits"]
        assert {hit["_id"]: hit["_score"] for hit in found} == expected
    cluster.close()


def test_the_command(client: OpenSearch, node_url: str, index_name: str) -> None:
    runner = CommandRunner({"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}, "template")
    prefix = f"{index_name}-"
    own = ("--prefix", prefix)
    error = runner.read_error("publish", *own)
    assert (error.code, error.exit_code, "--query-type" in error.remedy) == ("index-not-found", 1, True)
    assert runner.read_error("publish", "other", *own).code == "unknown-template"
    cluster_info = get_cluster_info(Cluster(Connection(url=node_url), client))
    client.indices.create(index=index_name, body=build_index_body(cluster_info, DocumentSettings()))
    result = runner.run("publish", *own, "--json")
    assert json.loads(result.stdout) == {f"{prefix}tokens": "created", f"{prefix}hybrid": "created"}
    assert "impacts" in result.stderr
    assert runner.read_json("publish", "match", "tokens", *own) == {f"{prefix}match": "created", f"{prefix}tokens": "unchanged"}
    assert runner.read_json("publish", "tokens", *own, "--query-type", "sparse_vector") == {f"{prefix}tokens": "updated"}
    assert runner.read_json("list", *own) == dict.fromkeys([f"{prefix}{name}" for name in TEMPLATE_NAMES], "published")
    assert runner.read_output("delete", "tokens", *own).split() == [f"{prefix}tokens", "deleted"]
    assert runner.read_json("delete", *own) == {
        f"{prefix}tokens": "missing",
        f"{prefix}hybrid": "deleted",
        f"{prefix}match": "deleted",
    }

"""Search templates on real nodes, asked over plain HTTP as any language would.

Elasticsearch 9 isn't here: the node of the tests has no mustache. What the template for it renders to is sent to it all the same.
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from typer.testing import CliRunner

from stair_es.cli.main import app
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
NASTY = [
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

_VALUES: dict[str, tuple[object, ...]] = {
    "size": (INJECTION, "1}", ["1"], {"a": 1}, 1.5e9, "x", True),
    "from": ("1}", [1], {"a": 1}),
    "min_score": (INJECTION, [1, 2], {"a": 1}, "x"),
    "filter": (INJECTION, "s", ["s"], [None], [{}], {}, {"match_all": {}}, {"size": 1, "match_all": {}}, 5, True),
    "tokens": ("dog", True, 5, {"dog": 2}, [None], ["dog"], [{"token": "dog"}], [[]]),
}
_WEIGHTS: tuple[object, ...] = (INJECTION, "", None, [2], {"a": 1}, -1, "NaN", 1e39)
_BY_WEIGHT: list[dict[str, object]] = [{"tokens": [{"token": "dog", "weight": weight}]} for weight in _WEIGHTS]
WRONG: list[dict[str, object]] = [
    *({name: value} for name, values in _VALUES.items() for value in values),
    {"filter": [['],"x":[', 1], [{"match_all": {}}]]},
    *_BY_WEIGHT,
]


def http(url: str, method: str, path: str, body: object = None) -> tuple[int, dict[str, Any]]:
    request = urllib.request.Request(
        url + path,
        method=method,
        data=None if body is None else json.dumps(body).encode(),
        headers={"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=120) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


class TemplateClient:
    """An index with published templates, seen by a program that only knows HTTP."""

    def __init__(self, url: str, index: str, prefix: str) -> None:
        self.url, self.index, self.prefix = url, index, prefix

    def search(self, name: str, **params: object) -> tuple[int, dict[str, float]]:
        body = {"id": f"{self.prefix}{name}", "params": params}
        status, answer = http(self.url, "POST", f"/{self.index}/_search/template", body)
        return status, {hit["_id"]: hit["_score"] for hit in answer["hits"]["hits"]} if status == 200 else {}

    def render(self, name: str, **params: object) -> dict[str, Any]:
        status, answer = http(self.url, "POST", "/_render/template", {"id": f"{self.prefix}{name}", "params": params})
        assert status == 200, answer
        rendered: dict[str, Any] = answer["template_output"]
        return rendered


@pytest.fixture
def templates(engine: OpenSearch, rank_features_url: str, engine_index: str) -> Iterator[TemplateClient]:
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


def test_words_with_paging_filter_and_least_score(templates: TemplateClient) -> None:
    assert templates.search("tokens", tokens=DOG) == (200, {"0": 3.0, "2": 1.0})
    assert templates.search("tokens", tokens=[*DOG, {"token": "cat", "weight": 1.25}])[1] == {"0": 3.0, "1": 1.25, "2": 1.0}
    assert templates.search("tokens", tokens=DOG, size=1)[1] == {"0": 3.0}
    assert templates.search("tokens", tokens=DOG, size=1, **{"from": 1})[1] == {"2": 1.0}
    assert templates.search("tokens", tokens=DOG, size=0) == (200, {})
    assert templates.search("tokens", tokens=DOG, min_score=2)[1] == {"0": 3.0}
    assert templates.search("tokens", tokens=DOG, filter=[{"term": {"width": 2}}])[1] == {"2": 1.0}
    assert templates.search("tokens", tokens=DOG, filter=[{"term": {"width": 2}}, {"match": {"caption": "dog"}}]) == (200, {})
    assert templates.search("tokens", tokens=DOG, filter=[])[1] == {"0": 3.0, "2": 1.0}
    assert templates.search("tokens", tokens=DOG, filter=None)[1] == {"0": 3.0, "2": 1.0}


def test_words_are_written_as_the_index_has_them(templates: TemplateClient) -> None:
    for word, found in {"a%2Eb": {"0": 2.0}, "%": {"0": 0.75}, "50%25": {"0": 0.5}, 'q"': {"2": 1.0}, "}}": {"2": 3.0}}.items():
        assert templates.search("tokens", tokens=[{"token": word, "weight": 1}]) == (200, found)


def test_hits_lack_thumbnail_and_total(templates: TemplateClient) -> None:
    params = {"tokens": DOG}
    body = {"id": f"{templates.prefix}tokens", "params": params}
    _, answer = http(templates.url, "POST", f"/{templates.index}/_search/template", body)
    assert "total" not in answer["hits"]
    assert all("tokens" in hit["_source"] and "thumbnail" not in hit["_source"] for hit in answer["hits"]["hits"])


def test_a_template_without_parameters_finds_nothing(templates: TemplateClient) -> None:
    nothing: tuple[dict[str, object], ...] = ({}, {"tokens": []}, {"tokens": None}, {"tokens": ""}, {"tokens": False})
    for name in TEMPLATE_NAMES:
        for params in nothing:
            assert templates.search(name, **params) == (200, {})
            assert templates.search(name, **params, filter=[{"match_all": {}}], caption="", text="") == (200, {})


def test_hybrid_adds_the_weighted_scores(templates: TemplateClient) -> None:
    words, caption = templates.search("hybrid", tokens=DOG)[1], templates.search("hybrid", caption="cat dog")[1]
    assert words == {"0": 3.0, "2": 1.0}
    assert caption.keys() == {"0", "1"}
    both = templates.search("hybrid", tokens=DOG, caption="cat dog", tokens_weight=0.5, caption_weight=10)[1]
    for name, score in both.items():
        assert score == pytest.approx(0.5 * words.get(name, 0) + 10 * caption.get(name, 0), rel=1e-6)
    assert both.keys() == {"0", "1", "2"}
    assert templates.search("hybrid", tokens=DOG, caption="cat", filter=[{"term": {"width": 1}}])[1].keys() == {"1"}


def test_scores_match_the_library(templates: TemplateClient, engine: OpenSearch) -> None:
    rng = np.random.default_rng(9)
    words = [*(f"w{i}" for i in range(200)), *NASTY, "a.b", "3.14", "", "%"]
    for number in range(60):
        chosen = rng.choice(len(words), 30, replace=False)
        tokens = {escape_feature(words[i]): float(np.exp(rng.normal(-1, 1))) for i in chosen}
        engine.index(index=templates.index, id=f"drawn{number}", body={"tokens": tokens})
    engine.indices.refresh(index=templates.index)
    for size in (1, 3, 20, 80, 150):
        chosen = rng.choice(len(words), size, replace=False)
        vector = SparseVector.from_pairs((words[i], float(np.exp(rng.normal(-1, 1)))) for i in chosen)
        clause = build_rank_features_query(vector).clause
        hits = engine.search(index=templates.index, body={"query": clause, "size": 100})["hits"]["hits"]
        tokens_of = [{"token": escape_feature(word), "weight": weight} for word, weight in vector]
        found = templates.search("tokens", tokens=tokens_of, size=100)[1]
        assert found == {hit["_id"]: pytest.approx(hit["_score"], rel=1e-6) for hit in hits}
        assert found


def test_hostile_values_are_contained(templates: TemplateClient) -> None:
    for nasty in [*NASTY, INJECTION]:
        tokens = [{"token": nasty, "weight": nasty}]
        body = templates.render(
            "hybrid", tokens=tokens, caption=nasty, size=nasty, tokens_weight=nasty, min_score=nasty, **{"from": nasty}
        )
        clause = {"rank_feature": {"field": f"tokens.{nasty}", "boost": nasty, "linear": {}}}
        inner = {"bool": {"should": [clause, {"match_none": {}}], "minimum_should_match": 1, "boost": nasty}}
        caption = {"match": {"caption": {"query": nasty, "boost": "1"}}}
        assert body == {
            "size": nasty,
            "from": nasty,
            "min_score": nasty,
            "track_total_hits": False,
            "_source": {"excludes": ["thumbnail", "policy_undo"]},
            "sort": SORT_ORDER,
            "query": {"bool": {"should": [inner, caption], "minimum_should_match": 1, "filter": []}},
        }
        query = {"bool": {"must": [{"match": {"impacts": {"query": nasty}}}], "filter": []}}
        assert templates.render("match", text=nasty)["query"] == query


def test_wrong_values_are_errors(templates: TemplateClient) -> None:
    for wrong in WRONG:
        status, found = templates.search("tokens", **{"tokens": DOG, **wrong})
        assert (400 <= status < 500, found) == (True, {}), wrong


def test_too_many_words_are_an_error(templates: TemplateClient) -> None:
    tokens = [{"token": f"w{number}", "weight": 1} for number in range(1024)]
    assert templates.search("tokens", tokens=[*tokens[:1022], *DOG]) == (200, {"0": 3.0, "2": 1.0})
    assert templates.search("tokens", tokens=tokens)[0] == 400


def test_match_finds_images_by_plain_text(client: OpenSearch, node_url: str, index_name: str) -> None:
    cluster = Cluster(Connection(url=node_url), client)
    client.indices.create(index=index_name, body=build_index_body(get_cluster_info(cluster), DocumentSettings(impacts=True)))
    for name, vector in {"1": {"dog": 1.5, "grass": 0.3}, "2": {"dog": 0.5}}.items():
        client.index(index=index_name, id=name, body={"impacts": encode_impacts(SparseVector.from_mapping(vector))})
    client.indices.refresh(index=index_name)
    wanted = detect_templates(cluster, index_name)
    assert (wanted.query_type, wanted.names) == ("rank_features", TEMPLATE_NAMES)
    templates = TemplateClient(node_url, index_name, f"{index_name}-")
    made = build_template("match", wanted.query_type, prefix=templates.prefix)
    publish_template(cluster, made)
    assert templates.search("match", text="a Dog on the grass!") == (200, {"1": 1800.0, "2": 500.0})
    assert templates.search("match", text="dog", min_score=1000, size=5)[1] == {"1": 1500.0}
    assert templates.search("match", text="dog", filter=[{"ids": {"values": ["2"]}}])[1] == {"2": 500.0}
    for nothing in ("", "the", "?", None):
        assert templates.search("match", text=nothing) == (200, {})
    assert delete_template(cluster, made.id)


def test_publishing_is_idempotent_and_per_tenant(engine: OpenSearch, rank_features_url: str, engine_index: str) -> None:
    cluster = Cluster(Connection(url=rank_features_url), engine)
    mine = build_template("tokens", "rank_features", prefix=f"{engine_index}-a-")
    other = build_template("tokens", "sparse_vector", prefix=f"{engine_index}-b-")
    assert [publish_template(cluster, mine) for _ in range(2)] == ["created", "unchanged"]
    assert get_template_state(cluster, "tokens", prefix=f"{engine_index}-b-") == "missing"
    assert publish_template(cluster, other) == "created"
    engine.put_script(id=mine.id, body={"script": {"lang": "mustache", "source": "{}"}})
    assert get_template_state(cluster, "tokens", prefix=f"{engine_index}-a-") == "different"
    assert publish_template(cluster, mine) == "updated"
    assert [get_template_state(cluster, "tokens", prefix=f"{engine_index}-{tenant}-") for tenant in "ab"] == ["published"] * 2
    assert [delete_template(cluster, each.id) for each in (mine, mine, other)] == [True, False, True]


def test_a_missing_index_is_an_error(client: OpenSearch, node_url: str, index_name: str) -> None:
    with pytest.raises(QueryError, match="no index") as failure:
        detect_templates(Cluster(Connection(url=node_url), client), index_name)
    assert "--query-type" in failure.value.remedy
    for name in ("", ","):  # which the cluster takes for all indices
        with pytest.raises(QueryError, match="no index"):
            detect_templates(Cluster(Connection(url=node_url), client), name)


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
        _, rendered = http(elasticsearch7_url, "POST", "/_render/template", {"source": source, "params": params})
        found = cluster.client.search(index=index, body=rendered["template_output"])["hits"]["hits"]
        assert {hit["_id"]: hit["_score"] for hit in found} == expected
    cluster.close()


def test_the_command(client: OpenSearch, node_url: str, index_name: str) -> None:
    def run(*arguments: str) -> tuple[int, Any, str]:
        environment = {"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}
        done = CliRunner().invoke(app, ["template", *arguments], env=environment)
        output = str(done.exception) if done.exception else done.stderr
        return done.exit_code, json.loads(done.stdout) if "--json" in arguments else done.stdout, output

    prefix = f"{index_name}-"
    own = ("--prefix", prefix)
    code, _, output = run("publish", *own)
    assert code == 1
    assert "--query-type" in output
    assert "unknown search template" in run("publish", "other", *own)[2]
    target = get_cluster_info(Cluster(Connection(url=node_url), client))
    client.indices.create(index=index_name, body=build_index_body(target, DocumentSettings()))
    code, changes, output = run("publish", *own, "--json")
    assert (code, changes) == (0, {f"{prefix}tokens": "created", f"{prefix}hybrid": "created"})
    assert "impacts" in output
    assert run("publish", "match", "tokens", *own, "--json")[1] == {f"{prefix}match": "created", f"{prefix}tokens": "unchanged"}
    assert run("publish", "tokens", *own, "--query-type", "sparse_vector", "--json")[1] == {f"{prefix}tokens": "updated"}
    assert run("list", *own, "--json")[1] == dict.fromkeys([f"{prefix}{name}" for name in TEMPLATE_NAMES], "published")
    assert run("delete", "tokens", *own)[1].split() == [f"{prefix}tokens", "deleted"]
    assert run("delete", *own, "--json")[1] == {
        f"{prefix}tokens": "missing",
        f"{prefix}hybrid": "deleted",
        f"{prefix}match": "deleted",
    }

"""Colors from the picture to the filter, on real nodes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from opensearchpy import OpenSearch
from support.corpora.web_corpus import PHOTOS
from support.servers.hostile_http_server import serve_page
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents import document
from stair_es.cluster.metadata import index_metadata

QUERY = "bird flower fruit animal man camera honey bowl"
RED = {"half-a-fig.jpg", "scarlet-macaw.jpg", "red-crab.jpg"}
NAMES = sorted({*RED, "kingfisher.jpg", "orange-dahlia.jpg", "koala.jpg", "photographer.jpg"})

ENGINES = {"node_url": "rank_features", "elasticsearch7_url": "rank_features", "elasticsearch9_url": "sparse_vector"}


def run(*arguments: object) -> str:
    done = CliRunner().invoke(app, [*map(str, arguments), "--model", "stair-mini"])
    assert done.exit_code == 0, done.output
    return done.stdout


def ingest(url: str, index: str, *more: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        run("ingest", *(PHOTOS / name for name in NAMES), "--url", url, "--index", index, "--json", *more)
    )
    return report


def found(url: str, index: str, *filters: str) -> set[str]:
    narrowed = [part for each in filters for part in ("--filter", each)]
    answer = json.loads(run("search", QUERY, "--url", url, "--index", index, "-k", 50, "--json", *narrowed))
    return {Path(hit["uri"]).name for hit in answer["hits"]}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_filter_on_a_color_finds_the_photos_that_have_it(
    engine: str, request: pytest.FixtureRequest, make_index_name: Callable[[str], str]
) -> None:
    url: str = request.getfixturevalue(engine)
    index = make_index_name(url)
    assert ingest(url, index, "--vector", ENGINES[engine])["written"] == len(NAMES)
    assert found(url, index) == set(NAMES)
    assert found(url, index, "colors:red") == RED
    assert found(url, index, "colors:(orange OR pink)") == {"kingfisher.jpg", "orange-dahlia.jpg"}
    assert found(url, index, "colors:orange AND NOT colors:beige") == {"orange-dahlia.jpg"}
    assert found(url, index, "colors:orange", '{"term": {"colors": "blue"}}') == {"kingfisher.jpg", "orange-dahlia.jpg"}
    assert found(url, index, "colors:red", "colors:black") == set()


def test_an_index_without_colors_is_rebuilt(
    node_url: str, index_name: str, client: OpenSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        for module in (document, index_metadata):
            before.setattr(module, "DOCUMENT_VERSION", document.DOCUMENT_VERSION - 1)
        old = ingest(node_url, index_name)
    assert ingest(node_url, index_name, "--dry-run")["new"] == len(NAMES)
    new = ingest(node_url, index_name)
    assert (new["written"], new["swapped"]) == (len(NAMES), True)
    assert list(client.indices.get_alias(name=index_name)) == [new["index"]] != [old["index"]]
    assert ingest(node_url, index_name)["unchanged"] == len(NAMES)


def test_custom_mappings_without_the_field_are_searched(node_url: str, index_name: str, tmp_path: Path) -> None:
    """The field is text then: filters find it, and the page counts its subfield."""
    body = json.loads((Path(__file__).parents[2] / "mappings" / "image.json").read_text())
    del body["mappings"]["properties"]["colors"]
    own = tmp_path / "own.json"
    own.write_text(json.dumps(body))
    ingest(node_url, index_name, "--mapping", own)
    assert found(node_url, index_name, "colors:red") == RED
    with serve_page(Connection(url=node_url), index_name) as page:
        conditions = [{"field": "colors", "all": ["red"]}]
        answer = page.post("/api/facets", {"text": QUERY, "filters": conditions})
        assert (answer.status, answer.json["total"]) == (200, len(RED))
        [colors] = [each for each in answer.json["facets"] if each["field"] == "colors"]
        assert {"value": "red", "count": len(RED)} in colors["buckets"]

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

FILTERS = {
    ("colors:red",): RED,
    ("colors:(orange OR pink)",): {"kingfisher.jpg", "orange-dahlia.jpg"},
    ("colors:orange AND NOT colors:beige",): {"orange-dahlia.jpg"},
    ("colors:orange", '{"term": {"colors": "blue"}}'): {"kingfisher.jpg", "orange-dahlia.jpg"},
    ("colors:red", "colors:black"): set[str](),
}
ENGINES = {"node_url": "rank_features", "elasticsearch7_url": "rank_features", "elasticsearch9_url": "sparse_vector"}


def run_command(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments), "--model", "stair-mini"])
    assert result.exit_code == 0, result.output
    return result.stdout


def ingest_photos(url: str, index: str, *more: object) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(
        run_command("ingest", *(PHOTOS / name for name in NAMES), "--url", url, "--index", index, "--json", *more)
    )
    return report


def find_photos(url: str, index: str, *filters: str) -> set[str]:
    options = [part for each in filters for part in ("--filter", each)]
    answer = json.loads(run_command("search", QUERY, "--url", url, "--index", index, "-k", 50, "--json", *options))
    return {Path(hit["uri"]).name for hit in answer["hits"]}


@pytest.mark.parametrize("engine", list(ENGINES))
def test_a_filter_on_a_color_finds_the_photos_that_have_it(
    engine: str, request: pytest.FixtureRequest, make_index_name: Callable[[str], str]
) -> None:
    url: str = request.getfixturevalue(engine)
    index = make_index_name(url)
    assert ingest_photos(url, index, "--vector", ENGINES[engine])["written"] == len(NAMES)
    assert find_photos(url, index) == set(NAMES)
    for filters, names in FILTERS.items():
        assert find_photos(url, index, *filters) == names, filters


def test_an_index_without_colors_is_rebuilt(
    node_url: str, index_name: str, client: OpenSearch, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        for module in (document, index_metadata):
            before.setattr(module, "DOCUMENT_VERSION", document.DOCUMENT_VERSION - 1)
        old_report = ingest_photos(node_url, index_name)
    assert ingest_photos(node_url, index_name, "--dry-run")["new"] == len(NAMES)
    new_report = ingest_photos(node_url, index_name)
    assert (new_report["written"], new_report["swapped"]) == (len(NAMES), True)
    assert list(client.indices.get_alias(name=index_name)) == [new_report["index"]] != [old_report["index"]]
    assert ingest_photos(node_url, index_name)["unchanged"] == len(NAMES)


def test_custom_mappings_without_the_field_are_searched(node_url: str, index_name: str, tmp_path: Path) -> None:
    """The field is text then: filters find it, and the page counts its subfield."""
    body = json.loads((Path(__file__).parents[2] / "mappings" / "image.json").read_text())
    del body["mappings"]["properties"]["colors"]
    mapping_file = tmp_path / "own.json"
    mapping_file.write_text(json.dumps(body))
    ingest_photos(node_url, index_name, "--mapping", mapping_file)
    assert find_photos(node_url, index_name, "colors:red") == RED
    with serve_page(Connection(url=node_url), index_name) as page:
        conditions = [{"field": "colors", "all": ["red"]}]
        answer = page.post("/api/facets", {"text": QUERY, "filters": conditions})
        assert (answer.status, answer.json["total"] + answer.json["weak"]) == (200, len(RED))
        [colors] = [each for each in answer.json["facets"] if each["field"] == "colors"]
        assert {"value": "red", "count": answer.json["total"]} in colors["buckets"]

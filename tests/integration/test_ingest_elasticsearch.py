"""The main job on Elasticsearch: 7.17, 8.19 and 9.5, with each field type that the node has."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import pytest
from support.corpora.ingest_sources import LONG_AGO, copy_photos
from support.errors import expect_error

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.errors import ClusterError, UnsupportedTarget
from stair_es.ingest.accounting.report import IngestReport
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.searcher import Searcher
from stair_es.sources.registry import open_source

MODEL = ModelSpec(name="stair-mini", backend="onnx")
Vector = Literal["rank_features", "sparse_vector"]


@pytest.fixture(
    params=[
        ("elasticsearch7_url", "rank_features"),
        ("elasticsearch8_url", "sparse_vector"),
        ("elasticsearch9_url", "sparse_vector"),
        ("elasticsearch9_url", "rank_features"),
    ],
    ids=["elasticsearch7", "elasticsearch8", "elasticsearch9", "stand-in"],
)
def engine_target(request: pytest.FixtureRequest) -> tuple[Connection, Vector]:
    fixture, vector = request.param
    return Connection(url=request.getfixturevalue(fixture)), vector


@pytest.fixture
def photos_folder(tmp_path: Path) -> Path:
    return copy_photos(tmp_path / "photos", 12)


def _get_counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.seen, report.written, report.unchanged, report.removed


def _build_options(alias: str, folder: Path, vector: Vector, **changed: Any) -> IngestOptions:  # noqa: ANN401  options of ingest
    options = IngestOptions(alias=alias, model=MODEL, runner="local", dead_letters=folder.parent / "letters.jsonl")
    return replace(options, **{"document": DocumentSettings(vector=vector), **changed})


def test_photos_are_ingested_found_updated_and_rebuilt(
    engine_target: tuple[Connection, Vector], make_index_name: Callable[[str], str], photos_folder: Path
) -> None:
    connection, vector = engine_target
    alias = make_index_name(connection.url)

    def ingest_folder(**changed: object) -> IngestReport:
        options = _build_options(alias, photos_folder, vector, **changed)
        return run_ingest([open_source(str(photos_folder))], connection, options, progress=lambda _: None)

    assert _get_counts(ingest_folder()) == (12, 12, 0, 0)
    assert _get_counts(ingest_folder()) == (12, 0, 12, 0)
    gone, touched, *_ = sorted(photos_folder.iterdir())
    gone.unlink()
    os.utime(touched, (LONG_AGO, LONG_AGO + 9))
    assert _get_counts(ingest_folder(resync=True)) == (11, 0, 11, 1)
    report = ingest_folder(document=DocumentSettings(vector=vector, thumbnail_px=0))
    assert (_get_counts(report), report.swapped) == ((11, 11, 0, 0), True)
    _check_search(connection, alias)


@pytest.mark.parametrize(
    ("document", "code"),
    [
        (DocumentSettings(vector="sparse_vector"), "no-sparse-vector-field"),
        (DocumentSettings(impacts=True), "no-impacts-field"),
    ],
)
def test_fields_that_elasticsearch_7_lacks_are_rejected(
    elasticsearch7_url: str, make_index_name: Callable[[str], str], photos_folder: Path, document: DocumentSettings, code: str
) -> None:
    connection, name = Connection(url=elasticsearch7_url), make_index_name(elasticsearch7_url)
    options = _build_options(name, photos_folder, "rank_features", document=document)
    with expect_error(code, UnsupportedTarget) as caught:
        run_ingest([open_source(str(photos_folder))], connection, options, progress=lambda _: None)
    assert "7.17.29" in caught.value.message
    with Cluster(connection) as cluster:
        assert not cluster.client.indices.get(index=f"{name}*")


@pytest.mark.parametrize(
    ("fixture", "vector", "template"),
    [
        ("node_url", "rank_features", {"data_stream": {}}),
        ("elasticsearch9_url", "sparse_vector", {"data_stream": {}}),
        ("elasticsearch9_url", "sparse_vector", {"template": {"settings": {"index.mode": "logsdb"}}}),
    ],
)
def test_a_template_for_logs_ends_the_run_with_a_remedy(
    request: pytest.FixtureRequest,
    make_index_name: Callable[[str], str],
    photos_folder: Path,
    fixture: str,
    vector: Vector,
    template: dict[str, object],
) -> None:
    connection = Connection(url=request.getfixturevalue(fixture))
    alias = make_index_name(connection.url)
    options = _build_options(alias, photos_folder, vector)
    with Cluster(connection) as cluster, _keep_template(cluster, alias, template), pytest.raises(ClusterError) as caught:
        run_ingest([open_source(str(photos_folder))], connection, options, progress=lambda _: None)
    assert "index template" in caught.value.remedy
    assert not (photos_folder.parent / "letters.jsonl").exists()  # it isn't the fault of the images


@pytest.mark.parametrize("vector", ["rank_features", "sparse_vector"])
@pytest.mark.parametrize("keep", ["none", "arrays"])
def test_a_synthetic_source_is_read_like_a_stored_one(
    elasticsearch9_url: str, make_index_name: Callable[[str], str], photos_folder: Path, vector: Vector, keep: str
) -> None:
    """Lists come back sorted, and those of one value as that value, unless a setting keeps them as they were written."""
    connection = Connection(url=elasticsearch9_url)
    alias = make_index_name(connection.url)
    settings = {"index.mapping.source.mode": "synthetic", "index.mapping.synthetic_source_keep": keep}
    options = _build_options(alias, photos_folder, vector)
    with Cluster(connection) as cluster, _keep_template(cluster, alias, {"template": {"settings": settings}}):
        for counts in ((12, 12, 0, 0), (12, 0, 12, 0)):
            report = run_ingest([open_source(str(photos_folder))], connection, options, progress=lambda _: None)
            assert _get_counts(report) == counts
        documents = [hit["_source"] for hit in cluster.search(alias, {"size": 12})["hits"]["hits"]]
    order = [list(document) == sorted(document) for document in documents]
    assert all(order), "the source is synthetic"
    heaviest = [[token for token, _ in sorted(each["tokens"].items(), key=lambda pair: -pair[1])] for each in documents]
    kept = [each["top_tokens"] == tokens[: len(each["top_tokens"])] for each, tokens in zip(documents, heaviest, strict=True)]
    assert all(kept) == (keep == "arrays")
    _check_search(connection, alias)


def _check_search(connection: Connection, alias: str) -> None:
    encoder = registry.load_encoder(MODEL)
    [query] = encoder.encode_texts(["bear"])
    with Searcher(connection, alias, encoder.model_id) as searcher:
        hits = searcher.search(query, k=3).hits
    assert hits
    assert hits[0].contributions
    assert hits[0].score == pytest.approx(sum(reason.contribution for reason in hits[0].contributions), rel=0.004)


@contextmanager
def _keep_template(cluster: Cluster, alias: str, template: Mapping[str, object]) -> Iterator[None]:
    """Have an index template for the indices of an alias until the end of the block."""
    body = {"index_patterns": [f"{alias}*"], "priority": 900, **template}
    cluster.client.indices.put_index_template(name=alias, body=body)
    try:
        yield
    finally:
        cluster.client.indices.delete_index_template(name=alias)

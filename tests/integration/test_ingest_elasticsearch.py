"""The main job on Elasticsearch: 7.17 with rank_features, 9.5 with sparse_vector."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import pytest
from support.corpora.ingest_sources import LONG_AGO, copy_photos

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

Vector = Literal["rank_features", "sparse_vector"]


@pytest.fixture(params=[("elasticsearch7_url", "rank_features"), ("elasticsearch9_url", "sparse_vector")], ids=["7", "9"])
def target(request: pytest.FixtureRequest) -> tuple[Connection, Vector]:
    fixture, vector = request.param
    return Connection(url=request.getfixturevalue(fixture)), vector


@pytest.fixture
def alias(target: tuple[Connection, Vector], make_index_name: Callable[[str], str]) -> str:
    return make_index_name(target[0].url)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_photos(tmp_path / "photos", 12)


def _counts(report: IngestReport) -> tuple[int, int, int, int]:
    return report.seen, report.written, report.unchanged, report.removed


def test_photos_are_ingested_found_updated_and_rebuilt(
    target: tuple[Connection, Vector], alias: str, folder: Path, tmp_path: Path
) -> None:
    connection, vector = target

    def run(**more: object) -> IngestReport:
        options = IngestOptions(
            alias=alias,
            model=ModelSpec(name="stair-mini", backend="onnx"),
            runner="local",
            dead_letters=tmp_path / "letters.jsonl",
            **{"document": DocumentSettings(vector=vector), **more},  # type: ignore[arg-type]
        )
        return run_ingest([open_source(str(folder))], connection, options, progress=lambda _: None)

    assert _counts(run()) == (12, 12, 0, 0)
    assert _counts(run()) == (12, 0, 12, 0)
    gone, touched, *_ = sorted(folder.iterdir())
    gone.unlink()
    os.utime(touched, (LONG_AGO, LONG_AGO + 9))
    assert _counts(run(resync=True)) == (11, 0, 11, 1)
    report = run(document=DocumentSettings(vector=vector, thumbnail_px=0))
    assert (_counts(report), report.swapped) == ((11, 11, 0, 0), True)

    encoder = registry.load_encoder(ModelSpec(name="stair-mini", backend="onnx"))
    [query] = encoder.encode_texts(["bear"])
    with Searcher(connection, alias, encoder.model_id) as searcher:
        hits = searcher.search(query, k=3).hits
    assert hits
    assert hits[0].contributions
    assert hits[0].score == pytest.approx(sum(reason.contribution for reason in hits[0].contributions), rel=0.004)


def test_fields_that_elasticsearch_7_lacks_are_rejected_before_an_index_is_created(
    elasticsearch7_url: str, make_index_name: Callable[[str], str], folder: Path
) -> None:
    connection, name = Connection(url=elasticsearch7_url), make_index_name(elasticsearch7_url)
    for document in (DocumentSettings(vector="sparse_vector"), DocumentSettings(impacts=True)):
        options = IngestOptions(alias=name, model=ModelSpec(name="stair-mini"), runner="local", document=document)
        with pytest.raises(UnsupportedTarget, match=r"Elasticsearch 7\.17\.29"):
            run_ingest([open_source(str(folder))], connection, options, progress=lambda _: None)
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
    folder: Path,
    tmp_path: Path,
    fixture: str,
    vector: Vector,
    template: dict[str, object],
) -> None:
    connection = Connection(url=request.getfixturevalue(fixture))
    alias = make_index_name(connection.url)
    options = IngestOptions(
        alias=alias,
        model=ModelSpec(name="stair-mini", backend="onnx"),
        runner="local",
        dead_letters=tmp_path / "letters.jsonl",
        document=DocumentSettings(vector=vector),
    )
    with Cluster(connection) as cluster:
        indices = cluster.client.indices
        indices.put_index_template(name=alias, body={"index_patterns": [f"{alias}*"], "priority": 900, **template})
        try:
            with pytest.raises(ClusterError) as error:
                run_ingest([open_source(str(folder))], connection, options, progress=lambda _: None)
        finally:
            indices.delete_index_template(name=alias)
    assert "index template" in error.value.remedy
    assert not (tmp_path / "letters.jsonl").exists()  # it isn't the fault of the images

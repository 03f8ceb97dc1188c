"""The nodes that the tests run against: they keep their data over a crash, and nothing of them is left behind."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

import pytest
from opensearchpy import OpenSearch
from support.corpora.ingest_sources import PHOTOS, copy_photo, copy_photos
from support.nodes.elasticsearch_nodes import EIGHT, NINE, SEVEN, build_elasticsearch_cluster
from support.nodes.search_nodes import Cluster, SearchNode, build_cluster
from support.polling import poll_until

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.ingest.run import RunProgressCallback
from stair_es.model.base import ModelSpec
from stair_es.optional import import_optional
from stair_es.sources.registry import open_source

pytestmark = pytest.mark.nightly("nodes of Elasticsearch die, with clusters of three")

MODEL = ModelSpec(name="stair-mini", backend="onnx")
Vector = Literal["rank_features", "sparse_vector"]
_TESTS = Path(__file__).parents[1]
_PARENT = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from support.nodes.elasticsearch_nodes import build_elasticsearch
node = build_elasticsearch(sys.argv[3], pathlib.Path(sys.argv[2])).start(wait=False)
print(node.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux")
@pytest.mark.parametrize("version", [SEVEN, EIGHT])
def test_node_dies_with_the_process_that_started_it(tmp_path: Path, version: str) -> None:
    psutil = import_optional("psutil", "node")
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(_TESTS), str(tmp_path), version], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    node = psutil.Process(int(parent.stdout.readline()))
    poll_until(lambda: node.name() == "java")  # no longer the program that starts it
    if version == EIGHT:
        poll_until(lambda: bool(node.children()))  # the server, which the command of 8 and 9 starts
    processes = [node, *node.children()]
    parent.kill()
    parent.communicate()
    assert psutil.wait_procs(processes, 120)[1] == []


CLUSTERS: Mapping[Vector, Callable[[Path], Cluster]] = {
    "rank_features": build_cluster,
    "sparse_vector": partial(build_elasticsearch_cluster, NINE),
}


@pytest.mark.parametrize("vector", CLUSTERS)
def test_one_of_three_nodes_may_die_in_an_ingest_and_restarts_with_its_data(tmp_path: Path, vector: Vector) -> None:
    photos = copy_photos(tmp_path / "photos", 3)
    with CLUSTERS[vector](tmp_path) as cluster:

        def ingest_photos(progress: RunProgressCallback) -> tuple[int, int, int]:
            document = DocumentSettings(vector=vector, thumbnail_px=0)
            options = IngestOptions(alias="photos", model=MODEL, runner="local", batch_images=1, document=document)
            report = run_ingest([open_source(str(photos))], Connection(url=cluster.url), options, progress=progress)
            return report.written, report.unchanged, report.failed

        assert ingest_photos(lambda _: None) == (3, 0, 0)
        cluster.start()  # the replica is there
        dying, survivor = split_by_primary(cluster, "photos")
        client = OpenSearch(survivor.url, timeout=120)  # it may have to elect a leader first
        alone = {"number_of_replicas": 0, "index.routing.allocation.require._name": dying.name}
        client.indices.create(index="alone", body={"settings": alone})
        client.index(index="alone", id="1", body={"a": 1}, params={"refresh": "true"})
        for photo in sorted(PHOTOS.glob("*.jpg"))[3:9]:
            copy_photo(photo, photos)
        before = dying.pid
        assert ingest_photos(lambda _: dying.kill()) == (6, 3, 0)
        assert not dying.running
        survivor.wait(lambda health: health["number_of_nodes"] == 2)
        client.indices.refresh(index="photos")
        assert client.count(index="photos")["count"] == 9
        assert client.cluster.health(index="alone")["status"] == "red"
        cluster.start()
        assert dying.pid != before
        assert len(client.cat.nodes(params={"format": "json"})) == 3
        assert client.get(index="alone", id="1")["_source"] == {"a": 1}
        client.close()


def split_by_primary(cluster: Cluster, index: str) -> tuple[SearchNode, SearchNode]:
    """Return the node that has the primary shard of an index, and another one."""
    with OpenSearch(cluster.nodes[0].url) as client:
        shards = client.cat.shards(index=index, params={"format": "json"})
    [name] = [shard["node"] for shard in shards if shard["prirep"] == "p"]
    [primary] = [node for node in cluster.nodes if node.name == name]
    return primary, next(node for node in cluster.nodes if node is not primary)

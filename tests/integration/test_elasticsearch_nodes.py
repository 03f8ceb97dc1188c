"""The nodes that the tests run against: they keep their data over a crash, and nothing of them is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from support.nodes.search_nodes import build_cluster, build_elasticsearch7
from support.polling import poll_until

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.optional import import_optional

_TESTS = Path(__file__).parents[1]
_PARENT = """
import sys, pathlib
sys.path.insert(0, sys.argv[1])
from support.nodes.search_nodes import build_elasticsearch7
node = build_elasticsearch7(pathlib.Path(sys.argv[2])).start(wait=False)
print(node.pid, flush=True)
sys.stdin.read()
"""


def test_killed_node_restarts_with_its_data(tmp_path: Path) -> None:
    with build_elasticsearch7(tmp_path) as node, Cluster(Connection(url=node.url)) as cluster:
        client = cluster.client
        client.index(index="kept", id="1", body={"a": 1})
        before = node.pid
        node.kill()
        assert not node.running
        node.start()
        assert node.pid != before
        assert client.get(index="kept", id="1")["_source"] == {"a": 1}


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux")
def test_node_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _PARENT, str(_TESTS), str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert parent.stdout is not None
    node = import_optional("psutil", "node").Process(int(parent.stdout.readline()))
    poll_until(lambda: node.name() == "java")  # no longer the program that starts it
    parent.kill()
    parent.communicate()
    node.wait(120)


def test_one_of_three_nodes_may_die(tmp_path: Path) -> None:
    with build_cluster(tmp_path) as cluster:
        client = OpenSearch(cluster.nodes[0].url)
        client.indices.create(
            index="kept",
            body={"settings": {"number_of_replicas": 1, "index.unassigned.node_left.delayed_timeout": "0s"}},
        )
        client.index(index="kept", id="1", body={"a": 1}, params={"refresh": "true"})
        cluster.start()  # the replica is there
        cluster.nodes[2].kill()
        cluster.nodes[0].wait(lambda health: health["number_of_nodes"] == 2 and health["status"] == "green")
        assert client.count(index="kept")["count"] == 1
        cluster.start()
        assert len(client.cat.nodes(params={"format": "json"})) == 3
        client.close()

"""The nodes that the tests run against: they keep their data over a crash, and nothing of them is left behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from support.nodes.elasticsearch_nodes import EIGHT, SEVEN
from support.nodes.search_nodes import build_cluster
from support.polling import poll_until

from stair_es.optional import import_optional

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


def test_one_of_three_nodes_may_die_and_restarts_with_its_data(tmp_path: Path) -> None:
    with build_cluster(tmp_path) as cluster:
        client, dying = OpenSearch(cluster.nodes[0].url), cluster.nodes[2]
        for index, settings in (
            ("kept", {"number_of_replicas": 1, "index.unassigned.node_left.delayed_timeout": "0s"}),
            ("alone", {"number_of_replicas": 0, "index.routing.allocation.require._name": dying.name}),
        ):
            client.indices.create(index=index, body={"settings": settings})
            client.index(index=index, id="1", body={"a": 1}, params={"refresh": "true"})
        cluster.start()  # the replica is there
        before = dying.pid
        dying.kill()
        assert not dying.running
        cluster.nodes[0].wait(lambda health: health["number_of_nodes"] == 2)
        client.cluster.health(index="kept", params={"wait_for_status": "green", "timeout": "120s"}, request_timeout=150)
        assert client.count(index="kept")["count"] == 1
        assert client.cluster.health(index="alone")["status"] == "red"
        cluster.start()
        assert dying.pid != before
        assert len(client.cat.nodes(params={"format": "json"})) == 3
        assert client.get(index="alone", id="1")["_source"] == {"a": 1}
        client.close()

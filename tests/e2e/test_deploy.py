"""The processes of the containers: commands, variables and health checks of the files, addresses and paths of ours.

Compose's way is tried on the bare node. Kubernetes' containers, and those of the compose file for secured clusters, are tried
through TLS with an API key, as they are written.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import trustme
from opensearchpy import OpenSearch
from support.deploy_files import (
    COMPOSE,
    COMPOSE_CLUSTER,
    KUBERNETES,
    Process,
    build_container_process,
    build_health_command,
    build_service_process,
    list_containers,
    read_all_manifests,
    read_compose,
)
from support.servers.recording_proxy import RecordedRequest, RecordingProxy, StubResponse

from stair_es.config.defaults import DataDir
from stair_es.system.ray_session import START_TIMEOUTS

PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))[:6]
API_KEY, TOKEN = "an-id:and-a-key-that-nobody-knows", "a-token-that-visitors-know"
PORTS = {"page": "8077", "encoder": "8078"}
_PATIENCE_S = 900.0


def _find_free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def _is_listening(port: int) -> bool:
    """Check whether something listens: `ray health-check` takes half a minute to fail."""
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture
def stair_home(tmp_path: Path) -> Path:
    """A separate data folder, with the text network of this machine, which the image contains."""
    folder = tmp_path / "home"
    folder.mkdir()
    DataDir.from_env().models.mkdir(parents=True, exist_ok=True)
    (folder / "models").symlink_to(DataDir.from_env().models)
    return folder


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """Six photos, and a file that is not an image."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for photo in PHOTOS:
        shutil.copy(photo, folder)
    (folder / "broken.jpg").write_bytes(b"no image")
    return folder


def _build_environment(process: Process) -> dict[str, str]:
    """The environment of a container: only what is needed to find the programs, and to run Ray without niceness or haste."""
    environ = {name: value for name, value in os.environ.items() if name in ("HOME", "LANG", "TMPDIR")}
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    return {**environ, "PATH": path, "OMP_NUM_THREADS": "1", "RAY_worker_niceness": "0", **START_TIMEOUTS, **process.environment}


def run_process(process: Process) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        process.argv,
        env=_build_environment(process),
        capture_output=True,
        text=True,
        timeout=_PATIENCE_S,
        stdin=subprocess.DEVNULL,
        check=False,
    )


@contextmanager
def keep_running(process: Process, is_healthy: Callable[[], bool], end: signal.Signals = signal.SIGTERM) -> Iterator[None]:
    """Run a process and its children, from when it is healthy to the end of the block."""
    with subprocess.Popen(
        process.argv,
        env=_build_environment(process),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as started:
        try:
            until = time.monotonic() + _PATIENCE_S
            while not is_healthy():
                assert started.poll() is None, started.stderr.read() if started.stderr else ""
                assert time.monotonic() < until, f"{process.argv} isn't healthy"
                time.sleep(0.2)
            yield
        finally:
            started.send_signal(end)  # only to the first process, as container engines do
            started.wait(_PATIENCE_S)
            with suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)  # as container engines kill the remaining processes


def count_documents(client: OpenSearch, index: str) -> int:
    client.indices.refresh(index=index)
    return int(client.count(index=index)["count"])


def fetch_status(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=_PATIENCE_S) as response:
            return int(response.status)
    except urllib.error.HTTPError as error:
        return error.code


# ------------------------------------------------------------------------------------------------- docker compose up


@pytest.mark.nightly("Ray as deploy/compose.yaml starts it")
def test_compose_starts_ray_ingests_and_serves_the_page(
    node_url: str, client: OpenSearch, index_name: str, photo_folder: Path, stair_home: Path, tmp_path: Path
) -> None:
    services = read_compose(COMPOSE, {"STAIR_ES_INDEX": index_name, "RUNNER": "ray"})
    ray, page = _find_free_port(), _find_free_port()
    replacements = {
        "http://opensearch:9200": node_url,
        "ray-head:6379": f"127.0.0.1:{ray}",
        "--head --port=6379": f"--head --port={ray} --num-cpus=0",  # as KubeRay starts it: tasks run on the workers
        "8077": str(page),
        "0.0.0.0": "127.0.0.1",
        "/photos": str(photo_folder),
        "/var/lib/ray-token/token": str(tmp_path / "token"),
    }

    def adapt_process(name: str, *more: str) -> Process:
        process = build_service_process(services[name]).replace_texts(replacements)
        return Process(argv=[*process.argv, *more], environment={**process.environment, "STAIR_ES_HOME": str(stair_home)})

    def build_health_check(name: str, port: int) -> Callable[[], bool]:
        check = Process(argv=build_health_command(services[name]), environment=services[name]["environment"]).replace_texts(
            replacements
        )
        return lambda: _is_listening(port) and run_process(check).returncode == 0

    with ExitStack() as stack:
        stack.callback(_stop_ray, ray)
        stack.enter_context(keep_running(adapt_process("ray-head"), build_health_check("ray-head", ray), signal.SIGKILL))
        assert (tmp_path / "token").stat().st_mode & 0o077 == 0
        stack.enter_context(
            keep_running(adapt_process("ray-worker", "--num-cpus=1"), build_health_check("ray-worker", ray), signal.SIGKILL)
        )
        result = run_process(adapt_process("ingest"))
        assert result.returncode == 0, result.stderr
        assert "runner: ray" in result.stderr
        assert count_documents(client, index_name) == len(PHOTOS)
        [dead_letters] = (stair_home / "dead-letters").glob("*.jsonl")
        assert "broken.jpg" in dead_letters.read_text()
        _run_ray_job(
            {**replacements, "auto": f"127.0.0.1:{ray}", "/shared/": f"{tmp_path}/", "--metrics-port 9464": "--metrics-port 0"},
            photo_folder,
            index_name,
            node_url,
            tmp_path,
        )
        assert count_documents(client, index_name) == len(PHOTOS) + 1
    with keep_running(adapt_process("page"), build_health_check("page", page)):
        assert fetch_status(f"http://127.0.0.1:{page}/") == 200
        assert fetch_status(f"http://127.0.0.1:{page}/", Host="photos.example.org") == 403


def _run_ray_job(replacements: dict[str, str], photo_folder: Path, index: str, node_url: str, tmp_path: Path) -> None:
    """Run the script of the RayJob on that Ray cluster: one new photo, and a file that is not an image, which is no failure."""
    shutil.copy(PHOTOS[0], photo_folder / "new.jpg")
    [head] = list_containers(read_all_manifests()["RayJob", "stair-es-ingest"]["spec"]["rayClusterSpec"]["headGroupSpec"])
    environment = build_container_process(head, {"url": node_url}).environment
    environment = {name: value for name, value in environment.items() if not name.endswith("_FILE")}  # no TLS here
    environment |= {
        "SOURCE": str(photo_folder),
        "STAIR_ES_INDEX": index,
        "STAIR_ES_HOME": str(tmp_path / "home"),
        "ENCODERS": "1",
    }
    environment |= {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": replacements["/var/lib/ray-token/token"],
    }  # as KubeRay sets it
    script = Process(argv=["sh", "-c", (KUBERNETES / "ray" / "ingest.sh").read_text()], environment={}).replace_texts(
        replacements
    )
    result = run_process(Process(argv=script.argv, environment=environment))
    assert result.returncode == 0, result.stderr
    assert "runner: ray" in result.stderr
    assert "broken.jpg" in (tmp_path / "ray.jsonl").read_text()


def _stop_ray(port: int) -> None:
    """End what outlives the first process; in a container it ends with it. (A raylet takes half a minute for SIGTERM.)"""
    for process in psutil.process_iter(["cmdline"]):
        if any(part.endswith((f":{port}", f"={port}")) for part in process.info["cmdline"] or []):
            with suppress(psutil.NoSuchProcess):
                process.kill()


def test_threads_separate_failed_runs_from_failed_images(
    node_url: str, client: OpenSearch, index_name: str, photo_folder: Path, tmp_path: Path
) -> None:
    ingest = read_compose(COMPOSE, {"STAIR_ES_INDEX": index_name})["ingest"]
    replacements = {"http://opensearch:9200": node_url, "/photos": str(photo_folder)}
    result = run_process(build_service_process(ingest).replace_texts(replacements))
    assert result.returncode == 0, result.stderr
    assert "runner: local" in result.stderr
    assert count_documents(client, index_name) == len(PHOTOS)
    (tmp_path / "empty").mkdir()
    result = run_process(build_service_process(ingest).replace_texts({**replacements, "/photos": str(tmp_path / "empty")}))
    assert result.returncode == 1
    assert "no image" in result.stderr


# ------------------------------------------------------------------------------------------------- a secured cluster


@pytest.fixture
def secured_url(node_url: str, tmp_path: Path) -> Iterator[str]:
    """The node behind TLS, which requires an API key; `secrets` below `tmp_path` has what a client needs."""
    authority, folder = trustme.CA(), tmp_path / "secrets"
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    folder.mkdir()
    authority.cert_pem.write_to_path(folder / "ca.crt")
    for name in ("api-key", "page-api-key", "ingest-api-key"):
        (folder / name).write_text(API_KEY)
    for name in ("token", "page-token", "encoder-token"):
        (folder / name).write_text(TOKEN)

    def check_login(request: RecordedRequest) -> StubResponse | None:
        return None if request.headers.get("authorization", "").startswith("ApiKey ") else StubResponse(status=401)

    with RecordingProxy(node_url, tls=context, gate=check_login) as proxy:
        yield proxy.url


def _open_page(url: str, name: str) -> None:
    """A page that requires a token, except for its health check."""
    assert fetch_status(url + "health") == 200
    assert fetch_status(url) == 401
    assert fetch_status(url, Authorization=f"Bearer {TOKEN}", Host=name) == 200
    assert fetch_status(url, Authorization=f"Bearer {TOKEN}", Host="elsewhere.example.org") == 403


def _ask_encoder(url: str) -> None:
    """An encoder that requires a token, except for its health check, and has the model of the index."""
    assert fetch_status(url + "health") == 200
    assert fetch_status(url + "info") == 401
    headers = {"Authorization": f"Bearer {TOKEN}", "Host": "stair-es-encoder.stair-es", "Content-Type": "application/json"}
    request = urllib.request.Request(url + "v1/encode", json.dumps({"texts": ["a kitten"]}).encode(), headers)
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as response:
        [text] = json.load(response)["texts"]
    assert "kitten" in text["tokens"]


@pytest.mark.nightly("compose on a secured cluster")
def test_compose_on_a_secured_cluster(
    secured_url: str, client: OpenSearch, index_name: str, photo_folder: Path, tmp_path: Path
) -> None:
    environment = {
        "STAIR_ES_URL": secured_url,
        "STAIR_ES_INDEX": index_name,
        "PAGE_NAME": "photos.example.org",
        "PHOTOS": str(photo_folder),
    }
    services = read_compose(COMPOSE_CLUSTER, environment)
    port = _find_free_port()
    replacements = {"/run/secrets/": f"{tmp_path}/secrets/", "/photos": str(photo_folder), "0.0.0.0": "127.0.0.1"}
    result = run_process(build_service_process(services["ingest"]).replace_texts(replacements))
    assert result.returncode == 0, result.stderr
    assert count_documents(client, index_name) == len(PHOTOS)

    @contextmanager
    def start_service(name: str) -> Iterator[str]:
        texts = {**replacements, PORTS[name]: str(port)}
        check = Process(argv=build_health_command(services[name]), environment={}).replace_texts(texts)
        process = build_service_process(services[name]).replace_texts(texts)
        with keep_running(process, lambda: _is_listening(port) and run_process(check).returncode == 0):
            yield f"http://127.0.0.1:{port}/"

    with start_service("page") as url:
        _open_page(url, "photos.example.org")
    with start_service("encoder") as url:
        _ask_encoder(url)


def _get_restart_action(code: int) -> str:
    """Return what Kubernetes does with a pod of the nightly Job for an exit code: the first matching rule, otherwise a retry."""
    job = read_all_manifests()["CronJob", "stair-es-nightly"]["spec"]["jobTemplate"]["spec"]
    rules: list[dict[str, Any]] = job["podFailurePolicy"]["rules"]
    fitting = [rule["action"] for rule in rules if code in rule.get("onExitCodes", {}).get("values", [])]
    return "Complete" if code == 0 else (fitting or ["Retry"])[0]


@pytest.mark.nightly("the manifests, run; tests/unit/deploy validates them")
def test_kubernetes_nights_page_and_encoder(
    secured_url: str, client: OpenSearch, index_name: str, photo_folder: Path, stair_home: Path, tmp_path: Path
) -> None:
    [ingest] = list_containers(read_all_manifests()["CronJob", "stair-es-nightly"])
    port = _find_free_port()
    replacements = {
        "s3://my-bucket/products/": str(photo_folder),
        "/secrets/ingest": f"{tmp_path}/secrets",
        "/secrets/page": f"{tmp_path}/secrets",
        "/secrets/encoder": f"{tmp_path}/secrets",
        "/dead-letters/": f"{tmp_path}/letters/",
        "/tmp/stair-es": str(stair_home),
        "0.0.0.0": "127.0.0.1",
    }

    def run_night(**more: str) -> tuple[str, subprocess.CompletedProcess[str]]:
        process = build_container_process(ingest, {"url": secured_url}).replace_texts(replacements)
        result = run_process(
            Process(argv=process.argv, environment={**process.environment, "STAIR_ES_INDEX": index_name, **more})
        )
        return _get_restart_action(result.returncode), result

    action, result = run_night()
    assert (action, result.returncode) == ("FailJob", 3), result.stderr
    [letter] = (tmp_path / "letters" / "nightly.jsonl").read_text().splitlines()
    assert json.loads(letter)["uri"].endswith("broken.jpg")
    (photo_folder / "broken.jpg").unlink()
    (photo_folder / PHOTOS[0].name).unlink()
    action, result = run_night()
    assert action == "Complete", result.stderr
    assert count_documents(client, index_name) == len(PHOTOS) - 1  # --resync removed what is gone
    assert not (tmp_path / "letters" / "nightly.jsonl").exists()
    action, result = run_night(STAIR_ES_URL="https://127.0.0.1:1", STAIR_ES_API_KEY_FILE=f"{tmp_path}/nowhere")
    assert (action, result.returncode) == ("FailJob", 2), result.stderr  # a Secret without a key: a retry doesn't help

    @contextmanager
    def start_service(name: str) -> Iterator[str]:
        [container] = list_containers(read_all_manifests()["Deployment", f"stair-es-{name}"])
        texts = {**replacements, "products": index_name, PORTS[name]: str(port)}
        process = build_container_process(container, {"url": secured_url}).replace_texts(texts)
        probe = f"http://127.0.0.1:{port}{container['livenessProbe']['httpGet']['path']}"

        def is_alive() -> bool:
            try:
                return fetch_status(probe, Host=f"10.1.2.3:{port}") == 200  # as the kubelet calls a pod
            except OSError:
                return False

        with keep_running(process, is_alive):
            yield f"http://127.0.0.1:{port}/"

    with start_service("page") as url:
        _open_page(url, "photos.example.org")
    with start_service("encoder") as url:
        _ask_encoder(url)

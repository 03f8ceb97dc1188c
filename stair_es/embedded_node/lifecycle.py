"""Start, stop and status: one node per folder for any number of concurrent processes."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from stair_es.config.defaults import DataDir
from stair_es.embedded_node import state as states
from stair_es.embedded_node.spec import NodeSpec
from stair_es.embedded_node.state import NodeState, fetch_node_json
from stair_es.system.folders import make_private_folder
from stair_es.types import ProgressCallback

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class NodeStatus:
    """The current state of the node."""

    state: Literal["running", "starting", "stopped"]
    """`starting` also means a process that does not respond."""
    url: str | None = None
    pid: int | None = None
    opensearch: str | None = None
    heap: str | None = None
    uptime_s: float | None = None
    rss_mb: float | None = None
    """Resident memory of the process."""


def ensure_running(
    *,
    home: DataDir | None = None,
    port: int | None = None,
    environ: Mapping[str, str] = os.environ,
    progress: ProgressCallback | None = None,
) -> str:
    """Return the URL of the embedded node, and start it if it is not running.

    Arguments are as in `NodeSpec.from_home` and `start_node`.

    Raises:
        NodeError: If it cannot be downloaded or started.
        UsageError: If `STAIR_ES_NODE_PORT` or `STAIR_ES_NODE_HEAP` is invalid.
        MissingExtra: If the extra `node` is not installed.
    """
    spec = NodeSpec.from_home(home, port=port, environ=environ)
    running_url = find_node_url(spec)
    if running_url:
        return running_url
    url = start_node(spec, progress)
    logger.info("it keeps running for the next commands; stop it with: stair-es node down")
    return url


def find_node_url(spec: NodeSpec) -> str | None:
    """Find the URL of the node if it runs and responds. Starts nothing, takes no lock and imports little: commands begin with it.

    Raises:
        NodeError: If the file with its state can't be read.
    """
    state = states.read_node_state(spec.state_file)
    if state is None or state.url is None or states.find_node_process(state) is None:
        return None
    return state.url if fetch_node_json(state.url, "/") else None


def start_node(spec: NodeSpec, progress: ProgressCallback | None = None) -> str:
    """Return the URL of the node of `spec.base`, started unless it is running. It keeps the data of earlier runs.

    A running node keeps its port and heap; if `spec` requests others, that is logged.

    Args:
        spec: The node.
        progress: Called with the bytes received and all bytes of a download, by one thread at a time.

    Raises:
        NodeError: If it cannot be downloaded or started, or its port is in use.
        MissingExtra: If the extra `node` is not installed.
    """
    from stair_es.embedded_node.file_lock import build_write_error, hold_lock

    try:
        make_private_folder(spec.base)
    except OSError as error:
        raise build_write_error(spec.base, error) from error
    with hold_lock(spec.lock_file, "starts or stops the embedded node"):
        state = states.read_node_state(spec.state_file)
        if state is None or states.find_node_process(state) is None:
            state = _start_process(spec, progress)
        elif state.url:
            logger.info("the embedded node is already running, at %s with a heap of %s", state.url, state.heap)
        return _wait_until_ready(spec, state)


def stop_node(spec: NodeSpec) -> bool:
    """Stop the node and wait until it has ended. Its data stays.

    Returns:
        Whether it was running.

    Raises:
        NodeError: If its process belongs to another user.
    """
    from stair_es.embedded_node.file_lock import hold_lock
    from stair_es.embedded_node.process import stop_process

    if not spec.base.exists():
        return False
    with hold_lock(spec.lock_file, "starts or stops the embedded node"):
        state = states.read_node_state(spec.state_file)
        running = state is not None and states.find_node_process(state) is not None
        if state is not None and not stop_process(state):
            logger.warning("process %s did not end in time and was killed; no acknowledged document is lost", state.pid)
        spec.state_file.unlink(missing_ok=True)
        return running


def get_node_status(spec: NodeSpec) -> NodeStatus:
    """Return the current state of the node. Starts and writes nothing."""
    state = states.read_node_state(spec.state_file)
    process = states.find_node_process(state) if state else None
    if state is None or process is None:
        return NodeStatus(state="stopped")
    is_responding = state.url is not None and fetch_node_json(state.url, "/") is not None
    return NodeStatus(
        state="running" if is_responding else "starting",
        url=state.url,
        pid=state.pid,
        opensearch=state.opensearch,
        heap=state.heap,
        uptime_s=round(time.time() - state.created_s, 1),
        rss_mb=round(process.memory_info().rss / 1e6, 1),
    )


def _start_process(spec: NodeSpec, progress: ProgressCallback | None) -> NodeState:
    from stair_es.embedded_node.distribution import ensure_distribution
    from stair_es.embedded_node.lockfile import load_node_lock
    from stair_es.embedded_node.process import start_process

    lock = load_node_lock()
    dist = ensure_distribution(lock, spec.dist, progress=progress)
    logger.info("starting the embedded node: OpenSearch %s, heap %s, data in %s", lock.opensearch, spec.heap, spec.data)
    return start_process(spec, dist=dist, opensearch=lock.opensearch)


def _wait_until_ready(spec: NodeSpec, state: NodeState) -> str:
    """Wait until it is ready. An interrupt (Ctrl-C) while it starts stops it again: no caller has its URL yet."""
    from stair_es.embedded_node.process import stop_process, wait_ready

    try:
        return str(wait_ready(spec, state).url)
    except KeyboardInterrupt:
        if state.url is None:
            stop_process(state)
            spec.state_file.unlink(missing_ok=True)
        raise

"""Which process is the node: its state file, whether that process still runs, and whether the node responds."""

from __future__ import annotations

import http.client
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from stair_es.errors import NodeError
from stair_es.optional import import_optional
from stair_es.system.user_files import read_json_file

_HEALTH_TIMEOUT_S = 5.0


def fetch_node_json(url: str, path: str) -> dict[str, Any] | None:
    """Return the JSON object that the node sends with status 200, or None. Ignores proxies of the environment.

    Does not use the search client, which takes half a second to import.
    """
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        value = json.loads(response.read())
        return value if response.status == 200 and isinstance(value, dict) else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
    finally:
        connection.close()


# The kernel and Python round times differently; process ids are not reused within this time.
_SAME_START_S = 2.0


@dataclass(frozen=True, kw_only=True)
class NodeState:
    """A started node."""

    pid: int
    created_s: float
    """Creation time of the process (seconds since the epoch): with `pid` it identifies the process."""
    url: str | None
    """None until the node responds."""
    opensearch: str
    heap: str


def read_node_state(path: Path) -> NodeState | None:
    """Return the written state, or None if the file does not exist or is not a state file.

    Raises:
        NodeError: If the file exists but cannot be read.
    """
    try:
        value = read_json_file(path)
        return NodeState(
            pid=int(value["pid"]),
            created_s=float(value["created_s"]),
            url=None if value["url"] is None else str(value["url"]),
            opensearch=str(value["opensearch"]),
            heap=str(value["heap"]),
        )
    except (FileNotFoundError, ValueError, TypeError, KeyError):
        return None
    except OSError as error:
        raise NodeError(
            f"can't read {path}: {error.strerror}",
            "Set STAIR_ES_HOME to a folder that you own, or run as the owner of this one.",
            code="node-state-unreadable",
        ) from error


def write_node_state(path: Path, state: NodeState) -> None:
    """Replace the file atomically: a reader sees the old or the new one."""
    scratch = path.with_name(f"{path.name}.{os.getpid()}")
    scratch.write_text(json.dumps(asdict(state)), encoding="utf-8")
    scratch.replace(path)


def find_node_process(state: NodeState) -> Any | None:  # noqa: ANN401  psutil ships no types
    """Return the live process (`psutil.Process`), or None if it ended, even if its id has been reused since."""
    psutil = import_optional("psutil", "node")
    try:
        process = psutil.Process(state.pid)
        if abs(process.create_time() - state.created_s) > _SAME_START_S or process.status() == psutil.STATUS_ZOMBIE:
            return None
    except psutil.NoSuchProcess:
        return None
    return process

"""The HTTP port of a node: drawn at random once per data folder, so that its URL is stable and unknown to web pages."""

from __future__ import annotations

import logging
import secrets
import socket
from pathlib import Path

from stair_es.embedded_node.spec import ENV_PORT
from stair_es.errors import NodeError

logger = logging.getLogger(__name__)

_MIN_PORT, _MAX_PORT = 10_000, 32_767
"""Below the ephemeral ports of operating systems, one of which could be in use at the next start."""
_BLOCKED_BY_BROWSERS = 10_080
_MAX_DRAWS = 100


def ensure_port(path: Path) -> int:
    """Return the port in the file. Draw and write one if there is none or it is in use."""
    old_port = read_port(path)
    if old_port is not None and is_port_free(old_port):
        return old_port
    port = _draw_free_port()
    path.write_text(f"{port}\n", encoding="ascii")
    if old_port is not None:
        logger.warning("port %s is used by another program: the embedded node uses port %s from now on", old_port, port)
    return port


def read_port(path: Path) -> int | None:
    """Return the drawn port, or None before the first start."""
    try:
        port = int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None
    return port if _MIN_PORT <= port <= _MAX_PORT else None


def is_port_free(port: int) -> bool:
    """Return whether a server could listen on this port of the loopback interface.

    Raises:
        NodeError: If the port requires root.
    """
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except PermissionError:
            raise NodeError(f"port {port} requires root", "Choose a port >= 1024.", code="port-forbidden") from None
        except OSError:
            return False
    return True


def check_port_free(port: int | None) -> None:
    """Raise NodeError if a requested port is in use: the server would need seconds to find out."""
    if port and not is_port_free(port):
        raise build_port_error(port)


def build_port_error(port: int | None) -> NodeError:
    """Return the error for a port in use; None for the node's own port."""
    name = "the port of the embedded node" if port is None else f"port {port} of 127.0.0.1"
    return NodeError(
        f"{name} is used by another program",
        f"Choose another: stair-es node up --port N (0 for any free port), or set {ENV_PORT}.",
        code="port-in-use",
    )


def _draw_free_port() -> int:
    for _ in range(_MAX_DRAWS):
        port = _MIN_PORT + secrets.randbelow(_MAX_PORT - _MIN_PORT + 1)
        if port != _BLOCKED_BY_BROWSERS and is_port_free(port):
            return port
    raise build_port_error(None)

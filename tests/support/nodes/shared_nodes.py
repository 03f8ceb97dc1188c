"""The search nodes of a test run: one of each kind, for all workers of pytest-xdist.

::

    nodes = SharedNodes(start_node)  # in the process that outlives all others: pytest, or the controller of its workers
    address = nodes.serve()
    url = request_node(address, "plugin", folder)  # in any process, as often as it likes

A node starts when the first test asks for it, and ends with the process that started it, even if that is killed (Linux).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import partial
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from support.nodes.node_process import SearchNode

__all__ = ["SharedNodes", "request_node", "start_node"]

_THREADS = 8
"""How many nodes start at a time: at least one thread for each kind."""


class SharedNodes:
    """The owner of the nodes."""

    def __init__(self, start: Callable[[str, Path], AbstractContextManager[str]]) -> None:
        """Start nothing yet; `start` starts the node of a kind in a folder and yields its URL."""
        self._start = start
        self._executor = ThreadPoolExecutor(_THREADS, "nodes")  # a node dies with its thread, and these stay until `close`
        self._started: dict[str, Future[str]] = {}
        self._running = ExitStack()

    def serve(self) -> str:
        """Return the address at which other processes reach this object."""
        listener = Listener()
        threading.Thread(target=self._accept_requests, args=(listener,), daemon=True).start()
        return str(listener.address)

    def close(self) -> None:
        """Kill the nodes."""
        self._executor.shutdown()
        self._running.close()

    def _accept_requests(self, listener: Listener) -> None:
        while True:
            connection = listener.accept()
            try:
                kind, folder = connection.recv()
            except (EOFError, OSError):  # the worker was killed before it asked
                connection.close()
                continue
            if kind not in self._started:
                self._started[kind] = self._executor.submit(self._start_kind, kind, folder)
            self._started[kind].add_done_callback(partial(_send_reply, connection))

    def _start_kind(self, kind: str, folder: Path) -> str:
        node = self._start(kind, folder)
        url = node.__enter__()
        self._running.push(node)
        return url


def _send_reply(connection: Connection, started: Future[str]) -> None:
    with suppress(OSError), connection:  # the worker may be gone
        connection.send(started.exception() or started.result())


def request_node(address: str, kind: str, folder: Path) -> str:
    """Return the URL of the node of this kind, started in `folder` unless it is there.

    Raises:
        LookupError: If this machine lacks something that the node needs.
    """
    with Client(address) as connection:
        connection.send((kind, folder))
        reply: str | BaseException = connection.recv()
    if isinstance(reply, BaseException):
        raise reply
    return reply


@contextmanager
def start_node(kind: str, folder: Path) -> Iterator[str]:
    """Start a node and yield its URL: `elasticsearch7` to `9`, `plugin`; an embedded node by any other name.

    Raises:
        LookupError: If there is no JDK for Elasticsearch 8 and 9.
    """
    from support.nodes import elasticsearch_nodes, opensearch_nodes, search_nodes

    builders: dict[str, Callable[[Path], SearchNode]] = {
        "elasticsearch7": partial(elasticsearch_nodes.build_elasticsearch, elasticsearch_nodes.SEVEN),
        "elasticsearch8": partial(elasticsearch_nodes.build_elasticsearch, elasticsearch_nodes.EIGHT),
        "elasticsearch9": partial(elasticsearch_nodes.build_elasticsearch, elasticsearch_nodes.NINE, with_stand_in=True),
        "plugin": opensearch_nodes.build_plugin_node,
    }
    if kind in builders:
        with builders[kind](folder) as node:
            yield node.url
    else:
        with search_nodes.start_embedded_node(folder) as url:
            yield url

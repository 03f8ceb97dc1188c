"""opensearch-py without its asynchronous half: all other modules import the client from here.

The asynchronous half imports aiohttp, which takes a process as long as the rest of the client. opensearch-py works without
aiohttp, so it doesn't find it here. A program that uses `AsyncOpenSearch` as well gets it when it first asks for it.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from importlib import import_module
from importlib.abc import MetaPathFinder
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

__all__ = ["OpenSearch", "Urllib3AWSV4SignerAuth", "Urllib3HttpConnection", "exceptions"]

_HIDDEN = ("aiohttp", "yarl")
_ASYNC_HOMES = {
    "AsyncOpenSearch": "opensearchpy._async.client",
    "AIOHttpConnection": "opensearchpy._async.http_aiohttp",
    "AsyncConnection": "opensearchpy._async.http_aiohttp",
    "AsyncTransport": "opensearchpy._async.transport",
    "AsyncHttpConnection": "opensearchpy.connection.http_async",
}
"""What opensearch-py lacks without them -> its module."""


class _HidingFinder(MetaPathFinder):
    """Lets imports fail in one thread as if the package weren't installed."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> None:
        """Find nothing, and for a hidden package keep the other finders from finding it."""
        if fullname in _HIDDEN and threading.get_ident() == self._thread:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


@contextmanager
def _hide_async_half() -> Iterator[None]:
    if "opensearchpy" in sys.modules or "aiohttp" in sys.modules:  # loaded by the program itself
        yield
        return
    finder = _HidingFinder()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
    for package in (sys.modules["opensearchpy"], sys.modules["opensearchpy.connection"]):
        vars(package).setdefault("__getattr__", _load_async_name)


def _load_async_name(name: str) -> object:
    """Import what the package lacks when it is first requested (PEP 562)."""
    if name not in _ASYNC_HOMES:
        raise AttributeError(f"module 'opensearchpy' has no attribute {name!r}")
    return getattr(import_module(_ASYNC_HOMES[name]), name)


try:
    with _hide_async_half():
        from opensearchpy import OpenSearch, Urllib3AWSV4SignerAuth, Urllib3HttpConnection, exceptions
except ModuleNotFoundError:  # old versions need aiohttp
    from opensearchpy import OpenSearch, Urllib3AWSV4SignerAuth, Urllib3HttpConnection, exceptions

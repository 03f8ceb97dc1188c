"""The locked jars: fetched through jgo's resolver, taken only if size and SHA-256 are the locked ones.

jgo alone isn't enough: it writes in place, so a killed fetch leaves a truncated jar, which it takes without a word the next
time. No pom is read at run time: the lock file already says which jars there are.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from stair_es.errors import NodeError
from stair_es.extras import need

from .lockfile import Jar, Lock

Advance = Callable[[int], None]
Source = Callable[[Jar, Advance], Path]
"""Brings one jar, from the cache or from afar; reports the bytes that came in."""

_WORKERS = 8
_REQUEST_TIMEOUT_S = 60


def fetch(lock: Lock, source: Source, advance: Advance) -> dict[str, Path]:
    """Coordinates -> a file with exactly the locked content, for every jar.

    Raises:
        NodeError: A jar can't be had, or comes with another content twice.
    """
    jars = {jar.coordinates: jar for jar in lock.jars}
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending = {pool.submit(_obtain, jar, source, advance): jar for jar in jars.values()}
        try:
            return {pending[done].coordinates: done.result() for done in as_completed(pending)}
        finally:  # after an error or Ctrl-C, what hasn't begun needn't begin
            pool.shutdown(wait=False, cancel_futures=True)


def defect(path: Path, jar: Jar) -> str | None:
    """What distinguishes the file from the locked jar, or None."""
    wrong_size = size_defect(path, jar)
    if wrong_size:
        return wrong_size
    with path.open("rb") as file:
        hashed = hashlib.sha256()
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    actual = hashed.hexdigest()
    return None if actual == jar.sha256 else f"SHA-256 {actual} instead of {jar.sha256}"


def size_defect(path: Path, jar: Jar) -> str | None:
    """Like `defect`, without reading the file."""
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        return "missing"
    return None if actual == jar.size_bytes else f"{actual} bytes instead of {jar.size_bytes}"


def maven(cache: Path) -> Source:
    """The source that fetches from Maven's public repository into `cache`.

    Raises:
        MissingExtra: The extra `node` isn't installed.
    """
    jgo = need("jgo.maven", "node")

    def bring(jar: Jar, advance: Advance) -> Path:
        seen = 0

        @contextmanager
        def report(_name: str, _size: int) -> Iterator[Advance]:
            def count(received: int) -> None:
                nonlocal seen
                seen += received
                advance(received)

            yield count

        context = jgo.MavenContext(
            repo_cache=cache, timeout=_REQUEST_TIMEOUT_S, resolver=jgo.PythonResolver(progress_callback=report)
        )
        path = Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
        advance(max(0, jar.size_bytes - seen))  # from the cache, or from a server that doesn't say the size
        return path

    return bring


def _obtain(jar: Jar, source: Source, advance: Advance) -> Path:
    wrong: str | None = None
    for _attempt in range(2):
        try:
            path = source(jar, advance)
        except (OSError, RuntimeError) as error:  # what requests and jgo raise
            raise NodeError(
                f"can't fetch {jar.coordinates}: {error}",
                "The first start needs the internet (later ones don't). Behind a proxy set HTTPS_PROXY, and try again: "
                "what was fetched is kept.",
            ) from error
        wrong = defect(path, jar)
        if wrong is None:
            return path
        path.unlink(missing_ok=True)
    raise NodeError(
        f"{jar.coordinates} is not the file that the lock names: {wrong}",
        "It was fetched twice, so something on the way alters it (a proxy, a mirror). Nothing of it is used. "
        "Try from another network.",
    )

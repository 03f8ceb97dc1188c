"""Download the locked jars with jgo's resolver; accept only files with the locked size and SHA-256.

jgo alone is not enough: it writes in place, so an aborted download leaves a truncated jar, which it silently accepts the next
time. No pom is read at run time: the lock file lists all jars.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from stair_es.embedded_node.lockfile import Jar, NodeLock
from stair_es.errors import NodeError
from stair_es.optional import import_optional

BytesCallback = Callable[[int], None]
JarSource = Callable[[Jar, BytesCallback], Path]
"""Returns the path of one jar, cached or downloaded; reports the bytes received."""

_WORKERS = 8
_REQUEST_TIMEOUT_S = 60


def fetch_jars(lock: NodeLock, source: JarSource, advance: BytesCallback) -> dict[str, Path]:
    """Download all jars. `advance` gets the number of bytes received.

    Returns:
        Coordinates -> a file with exactly the locked content.

    Raises:
        NodeError: If a jar cannot be downloaded, or does not match the lock file twice.
    """
    jars = {jar.coordinates: jar for jar in lock.jars}
    with ThreadPoolExecutor(_WORKERS) as pool:
        pending = {pool.submit(_fetch_verified, jar, source, advance): jar for jar in jars.values()}
        try:
            return {pending[future].coordinates: future.result() for future in as_completed(pending)}
        finally:  # after an error or Ctrl-C, cancel downloads that have not started
            pool.shutdown(wait=False, cancel_futures=True)


def find_jar_defect(path: Path, jar: Jar) -> str | None:
    """Return how the file differs from the locked jar, or None."""
    wrong_size = find_size_defect(path, jar)
    if wrong_size:
        return wrong_size
    with path.open("rb") as file:
        hashed = hashlib.sha256()
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    actual = hashed.hexdigest()
    return None if actual == jar.sha256 else f"SHA-256 {actual} instead of {jar.sha256}"


def find_size_defect(path: Path, jar: Jar) -> str | None:
    """Return how the file's size differs from the locked jar, or None, without reading it."""
    try:
        actual = path.stat().st_size
    except FileNotFoundError:
        return "missing"
    return None if actual == jar.size_bytes else f"{actual} bytes instead of {jar.size_bytes}"


def build_maven_source(cache: Path) -> JarSource:
    """Return a source that downloads from Maven Central into `cache`.

    Raises:
        MissingExtra: If the extra `node` is not installed.
    """
    jgo = import_optional("jgo.maven", "node")

    def fetch_jar(jar: Jar, advance: BytesCallback) -> Path:
        received_bytes = 0

        @contextmanager
        def report_progress(_name: str, _size: int) -> Iterator[BytesCallback]:
            def count_bytes(count: int) -> None:
                nonlocal received_bytes
                received_bytes += count
                advance(count)

            yield count_bytes

        context = jgo.MavenContext(
            repo_cache=cache, timeout=_REQUEST_TIMEOUT_S, resolver=jgo.PythonResolver(progress_callback=report_progress)
        )
        path = Path(context.project(jar.group, jar.artifact).at_version(jar.version).artifact().resolve())
        advance(max(0, jar.size_bytes - received_bytes))  # from the cache, or from a server that does not send the size
        return path

    return fetch_jar


def _fetch_verified(jar: Jar, source: JarSource, advance: BytesCallback) -> Path:
    defect: str | None = None
    for _attempt in range(2):
        try:
            path = source(jar, advance)
        except (OSError, RuntimeError) as error:  # what requests and jgo raise
            raise NodeError(
                f"can't fetch {jar.coordinates}: {error}",
                "The first start requires internet access (later ones do not). Behind a proxy, set HTTPS_PROXY and try again: "
                "completed downloads are kept.",
            ) from error
        defect = find_jar_defect(path, jar)
        if defect is None:
            return path
        path.unlink(missing_ok=True)
    raise NodeError(
        f"{jar.coordinates} does not match the lock file: {defect}",
        "It was downloaded twice, so a proxy or a mirror may be altering it. It is not used. Try from another network.",
    )

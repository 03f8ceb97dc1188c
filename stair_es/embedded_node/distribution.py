"""The unpacked distribution: built in a temporary folder and renamed, so that an incomplete one is never used.

jgo's resolver downloads the locked jars, and only files with the locked size and SHA-256 are accepted. jgo alone is not enough:
it writes in place, so an aborted download leaves a truncated jar, which it silently accepts the next time. No pom is read at run
time: the lock file lists all jars.
"""

from __future__ import annotations

import hashlib
import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

from stair_es.embedded_node.file_lock import build_write_error, hold_lock
from stair_es.embedded_node.lockfile import Jar, NodeLock
from stair_es.errors import NodeError
from stair_es.optional import import_optional
from stair_es.types import ProgressCallback

logger = logging.getLogger(__name__)

BytesCallback = Callable[[int], None]
JarSource = Callable[[Jar, BytesCallback], Path]
"""Returns the path of one jar, cached or downloaded; reports the bytes received."""

_WORKERS = 8
_REQUEST_TIMEOUT_S = 60
_SCRATCH = ".tmp-"


def build_maven_source(cache: Path) -> JarSource:
    """Return a source that downloads from Maven Central into `cache`."""
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


def ensure_distribution(
    lock: NodeLock,
    dist: Path,
    make_source: Callable[[Path], JarSource] = build_maven_source,
    progress: ProgressCallback | None = None,
) -> Path:
    """Return the complete, verified distribution below `dist`. Download and build it if it is missing or damaged.

    `make_source` gets the cache folder, `progress` the bytes received and all bytes of a download, never concurrently.

    Raises:
        NodeError: If a jar cannot be downloaded or does not match the lock file, or `dist` cannot be written.
    """
    home = dist / lock.folder
    if home.is_dir() and find_corruption(lock, home) is None:
        return home
    with hold_lock(dist / ".lock", "is fetching the embedded node"):
        corruption = find_corruption(lock, home) if home.is_dir() else None
        if home.is_dir() and corruption is None:
            return home  # built by the other process
        if corruption:
            logger.warning("the embedded node's files are damaged (%s): rebuilding them", corruption)
        try:
            _build_distribution(lock, dist, make_source(dist / ".jars"), progress)
        except NodeError:
            raise
        except OSError as error:
            raise build_write_error(dist, error) from error
    return home


def find_corruption(lock: NodeLock, home: Path) -> str | None:
    """Return the first deviation from the lock file, or None. Reads every jar: 75 MB take about 0.1 s."""

    def find_defect(jar: Jar) -> str | None:
        defect = find_jar_defect(home / jar.path, jar)
        return defect and f"{jar.path}: {defect}"

    for module in lock.modules:
        path = home / "modules" / module.name / "plugin-descriptor.properties"
        if not path.is_file() or path.read_text(encoding="utf-8") != module.build_descriptor(lock.opensearch):
            return f"modules/{module.name}: wrong descriptor"
    with ThreadPoolExecutor(4) as pool:
        return next(filter(None, pool.map(find_defect, lock.jars)), None)


def _build_distribution(lock: NodeLock, dist: Path, source: JarSource, progress: ProgressCallback | None) -> None:
    for leftover in dist.glob(f"{_SCRATCH}*"):  # left by a killed process: this one holds the lock
        shutil.rmtree(leftover)
    logger.info("fetching the embedded node: OpenSearch %s, %.0f MB, once", lock.opensearch, lock.size_bytes / 1e6)
    received, guard = 0, threading.Lock()

    def add_bytes(count: int) -> None:
        nonlocal received
        with guard:
            received = min(received + count, lock.size_bytes)
            if progress is not None:
                progress(received, lock.size_bytes)

    files = fetch_jars(lock, source, add_bytes)
    scratch = dist / f"{_SCRATCH}{secrets.token_hex(4)}"
    for jar in lock.jars:
        _link_or_copy(files[jar.coordinates], scratch / jar.path)
    for module in lock.modules:
        descriptor = scratch / "modules" / module.name / "plugin-descriptor.properties"
        descriptor.write_text(module.build_descriptor(lock.opensearch), encoding="utf-8")
    for folder in ("bin", "config", "plugins"):  # the server would create missing ones for its own user only
        (scratch / folder).mkdir()
    home = dist / lock.folder
    if home.exists():
        home.rename(dist / f"{_SCRATCH}{secrets.token_hex(4)}")
    scratch.rename(home)
    for leftover in dist.glob(f"{_SCRATCH}*"):
        shutil.rmtree(leftover)


def _link_or_copy(source: Path, target: Path) -> None:
    """Create a hard link, or a copy where the file system does not support links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def fetch_jars(lock: NodeLock, source: JarSource, advance: BytesCallback) -> dict[str, Path]:
    """Download all jars. `advance` gets the number of bytes received.

    Returns:
        Coordinates -> a file with exactly the locked content.
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
    try:
        size_bytes = path.stat().st_size
    except FileNotFoundError:
        return "missing"
    if size_bytes != jar.size_bytes:
        return f"{size_bytes} bytes instead of {jar.size_bytes}"
    with path.open("rb") as file:
        hashed = hashlib.sha256()
        while chunk := file.read(1 << 20):
            hashed.update(chunk)
    actual = hashed.hexdigest()
    return None if actual == jar.sha256 else f"SHA-256 {actual} instead of {jar.sha256}"


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
                code="jar-not-fetched",
            ) from error
        defect = find_jar_defect(path, jar)
        if defect is None:
            return path
        path.unlink(missing_ok=True)
    raise NodeError(
        f"{jar.coordinates} does not match the lock file: {defect}",
        "It was downloaded twice, so a proxy or a mirror may be altering it. It is not used. Try from another network.",
        code="jar-checksum-mismatch",
    )

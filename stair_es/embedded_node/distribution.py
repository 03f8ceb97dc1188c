"""The unpacked distribution: built in a temporary folder and renamed, so that an incomplete one is never used."""

from __future__ import annotations

import logging
import os
import secrets
import shutil
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stair_es.embedded_node.download import JarSource, build_maven_source, fetch_jars, find_jar_defect, find_size_defect
from stair_es.embedded_node.file_lock import build_write_error, hold_lock
from stair_es.embedded_node.lockfile import Jar, NodeLock
from stair_es.errors import NodeError
from stair_es.types import ProgressCallback

logger = logging.getLogger(__name__)

_SCRATCH = ".tmp-"


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
        MissingExtra: If the extra `node` is not installed and something must be downloaded.
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

    wrong_size = next((jar for jar in lock.jars if find_size_defect(home / jar.path, jar)), None)
    if wrong_size:
        return find_defect(wrong_size)
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

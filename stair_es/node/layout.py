"""The distribution on disk: built beside its place and renamed into it, so that a half one is never in use."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stair_es.errors import NodeError

from .exclusive import exclusive, unwritable
from .lockfile import Jar, Lock
from .progress import shown
from .resolve import Source, defect, fetch, maven, size_defect

_SCRATCH = ".tmp-"


def ensure_layout(lock: Lock, dist: Path, say: Callable[[str], None], make_source: Callable[[Path], Source] = maven) -> Path:
    """The complete, verified distribution below `dist`; fetched and built if it is absent, built anew if it is damaged.

    Raises:
        NodeError: A jar can't be had or is not the locked one; `dist` can't be written.
        MissingExtra: The extra `node` isn't installed and there is something to fetch.
    """
    home = dist / lock.folder
    if home.is_dir() and damage(lock, home) is None:
        return home
    with exclusive(dist / ".lock", say, "is fetching the embedded node"):
        wrong = damage(lock, home) if home.is_dir() else None
        if home.is_dir() and wrong is None:
            return home  # the other process has built it
        if wrong:
            say(f"the embedded node's files are damaged ({wrong}): building them anew")
        try:
            _build(lock, dist, say, make_source(dist / ".jars"))
        except NodeError:
            raise
        except OSError as error:
            raise unwritable(dist, error) from error
    return home


def damage(lock: Lock, home: Path) -> str | None:
    """The first thing that isn't as locked, or None. Reads every jar: 75 MB take about a tenth of a second."""

    def wrong(jar: Jar) -> str | None:
        found = defect(home / jar.path, jar)
        return found and f"{jar.path}: {found}"

    quick = next((jar for jar in lock.jars if size_defect(home / jar.path, jar)), None)
    if quick:
        return wrong(quick)
    for module in lock.modules:
        path = home / "modules" / module.name / "plugin-descriptor.properties"
        if not path.is_file() or path.read_text(encoding="utf-8") != module.descriptor(lock.opensearch):
            return f"modules/{module.name}: wrong descriptor"
    with ThreadPoolExecutor(4) as pool:
        return next(filter(None, pool.map(wrong, lock.jars)), None)


def _build(lock: Lock, dist: Path, say: Callable[[str], None], source: Source) -> None:
    for left in dist.glob(f"{_SCRATCH}*"):  # of a process that was killed: whoever builds holds the lock
        shutil.rmtree(left)
    say(f"fetching the embedded node: OpenSearch {lock.opensearch}, {lock.size_bytes / 1e6:.0f} MB, once")
    with shown(lock.size_bytes, say) as advance:
        files = fetch(lock, source, advance)
    scratch = dist / f"{_SCRATCH}{secrets.token_hex(4)}"
    for jar in lock.jars:
        _place(files[jar.coordinates], scratch / jar.path)
    for module in lock.modules:
        descriptor = scratch / "modules" / module.name / "plugin-descriptor.properties"
        descriptor.write_text(module.descriptor(lock.opensearch), encoding="utf-8")
    for folder in ("bin", "config", "plugins"):  # the server makes those that are missing, for its own user alone
        (scratch / folder).mkdir()
    home = dist / lock.folder
    if home.exists():
        home.rename(dist / f"{_SCRATCH}{secrets.token_hex(4)}")
    scratch.rename(home)
    for left in dist.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left)


def _place(source: Path, target: Path) -> None:
    """A hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)

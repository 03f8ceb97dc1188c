"""Watch local folders: collect the files that were added, changed or deleted, once they are no longer being written."""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from stair_es.errors import SourceError
from stair_es.optional import import_optional
from stair_es.sources.image.isolated import get_readable_suffixes
from stair_es.sources.io.uris import has_suffix

SETTLE_S = 0.5
"""A file whose size and modification time stay the same for so long is complete."""
MAX_PATHS = 10_000
"""With more changes, the folders are listed as a whole: the system may have dropped others."""
_POLL_S = 0.1
_OTHER_SUFFIX = re.compile(r"\.[A-Za-z]\w{0,15}$", re.ASCII)
"""Of a file that is gone and wasn't an image, such as `.part`. Otherwise it may have been a folder."""
_START_TIMEOUT_S = 120.0


@dataclass(frozen=True, kw_only=True)
class FolderChanges:
    """Changes below watched folders."""

    paths: frozenset[str] = frozenset()
    """Files and folders that are there."""
    has_deleted: bool = False
    """Whether others are gone."""
    is_complete: bool = True
    """Whether these are all changes; otherwise only a listing shows them."""

    def __bool__(self) -> bool:
        return bool(self.paths) or self.has_deleted or not self.is_complete

    def merge(self, other: FolderChanges) -> FolderChanges:
        """Return these changes and others."""
        return FolderChanges(
            paths=self.paths | other.paths,
            has_deleted=self.has_deleted or other.has_deleted,
            is_complete=self.is_complete and other.is_complete,
        )


@dataclass
class _Seen:
    """A path that has changed, as it was last looked at."""

    state: tuple[int, int] | None
    """Size and modification time; None if it is gone."""
    since_s: float = field(default_factory=time.monotonic)


class FolderWatcher:
    """Collects changes in a thread, from the `with` statement on; folders may be replaced meanwhile."""

    def __init__(self, folders: Sequence[str]) -> None:
        """Set the folders.

        Raises:
            MissingExtra: If watchfiles isn't installed.
        """
        import_optional("watchfiles", "watch")
        self._folders, self._suffixes = folders, get_readable_suffixes(with_documents=True)
        self._seen: dict[str, _Seen] = {}
        self._lock = threading.Lock()
        self._is_complete, self._is_replaced = True, False
        self._identities = self._identify_folders()
        self._error: Exception | None = None

    def __enter__(self) -> FolderWatcher:
        self._start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stop()

    def take_changes(self, timeout_s: float) -> FolderChanges:
        """Wait for changes that have settled, for `timeout_s` seconds at most, and return them; empty if there are none.

        Raises:
            SourceError: If the folders can't be watched.
        """
        deadline_s = time.monotonic() + timeout_s
        while True:
            self._restart_if_replaced()
            changes = self._take_settled()
            if changes or time.monotonic() >= deadline_s:
                return changes
            time.sleep(_POLL_S)

    def _take_settled(self) -> FolderChanges:
        now_s, paths, has_deleted = time.monotonic(), set[str](), False
        with self._lock:
            is_complete, self._is_complete = self._is_complete, True
            for path, seen in list(self._seen.items()):
                if now_s - seen.since_s < SETTLE_S:
                    continue
                state = _read_state(path)
                if state != seen.state:  # without an event, as on some network drives
                    self._seen[path] = _Seen(state)
                    continue
                del self._seen[path]
                if state is None:
                    has_deleted = True
                else:
                    paths.add(path)
        return FolderChanges(paths=frozenset(paths), has_deleted=has_deleted, is_complete=is_complete)

    def _start(self) -> None:
        self._ended, started = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._collect, args=(started, self._ended), name="watch", daemon=True)
        self._thread.start()
        if not started.wait(_START_TIMEOUT_S) or self._error:
            reason = self._error or "no answer"
            raise SourceError(
                f"can't watch {', '.join(self._folders)}: {reason}",
                "If the system's limit is reached, raise it: sysctl fs.inotify.max_user_watches=1000000. Or set "
                "WATCHFILES_FORCE_POLLING=1.",
                code="watch-failed",
            )

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join()

    def _collect(self, started: threading.Event, ended: threading.Event) -> None:
        from watchfiles import Change, watch

        try:
            for changes in watch(
                *self._folders,
                watch_filter=None,
                debounce=200,
                stop_event=ended,
                rust_timeout=200,
                yield_on_timeout=True,
                raise_interrupt=False,
                ignore_permission_denied=True,
            ):
                started.set()
                with self._lock:
                    for change, path in changes:
                        if change == Change.deleted and path in self._folders:
                            self._is_replaced = True  # perhaps by one with the same number
                        if self._is_wanted(path, is_modified=change == Change.modified):
                            self._seen[path] = _Seen(_read_state(path))
                    if len(self._seen) > MAX_PATHS:
                        self._seen.clear()
                        self._is_complete = False
        except Exception as error:  # noqa: BLE001  shown by the thread that waits
            self._error = error
        finally:
            started.set()

    def _is_wanted(self, path: str, *, is_modified: bool) -> bool:
        """Return whether a path may be that of an image, or of a folder: a folder's own change follows from those in it."""
        if has_suffix(path, self._suffixes):
            return True
        if os.path.lexists(path):
            return not is_modified and os.path.isdir(path)  # noqa: PTH112
        return not _OTHER_SUFFIX.search(path)

    def _restart_if_replaced(self) -> None:
        """Watch again if a folder was replaced or mounted, or the thread has ended; everything may have changed then."""
        identities = self._identify_folders()
        if None in identities:  # perhaps it comes back
            return
        if self._is_replaced or identities != self._identities or not self._thread.is_alive():
            self._stop()
            self._error, self._is_replaced, self._identities = None, False, identities
            self._start()
            with self._lock:
                self._is_complete = False

    def _identify_folders(self) -> list[tuple[int, int] | None]:
        return [(found.st_dev, found.st_ino) if (found := _read_status(folder)) else None for folder in self._folders]


def _read_status(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)  # noqa: PTH116
    except OSError:
        return None


def _read_state(path: str) -> tuple[int, int] | None:
    status = _read_status(path)
    return (status.st_size, status.st_mtime_ns) if status else None

"""Dead letters: one JSON line per failed image, complete enough to retry it; and the source that reads them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from stair_es.config.defaults import DataDir
from stair_es.errors import IngestError, SourceError, StairError, UsageError
from stair_es.ingest.state import Outcome, get_timestamp
from stair_es.sources.base import ListingFailure, SourceItem, SourceOptions
from stair_es.sources.io import locator_registry
from stair_es.system.folders import make_private_folder

_REQUIRED_KEYS = frozenset({"uri", "source", "stage", "reason", "locator"})
_FOLDER = "dead-letters"
_MAX_LINE_BYTES = 16 * 1024 * 1024


def default_dead_letters_path(alias: str, home: DataDir | None = None) -> Path:
    """Return the path of the dead letters of a run that starts now, in `home` or the environment's data folder."""
    at = datetime.now(timezone.utc)
    return (home or DataDir.from_env()).path / _FOLDER / f"{alias}-{at:%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"


class DeadLetters:
    """The dead-letter file (JSONL) of a run, created with the first failed image.

    A line has `uri`, `source`, `stage`, `reason`, `at`, and what a retry needs: `index`, `locator`, `version`, `fields`.
    """

    def __init__(self, path: Path, alias: str, home: DataDir | None = None) -> None:
        """Set the path; the file is created later. Dead letters in the data folder `home` are private."""
        self.path = path
        self.alias = alias
        self._private_folder = (home or DataDir.from_env()).path / _FOLDER
        self.count = 0
        self._file: IO[str] | None = None

    def check_writable(self) -> None:
        """Create the folder and check that the file is writable. The letters of an earlier run stay.

        Raises:
            IngestError: If it is not writable, or holds something other than dead letters.
        """
        self._check_path(remove=False)

    def prepare_file(self) -> None:
        """Remove the letters of an earlier run, after the checks of `check_writable`.

        Raises:
            IngestError: If the file is not writable, holds something else, or is being written by another run.
        """
        self._check_path(remove=True)

    def _check_path(self, *, remove: bool) -> None:
        try:
            if self._is_device():
                return
            if self.path.is_file() and not _is_dead_letter_file(self.path):
                raise IngestError(f"{self.path} contains something other than dead letters", "Use another --dead-letters FILE.")
            if self.path.parent == self._private_folder:
                make_private_folder(self.path.parent)  # it contains captions and file names
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not os.path.lexists(self.path)
            if not (new or self.path.exists()):  # a dangling link: writing through it would create a file elsewhere
                return self.path.unlink() if remove else None
            with self._open_locked() as file:
                locked = _lock_file(file, exclusive=True)
                if remove and not locked:
                    raise IngestError(
                        f"another run is writing dead letters to {self.path}",
                        "Wait for it to end, or specify another --dead-letters FILE.",
                    )
                if locked and (new or remove):
                    self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._build_write_error(error) from error

    def _is_device(self) -> bool:
        """Return whether the path is a device or a pipe: then there is nothing to check or remove."""
        return self.path.exists() and not self.path.is_file() and not self.path.is_dir()

    def add(self, outcome: Outcome) -> None:
        """Write one line and flush it, so that it survives a crash of this process.

        Raises:
            IngestError: If the file can't be written.
        """
        item = outcome.item
        line: dict[str, Any] = {
            "uri": item.uri,
            "source": item.source,
            "stage": outcome.stage,
            "reason": outcome.reason,
            "at": get_timestamp(),
            "index": self.alias,
            "locator": item.locator.to_json(),
            "version": item.version,
            "fields": dict(item.fields),
        }
        try:
            if self._file is None:
                self._file = self._open_locked()
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            with suppress(IngestError):  # closing tries to write the same line
                self.close()
            raise self._build_write_error(error) from error
        self.count += 1

    def _open_locked(self) -> IO[str]:
        """Open the file for appending with a shared lock, so that no other run removes it."""
        while True:
            descriptor = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)  # locators may be signed URLs
            file = os.fdopen(descriptor, "a", encoding="utf-8")
            if not _lock_file(file, exclusive=False) or os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # removed between opening and locking: letters in it would be lost

    def _build_write_error(self, error: OSError) -> IngestError:
        return IngestError(
            f"can't write dead letters to {self.path}: {error.strerror or error}",
            "Free some space or fix the folder's permissions there, or specify another file: --dead-letters FILE",
        )

    def close(self) -> None:
        """Close the file, if it is open.

        Raises:
            IngestError: If the remaining lines can't be written.
        """
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise self._build_write_error(error) from error


def read_alias(path: Path) -> str | None:
    """Return the alias that the run of these dead letters wrote into; None if unknown."""
    try:
        with path.open("rb") as file:
            letter = json.loads(file.readline(_MAX_LINE_BYTES))
        alias = letter.get("index")
    except (OSError, ValueError, AttributeError):
        return None
    return alias if isinstance(alias, str) else None


def _lock_file(file: IO[str], *, exclusive: bool) -> bool:
    """Lock an open file: shared, or exclusively without waiting.

    Returns:
        Whether it is locked. Where file locks aren't supported (Windows, some network file systems), a shared lock counts as not
        held and an exclusive one as held.
    """
    if fcntl is None:
        return exclusive
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return exclusive
    return True


def _is_dead_letter_file(path: Path) -> bool:
    """Return whether the file is empty or begins with a dead letter; any other file must not be overwritten."""
    with path.open("rb") as file:
        line = file.readline(_MAX_LINE_BYTES).strip()
    try:
        letter = json.loads(line) if line else dict.fromkeys(_REQUIRED_KEYS)
    except ValueError:
        return False
    return isinstance(letter, dict) and letter.keys() >= _REQUIRED_KEYS


class _DeadLetterSource:
    """The images of a dead-letter file, to be retried under their original source."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = path.absolute().as_uri()
        self.ignored: Mapping[str, int] = {}

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        try:
            with self._path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield self._parse_line(number, line)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"can't read dead letters from {self._path}: {error}", "Specify a dead-letter file as written by an ingest."
            ) from error

    def _parse_line(self, number: int, line: str) -> SourceItem | ListingFailure:
        try:
            letter = json.loads(line)
            uri, source, locator = letter["uri"], letter["source"], letter["locator"]
            if locator is None:
                return ListingFailure(uri, source, "its bytes can only be read from its source: ingest that source again")
            return SourceItem(
                uri, source, locator_registry.restore_locator(locator), letter.get("version"), letter.get("fields") or {}
            )
        except (ValueError, KeyError, TypeError, AttributeError, StairError) as error:
            return ListingFailure(f"{self.uri}#{number}", self.uri, f"not a dead letter: {type(error).__name__}: {error}")


class DeadLettersKind:
    """The source kind `dead-letters`. It is requested by name (`ingest --retry-failed`), never detected."""

    name = "dead-letters"
    description = "the failed images of an earlier run (`ingest --retry-failed FILE`)"

    def can_open(self, argument: str) -> bool:
        """Return False: the kind is never detected from an argument."""
        return False

    def open(self, argument: str, options: SourceOptions) -> _DeadLetterSource:
        """Open a dead-letter file as a source.

        Raises:
            UsageError: If there is no such file, or it holds no dead letters.
        """
        path = Path(argument)
        if not path.is_file():
            raise UsageError(f"no dead-letter file {argument!r}", "The run that wrote it printed its name.")
        if not _is_dead_letter_file(path):
            raise UsageError(f"{argument!r} contains no dead letters", "The run that wrote them printed the name of the file.")
        return _DeadLetterSource(path)


KIND = DeadLettersKind()

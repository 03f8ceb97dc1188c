"""Dead letters: a line of JSON for each image that could not be taken in, complete enough to try it again."""

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

from stair_es.config import Home
from stair_es.errors import IngestError, SourceError, StairError, UsageError
from stair_es.folders import make_private
from stair_es.ingest.batch import Outcome, now
from stair_es.sources import places
from stair_es.sources.item import Item, SourceOptions, Unlisted

_SIGNS = frozenset({"uri", "source", "stage", "reason", "place"})
_FOLDER = "dead-letters"
_LONGEST_LINE = 16 * 1024 * 1024


def default_path(alias: str) -> Path:
    """Where the dead letters of a run into `alias` that begins now go, unless the user says."""
    at = datetime.now(timezone.utc)
    return Home.from_env().path / _FOLDER / f"{alias}-{at:%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"


class DeadLetters:
    """The JSONL file of a run; made with the first letter.

    A line has `uri`, `source`, `stage`, `reason`, `at`, and what another try needs: `index`, `place`, `version`, `fields`.
    """

    def __init__(self, path: Path, alias: str) -> None:
        """No file yet.

        Args:
            path: Where it will be.
            alias: What the run writes into: the `index` of each line.
        """
        self.path = path
        self.alias = alias
        self.count = 0
        self._file: IO[str] | None = None

    def check(self) -> None:
        """Make its folder, and see that the file can be written. An earlier run's letters stay.

        Raises:
            IngestError: It can't, or it holds something else.
        """
        self._check_place(remove=False)

    def prepare(self) -> None:
        """Remove the letters of an earlier run, after all that `check` does.

        Raises:
            IngestError: The file can't be written, holds something else, or another run is writing it.
        """
        self._check_place(remove=True)

    def _check_place(self, *, remove: bool) -> None:
        try:
            if self._is_special():
                return
            if self.path.is_file() and not _is_letters(self.path):
                raise IngestError(f"{self.path} holds something else than dead letters", "Name another --dead-letters FILE.")
            if self.path.parent == Home.from_env().path / _FOLDER:
                make_private(self.path.parent)  # captions and names of files are in it
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not os.path.lexists(self.path)
            if not (new or self.path.exists()):  # a dangling link: writing through it would make a file elsewhere
                return self.path.unlink() if remove else None
            with self._open_held() as file:
                alone = _lock_file(file, alone=True)
                if remove and not alone:
                    raise IngestError(
                        f"another run is writing dead letters to {self.path}",
                        "Wait for it to end, or name another --dead-letters FILE.",
                    )
                if alone and (new or remove):
                    self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _is_special(self) -> bool:
        """Whether it is a device or a pipe: there is nothing to check or to remove."""
        return self.path.exists() and not self.path.is_file() and not self.path.is_dir()

    def add(self, outcome: Outcome) -> None:
        """Write one line, at once: it must survive the death of this process.

        Raises:
            IngestError: The file can't be written.
        """
        item = outcome.item
        line: dict[str, Any] = {
            "uri": item.uri,
            "source": item.source,
            "stage": outcome.stage,
            "reason": outcome.reason,
            "at": now(),
            "index": self.alias,
            "place": item.place.to_json(),
            "version": item.version,
            "fields": dict(item.fields),
        }
        try:
            if self._file is None:
                self._file = self._open_held()
            self._file.write(json.dumps(line) + "\n")
            self._file.flush()
        except OSError as error:
            with suppress(IngestError):  # it would try to write the same line
                self.close()
            raise self._unwritable(error) from error
        self.count += 1

    def _open_held(self) -> IO[str]:
        """Open the file to append, and hold it: no other run removes it meanwhile."""
        while True:
            file = _open_to_append(self.path)
            if not _lock_file(file, alone=False) or os.fstat(file.fileno()).st_nlink:
                return file
            file.close()  # removed between the two steps: letters in it would be lost

    def _unwritable(self, error: OSError) -> IngestError:
        return IngestError(
            f"can't write dead letters to {self.path}: {error.strerror or error}",
            "Free some space or mend the folder's permissions there, or name another file: --dead-letters FILE",
        )

    def close(self) -> None:
        """Close the file, if there is one.

        Raises:
            IngestError: It couldn't be written to its end.
        """
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise self._unwritable(error) from error


def read_alias(path: Path) -> str | None:
    """What the run that left these dead letters wrote into; None if they don't say."""
    try:
        with path.open("rb") as file:
            letter = json.loads(file.readline(_LONGEST_LINE))
        alias = letter.get("index")
    except (OSError, ValueError, AttributeError):
        return None
    return alias if isinstance(alias, str) else None


def _lock_file(file: IO[str], *, alone: bool) -> bool:
    """Lock an open file with others or, without waiting, alone.

    Returns:
        Whether it is locked. Where there are no such locks (Windows, some network file systems), a lock with others isn't, and
        one alone is taken as given.
    """
    if fcntl is None:
        return alone
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB if alone else fcntl.LOCK_SH)
    except BlockingIOError:
        return False
    except OSError:
        return alone
    return True


def _open_to_append(path: Path) -> IO[str]:
    return open(path, "a", encoding="utf-8", opener=_private)


def _private(path: str, flags: int) -> int:
    """For the user's eyes alone: places may be signed URLs."""
    return os.open(path, flags, 0o600)


def _is_letters(path: Path) -> bool:
    """Nothing, or a dead letter, is in the first line: what else a user names by mistake must not be overwritten."""
    with path.open("rb") as file:
        line = file.readline(_LONGEST_LINE).strip()
    try:
        letter = json.loads(line) if line else dict.fromkeys(_SIGNS)
    except ValueError:
        return False
    return isinstance(letter, dict) and letter.keys() >= _SIGNS


class _Letters:
    """The images of a dead letter file, to be tried again under the source that they first came from."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.uri = path.absolute().as_uri()
        self.ignored: Mapping[str, int] = {}

    def items(self) -> Iterator[Item | Unlisted]:
        try:
            with self._path.open(encoding="utf-8") as lines:
                for number, line in enumerate(lines, 1):
                    if line.strip():
                        yield self._item(number, line)
        except (OSError, UnicodeDecodeError) as error:
            raise SourceError(
                f"can't read dead letters from {self._path}: {error}", "Name a file of dead letters as an ingest wrote it."
            ) from error

    def _item(self, number: int, line: str) -> Item | Unlisted:
        try:
            letter = json.loads(line)
            uri, source, place = letter["uri"], letter["source"], letter["place"]
            if place is None:
                return Unlisted(uri, source, "its bytes were only in the source that it came from: run that source again")
            return Item(uri, source, places.from_json(place), letter.get("version"), letter.get("fields") or {})
        except (ValueError, KeyError, TypeError, AttributeError, StairError) as error:
            return Unlisted(f"{self.uri}#{number}", self.uri, f"not a dead letter: {type(error).__name__}: {error}")


class Kind:
    """The source kind `dead-letters`: see `SourceKind`. It is asked for by name (`ingest --retry`), never guessed."""

    name = "dead-letters"
    description = "the JSONL that an earlier run left of images that it couldn't take in (`ingest --retry FILE`)"

    def claims(self, argument: str) -> bool:
        """See `SourceKind.claims`."""
        return False

    def open(self, argument: str, options: SourceOptions) -> _Letters:
        """See `SourceKind.open`."""
        path = Path(argument)
        if not path.is_file():
            raise UsageError(f"no dead letter file {argument!r}", "Its name was printed by the run that left it.")
        if not _is_letters(path):
            raise UsageError(f"{argument!r} holds no dead letters", "Its name was printed by the run that left it.")
        return _Letters(path)


KIND = Kind()

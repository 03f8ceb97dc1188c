"""Dead letters: JSON lines, each with a failed image or many of a source, complete enough to retry it; and their source."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from operator import ne
from pathlib import Path
from typing import IO, Any

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

from stair_es.config.defaults import DataDir
from stair_es.errors import IngestError, SourceError, StairError, UsageError
from stair_es.ingest.accounting.counted_images import LETTER_BYTES, STORED_BYTES, CountedImages, SourceLetters, redact_letter
from stair_es.ingest.state import Outcome, get_timestamp
from stair_es.sources.base import ListingFailure, Source, SourceItem, SourceOptions, UnreadableLocator, WalkOptions
from stair_es.sources.image.pages import is_document, list_pages
from stair_es.sources.io import locator_registry
from stair_es.sources.io.files import ListedFile
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.uris import STDIN_URI
from stair_es.sources.registry import open_source
from stair_es.system.folders import make_private_folder
from stair_es.system.user_files import open_regular_file, parse_json
from stair_es.types import Json

_REQUIRED_KEYS = frozenset({"uri", "source", "stage", "reason", "locator"})
_FOLDER = "dead-letters"
_MAX_LINE_BYTES = 16 * 1024 * 1024


def default_dead_letters_path(alias: str, home: DataDir | None = None) -> Path:
    """Return the path of the dead letters of a run that starts now, in `home` or the environment's data folder."""
    at = datetime.now(UTC)
    return (home or DataDir.from_env()).path / _FOLDER / f"{alias}-{at:%Y%m%d-%H%M%S}-{os.getpid()}.jsonl"


def list_dead_letter_files(alias: str, home: DataDir) -> list[Path]:
    """List the dead-letter files in the data folder whose run wrote into `alias`."""
    return [path for path in sorted((home.path / _FOLDER).glob("*.jsonl")) if read_alias(path) == alias]


class DeadLetters:
    """The dead-letter file (JSONL) of a run, created with the first failed image.

    A line has `uri`, `source`, `stage`, `reason`, `at`, and what a retry needs: `index`, `locator`, `version`, `fields`. The
    lines of a source are limited, since a small file can have millions of broken entries: further ones are counted, and one
    line with the number of `images` stands for those of one file and reason. Its locator reads the source again.
    """

    def __init__(self, path: Path, alias: str, home: DataDir | None = None) -> None:
        """Set the path; the file is created later. Dead letters in the data folder `home` are private."""
        self.path = path
        self.alias = alias
        self._private_folder = (home or DataDir.from_env()).path / _FOLDER
        self.count = 0
        self._letters: dict[str, SourceLetters] = {}
        self._rereads: dict[str, dict[str, Json]] = {}
        """URI of a source -> the locator with which a retry reads it again."""
        self._file: IO[str] | None = None

    def set_sources(self, sources: Sequence[Source], options: SourceOptions) -> None:
        """Set the sources of the run, and the options that they were opened with."""
        for source in sources:
            if isinstance(source, _DeadLetterSource):
                source.rereads = self._rereads
            elif source.uri != STDIN_URI and getattr(source, "can_reread", True):
                self._rereads[source.uri] = _build_source_locator(source.uri, options)

    def check_writable(self) -> None:
        """Create the folder; raise IngestError if the file isn't writable or has other contents. Earlier letters stay."""
        self._check_path(remove=False)

    def prepare_file(self) -> None:
        """Remove earlier letters; raise IngestError as `check_writable`, or if another run is writing to the file."""
        self._check_path(remove=True)

    def _check_path(self, *, remove: bool) -> None:
        try:
            if self.path.exists() and not (self.path.is_file() or self.path.is_dir()):
                return  # a device or a pipe: there is nothing to check or remove
            if self.path.is_file():
                self._check_contents()
            if self.path.parent == self._private_folder:
                make_private_folder(self.path.parent)  # it contains captions and file names
            self.path.parent.mkdir(parents=True, exist_ok=True)
            new = not os.path.lexists(self.path)
            if not (new or self.path.exists()):  # a dangling link: writing through it would create a file elsewhere
                return self.path.unlink() if remove else None
            with self._open_locked() as file:
                locked = _lock_file(file, exclusive=True)
                if remove and not locked:
                    raise self._build_in_use_error()
                if locked and (new or remove):
                    self.path.unlink(missing_ok=True)
        except OSError as error:
            raise self._build_write_error(error) from error

    def _check_contents(self) -> None:
        if not _is_dead_letter_file(self.path):
            raise IngestError(
                f"{self.path} contains something other than dead letters",
                "Use another --dead-letters FILE.",
                code="not-a-dead-letter-file",
            )

    def _build_in_use_error(self) -> IngestError:
        return IngestError(
            f"another run is writing dead letters to {self.path}",
            "Wait for it to end, or specify another --dead-letters FILE.",
            code="dead-letters-in-use",
        )

    def remove_images(self, is_removed: Callable[[str], bool]) -> int:
        """Remove the letters of images by their URIs, and return how many; a file without further letters is deleted.

        A killed process leaves either the old file or the new one.

        Raises:
            IngestError: If the file contains something else or can't be written, or a run is writing to it.
        """
        try:
            self._check_contents()
            with self._open_locked() as locked, self.path.open("rb") as file:
                if not _lock_file(locked, exclusive=True):
                    raise self._build_in_use_error()
                lines = list(file)
                left = [redact_letter(line, is_removed) for line in lines]
                kept = list(filter(None, left))
                if left != lines:
                    target = self.path.resolve()  # of a link: the file itself has the letters
                    replacement = target.with_name(f"{target.name}.part")
                    with os.fdopen(os.open(replacement, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as rest:
                        rest.writelines(kept)
                    replacement.replace(target)
                    if not kept:
                        self.path.unlink()
                return sum(map(ne, left, lines))
        except OSError as error:
            raise self._build_write_error(error) from error

    def add(self, outcome: Outcome) -> None:
        """Write one line and flush it, so that it survives a crash of this process."""
        item, letters = outcome.item, self._letters.setdefault(outcome.item.source, SourceLetters())
        locator = item.locator.to_json()
        must_write = locator is not None and item.source not in self._rereads  # nothing else can retry it
        line = ""
        if must_write or not letters.is_full:
            line = self._format_letter(item.uri, item.source, outcome, locator, version=item.version, fields=dict(item.fields))
        size_bytes = max(len(line), LETTER_BYTES)
        if must_write or size_bytes <= letters.bytes_left:
            letters.bytes_left -= size_bytes
            self._write_line(line)
        else:
            letters.count_image(outcome)
        self.count += 1

    def record_stored(self, source: str, images: int) -> None:
        """Record the number of images of a source that are stored: if most are, each failed one has its own line."""
        self._letters.setdefault(source, SourceLetters()).bytes_left += images * STORED_BYTES

    def is_counting(self, source: str) -> bool:
        """Return whether the failed images of a source are only counted by now."""
        return source in self._letters and self._letters[source].is_full

    def _format_letter(
        self, uri: str, source: str, failure: Outcome | CountedImages, locator: Mapping[str, Json] | None, **values: object
    ) -> str:
        letter = {"uri": uri, "source": source, "stage": failure.stage, "reason": failure.reason, "at": get_timestamp()}
        return json.dumps({**letter, "index": self.alias, "locator": locator, **values}) + "\n"

    def _write_line(self, line: str) -> None:
        try:
            if self._file is None:
                self._file = self._open_locked()
            self._file.write(line)
            self._file.flush()
        except OSError as error:
            with suppress(IngestError):  # closing tries to write the same line
                self._close_file()
            raise self._build_write_error(error) from error

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
            code="dead-letters-not-writable",
        )

    def close(self) -> None:
        """Write the lines of the images that were counted, and close the file, if it is open."""
        for source, letters in self._letters.items():
            groups, letters.groups = letters.groups, {}
            for group in groups.values():
                locator = self._rereads.get(source)
                self._write_line(
                    self._format_letter(group.uri, source, group, locator, version=None, fields={}, images=group.images)
                )
        self._close_file()

    def _close_file(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            try:
                file.close()
            except OSError as error:
                raise self._build_write_error(error) from error


def read_alias(path: Path) -> str | None:
    """Return the alias that the run of these dead letters wrote into; None if unknown."""
    try:
        with open_regular_file(path) as file:
            letter = parse_json(file.readline(_MAX_LINE_BYTES).decode())
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
        letter = parse_json(line.decode()) if line else dict.fromkeys(_REQUIRED_KEYS)
    except ValueError:
        return False
    return isinstance(letter, dict) and letter.keys() >= _REQUIRED_KEYS


def _build_source_locator(uri: str, options: SourceOptions) -> dict[str, Json]:
    """Return the locator of all images of a source, from which `_parse_source_locator` restores the options."""
    return {
        "kind": "source",
        "uri": uri,
        "format": options.format,
        "columns": dict(options.columns),
        "image_column": options.image_column,
        "hidden": options.walk.hidden,
        "follow_links": options.walk.follow_links,
        "skip_raw_pairs": options.walk.skip_raw_pairs,
    }


def _parse_source_locator(locator: Mapping[str, Json], options: SourceOptions) -> tuple[str, SourceOptions]:
    """Return the argument of a source and its options, the others being those of `options`."""
    match locator:
        case {
            "uri": str(uri),
            "format": str() | None as format_,
            "columns": dict(values),
            "image_column": str() | None as image_column,
            "hidden": bool(hidden),
            "follow_links": bool(follow_links),
        }:
            skip_raw_pairs = bool(locator.get("skip_raw_pairs"))
            walk = WalkOptions(hidden=hidden, follow_links=follow_links, skip_raw_pairs=skip_raw_pairs)
            columns = {name: str(column) for name, column in values.items()}
            return uri, replace(options, format=format_, columns=columns, image_column=image_column, walk=walk)
    raise ValueError("not the locator of a source")


class _DeadLetterSource:
    """The images of a dead-letter file, to be retried under their original source."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._path, self._options = path, options
        self.rereads: dict[str, dict[str, Json]] = {}
        """URI of a source that is read again -> its locator."""
        self.uri = path.absolute().as_uri()
        self.ignored: Mapping[str, int] = {}

    def list_items(self) -> Iterator[SourceItem | ListingFailure]:
        """Yield the images of the sources to read again first: only then is it known which other letters are left."""
        for reads_sources in (True, False):
            for number, line in self._read_lines():
                try:
                    letter = parse_json((line or b"").decode())
                    if _names_source(letter) == reads_sources:
                        yield from self._read_source(letter) if reads_sources else self._parse_letter(letter)
                except (ValueError, TypeError, StairError) as error:
                    if not reads_sources:
                        reason = f"not a dead letter: {type(error).__name__}: {error}"
                        yield ListingFailure(f"{self.uri}#{number}", self.uri, reason)

    def _read_lines(self) -> Iterator[tuple[int, bytes | None]]:
        try:
            with self._path.open("rb") as file:
                yield from read_numbered_lines(file, _MAX_LINE_BYTES)
        except OSError as error:
            raise SourceError(
                f"can't read dead letters from {self._path}: {error}",
                "Specify a dead-letter file as written by an ingest.",
                code="dead-letters-unreadable",
            ) from error

    def _parse_letter(self, letter: Mapping[str, Any]) -> Iterator[SourceItem | ListingFailure]:
        """Yield the image of a letter, unless its source was read again and is the only one that has its bytes."""
        match letter:
            case {"uri": str(uri), "source": str(source), "locator": None}:
                if source not in self.rereads:
                    reason = "its bytes can only be read from its source: ingest that source again"
                    yield ListingFailure(uri, source, reason)
            case {"uri": str(uri), "source": str(source), "locator": dict(locator)}:
                restored = locator_registry.restore_locator(locator)
                if is_document(uri):
                    yield from list_pages(
                        ListedFile(uri, restored, version=letter.get("version")), source, self._options.read_limits
                    )
                else:
                    yield SourceItem(uri, source, restored, letter.get("version"), letter.get("fields") or {})
            case _:
                raise ValueError("it has no URI, source or locator")

    def _read_source(self, letter: Mapping[str, Any]) -> Iterator[SourceItem | ListingFailure]:
        """Read a source again, once for all letters with images of it; those that are stored count as unchanged."""
        uri, source, locator = letter["uri"], letter["source"], letter["locator"]
        if source in self.rereads:
            return
        try:
            argument, options = _parse_source_locator(locator, self._options)
            self.rereads[source] = locator
            for found in open_source(argument, options).list_items():
                yield replace(found, source=source)
        except (ValueError, StairError) as error:
            reason = error.message if isinstance(error, StairError) else str(error)
            yield SourceItem(uri, source, UnreadableLocator(f"its source can't be read again: {reason}", locator))


def _names_source(letter: Any) -> bool:  # noqa: ANN401  JSON
    """Return whether a letter stands for many images of a source."""
    match letter:
        case {"uri": str(), "source": str(), "locator": {"kind": "source"}}:
            return True
    return False


class DeadLettersKind:
    """The source kind `dead-letters`. It is requested by name (`ingest --retry-failed`), never detected."""

    name = "dead-letters"
    description = "the failed images of an earlier run (`ingest --retry-failed FILE`)"

    def can_open(self, argument: str) -> bool:
        """Return False: the kind is never detected from an argument."""
        return False

    def open(self, argument: str, options: SourceOptions) -> _DeadLetterSource:
        """Open a dead-letter file as a source."""
        path = Path(argument)
        if not path.is_file():
            raise UsageError(
                f"no dead-letter file {argument!r}", "The run that wrote it printed its name.", code="no-dead-letter-file"
            )
        if not _is_dead_letter_file(path):
            raise UsageError(
                f"{argument!r} contains no dead letters",
                "The run that wrote them printed the name of the file.",
                code="not-a-dead-letter-file",
            )
        return _DeadLetterSource(path, replace(options, format=None))


KIND = DeadLettersKind()

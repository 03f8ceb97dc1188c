"""Read a log of searches: one a line, with or without a count."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from stair_es.errors import SourceError, UsageError
from stair_es.search.query_encoder import MAX_READ_CHARS
from stair_es.sources.base import ListingFailure
from stair_es.sources.io.lines import read_numbered_lines
from stair_es.sources.io.open_file import create_file_lister, open_unpacked

MAX_LOG_LINES = 100_000
"""Different lines that are kept; further ones are left out."""
_COUNT = r"\s*(?P<count>[0-9]{1,12})"
_TABBED = (re.compile(rf"{_COUNT}\t(?P<query>.*)"), re.compile(rf"(?P<query>.*)\t{_COUNT}\s*"))
_NUMBERED = re.compile(rf"{_COUNT}(?:\s+(?P<query>.*))?")


@dataclass(frozen=True, kw_only=True)
class SearchLog:
    """The searches of a log."""

    searches: Mapping[str, int]
    """Query -> how often it was searched, the most frequent first."""
    skipped: Mapping[str, int]
    """Reason -> number of lines that were skipped."""
    left_out: int
    """Number of lines beyond `MAX_LOG_LINES` different ones."""


def read_search_log(argument: str) -> SearchLog:
    """Read a text file, local or remote, or standard input for `-`; decompressed if its name ends with `.gz`.

    Raises:
        UsageError: If there is no such file, or no search in it.
        SourceError: If it can't be read.
    """
    lines, skipped, left_out = Counter[str](), Counter[str](), 0
    for line in _read_lines(argument):
        if line is None:
            skipped[f"longer than {MAX_READ_CHARS:,} bytes"] += 1
            continue
        try:
            text = line.decode()
        except UnicodeDecodeError:
            skipped["not UTF-8"] += 1
            continue
        if text in lines or len(lines) < MAX_LOG_LINES:
            lines[text] += 1
        else:
            left_out += 1
    log = SearchLog(searches=count_searches(lines), skipped=skipped, left_out=left_out)
    if not log.searches:
        reasons = "".join(f"; lines skipped ({reason}): {count:,}" for reason, count in skipped.items())
        raise UsageError(
            f"no search in {argument!r}{reasons}",
            "Give a text file with one search a line, in UTF-8; - for standard input.",
            code="no-searches",
        )
    return log


def _read_lines(argument: str) -> Iterable[bytes | None]:
    """Yield the lines that aren't empty; None instead of one that is too long."""
    for found in create_file_lister(argument, frozenset()).list_files():
        if isinstance(found, ListingFailure):
            raise SourceError(f"{found.uri} can't be read: {found.reason}", "Check the path.", code="file-unreadable")
        with open_unpacked(found) as file:
            yield from (line for _, line in read_numbered_lines(file, MAX_READ_CHARS))


def count_searches(lines: Mapping[str, int]) -> dict[str, int]:
    """Count the searches of lines, which are given with the number of times each occurs; the most frequent first.

    A number before or after a tab is a count. So is one before blanks if most lines begin with a number, and one of them with
    blanks before it: `sort | uniq -c` writes this.
    """
    numbered = [line for line in lines if _NUMBERED.fullmatch(line)]
    has_numbers = 2 * len(numbered) > len(lines) and any(line[0].isspace() for line in numbered)
    patterns = (*_TABBED, _NUMBERED) if has_numbers else _TABBED
    searches = Counter[str]()
    for line, times in lines.items():
        match = next((found for pattern in patterns if (found := pattern.fullmatch(line))), None)
        query, count = (match["query"] or "", int(match["count"])) if match else (line, 1)
        searches[" ".join(query.split())] += times * count
    return {query: count for query, count in searches.most_common() if query and count}

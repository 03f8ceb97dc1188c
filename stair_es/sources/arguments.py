"""What a SOURCE argument looks like: its scheme, and the suffixes that name containers of images."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_PACKED = ("", ".gz")

PARQUET = frozenset({".parquet", ".pq"})
CSV = frozenset(suffix + packed for suffix in (".csv", ".tsv") for packed in _PACKED)
JSONL = frozenset(suffix + packed for suffix in (".jsonl", ".ndjson") for packed in _PACKED)
TAR = frozenset({".tar", ".tar.gz", ".tgz"})
LIST = frozenset({".txt", ".txt.gz"})
CONTAINERS = PARQUET | CSV | JSONL | TAR | LIST


def scheme_of(argument: str) -> str:
    """The scheme in lower case; empty for a local path."""
    match = _SCHEME.match(argument)
    return match[1].lower() if match else ""


def ends_with(argument: str, suffixes: frozenset[str]) -> bool:
    """Whether the argument names such files by its suffix, `?query` of a web address left aside."""
    text = urlsplit(argument).path if scheme_of(argument) in ("http", "https") else argument
    return text.lower().endswith(tuple(suffixes))


def names_container(argument: str) -> bool:
    """Whether it looks like a table, a tar or a list."""
    return ends_with(argument, CONTAINERS)

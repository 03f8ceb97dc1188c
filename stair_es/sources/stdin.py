"""The source kind `stdin`: a list on standard input. With `--format jsonl` or `csv`, `-` is a table instead."""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.errors import UsageError
from stair_es.sources.item import Source, SourceOptions
from stair_es.sources.lists import Lines
from stair_es.sources.opened import StdinFiles


@dataclass(frozen=True)
class StdinKind:
    """Opens `-`."""

    name: str = "stdin"
    description: str = "- : URLs and paths on standard input, one a line (or --format jsonl, csv)"

    def claims(self, argument: str) -> bool:
        """`-` alone."""
        return argument == "-"

    def open(self, argument: str, options: SourceOptions) -> Source:
        """The source; nothing is read yet.

        Raises:
            UsageError: It isn't `-`.
        """
        if argument != "-":
            raise UsageError(f"standard input is -, not {argument!r}", "Write - as SOURCE, or leave --format out.")
        return Lines(StdinFiles(), options)


KIND = StdinKind()

"""What a Markdown page shows: its fenced blocks, and the commands with the output shown below them.

markdown-it-py (which rich brings along) finds the blocks. The frames that were looked at don't fit: a page here is one shell and
one cluster, in which commands, servers, Python and requests follow each other. Sybil (MIT, alive) has the block as its
unit, finds blocks by expressions that don't know lists, and would leave all evaluators to us; pytest-markdown-docs and
pytest-examples know Python only; mktestdocs runs bash without looking at what is printed; prysk and cram have a format of
their own.

::

    ```console expect=free        what is shown isn't compared: it differs from machine to machine
    ```toml title=stair-es.toml   is written to this file
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field

from markdown_it import MarkdownIt

_PROMPT = "$ "
_EXIT = re.compile(r"#.*\bexit(?:s| code)(?: with)? (\d+)")
_HEREDOC = re.compile(r"<<-?\s*(['\"]?)(\w+)\1")
_SPECIAL = re.compile(r"\{.*\}")


@dataclass(frozen=True, kw_only=True)
class Block:
    """A fenced block. `line` is that of its first content, counted from 1."""

    language: str
    text: str
    line: int
    options: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command, and the lines that the page shows below it."""

    text: str
    shown: tuple[str, ...]
    line: int

    def accepts_exit_code(self, code: int) -> bool:
        """0; what a comment says (`# exits with 3`); anything else below which an error is shown."""
        match = _EXIT.search(self.text)
        if match:
            return code == int(match[1])
        return (code != 0) == any(re.match(r"error(\[[a-z0-9-]+\])?: ", line) for line in self.shown)


def parse_blocks(markdown: str, first_line: int = 1) -> Iterator[Block]:
    """Yield the fenced blocks of a page, including those in MyST directives."""
    for token in MarkdownIt("commonmark").parse(markdown):
        if token.type != "fence" or token.map is None:
            continue
        line = first_line + token.map[0] + 1
        language, _, rest = token.info.strip().partition(" ")
        if _SPECIAL.fullmatch(language):
            yield from parse_blocks(token.content, line)
            continue
        options = dict(word.split("=", 1) for word in shlex.split(rest))
        yield Block(language=language, text=token.content, line=line, options=options)


def parse_commands(block: Block) -> Iterator[Command]:
    """Yield the commands of a `console` block: lines from `$ ` on with their continuation.

    Raises:
        ValueError: The block begins with something else.
    """
    lines = block.text.splitlines()
    if not lines or not lines[0].startswith(_PROMPT):
        raise ValueError(f"line {block.line}: a console block begins with '$ '")
    index = 0
    while index < len(lines):
        start = index
        text, index = _join_lines(lines, index)
        shown: list[str] = []
        while index < len(lines) and not lines[index].startswith(_PROMPT):
            shown.append(lines[index])
            index += 1
        yield Command(text=text, shown=tuple(shown), line=block.line + start)


def _join_lines(lines: list[str], index: int) -> tuple[str, int]:
    r"""The command that begins at `lines[at]`, and where the next line is: `\`, open quotes, `do ... done` and heredocs go on."""
    command = [lines[index][len(_PROMPT) :]]
    index += 1
    while index < len(lines) and not lines[index].startswith(_PROMPT) and _is_continued("\n".join(command)):
        command.append(lines[index])
        index += 1
    return "\n".join(command), index


def _is_continued(text: str) -> bool:
    ends = [match[2] for match in _HEREDOC.finditer(text)]
    if ends:
        return ends[-1] not in text.splitlines()[1:]
    if text.endswith(("\\", "|", "&&", "||")):
        return True
    try:
        words = list(shlex.shlex(text, posix=True, punctuation_chars=True))
    except ValueError:
        return True  # an open quote
    return words.count("do") > words.count("done") or words.count("if") > words.count("fi")


_ANY = re.compile(r"\.\.\.|…")
_NUMBER = re.compile(r"\d[\d,.]*")
_BAR = re.compile(r"[█▉▊▋▌▍▎▏]+")
_IDENTITY = re.compile(r"\b[0-9a-f]{8,}\b|\b(?=[0-9a-f]*\d)[0-9a-f]{6,}\b")
_FOLDERS = re.compile(r"(?:file://)?(?:[\w.~@+$-]*/)+")
_STAMP = re.compile(r"-\d{8}-\d{6}(?:-\d{6})?")
"""In the name of an index: when it was made."""
_RULE = re.compile(r"-{3,}|─{3,}")


def find_missing(shown: tuple[str, ...], printed: str) -> list[str]:
    """Return the shown lines that were not printed. Numbers, bars, hashes and folders are free, `...` skips.

    Words count, not their order within the line: scores that nearly agree change places from one processor to the next.
    """
    remaining = iter([_split_loosely(line) for line in printed.splitlines()])
    unprinted = []
    for line in shown:
        expected = _split_loosely(line)
        if expected and not any(_matches_in_order(expected, printed_line) for printed_line in remaining):
            unprinted.append(line)
            remaining = iter([_split_loosely(each) for each in printed.splitlines()])
    return unprinted


def _split_loosely(line: str) -> list[str]:
    """The words of a line, sorted, without what differs from run to run."""
    for pattern, replacement in ((_BAR, " "), (_RULE, "-"), (_STAMP, ""), (_FOLDERS, ""), (_IDENTITY, "0"), (_NUMBER, "0")):
        line = pattern.sub(replacement, line)
    return line.split()


def _matches_in_order(expected: list[str], printed: list[str]) -> bool:
    elided = [word for word in expected if not _ANY.search(word)]
    if len(elided) == len(expected):
        return sorted(expected) == sorted(printed)
    return all(elided.count(word) <= printed.count(word) for word in set(elided))

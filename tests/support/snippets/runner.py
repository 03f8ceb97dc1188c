"""Tries a page: its blocks from top to bottom, in one shell, on one cluster."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import takewhile
from pathlib import Path

import requests

from support.snippets.checks import FILES, InvalidSnippet, check_command, check_stair_es, split_commands
from support.snippets.pages import Block, Command, find_missing, parse_blocks, parse_commands
from support.snippets.shell import CommandResult, CommandTimeout, Shell

_REQUEST = re.compile(r"(GET|PUT|POST|DELETE|HEAD) (/\S*)(?:\n|$)")
_REDIRECTION = re.compile(r"\d?[<>]")
_PROMPT = re.compile(r"^\$ ", re.MULTILINE)
_PORT = re.compile(r"^http://127\.0\.0\.1:(\d+)", re.MULTILINE)
_PORTS = {"stair-es serve": ":8077", "stair-es encoder": ":8078"}
"""Server -> the port that pages show for it."""
_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class Rules:
    """Exceptions for commands and code. Keys are beginnings, values are reasons or lines to wait for."""

    not_run: Mapping[str, str]
    """Commands."""
    replacements: Mapping[str, str]
    """Beginnings of commands that have a twin which leaves the machine as it is."""
    background: Mapping[str, str]
    """Commands that go on until the page ends: the expression for the line that they print when they are ready."""
    not_sent: Mapping[str, str]
    """Paths of requests."""
    languages: Mapping[str, str]
    """Languages of blocks that nobody runs or reads."""


@dataclass
class PageRun:
    """One page being tried."""

    page: str
    rules: Rules
    shell: Shell
    folder: Path
    url: str
    places: Mapping[str, str]
    python: str | Path = sys.executable
    """Reads the arguments of scripts that aren't run."""
    _wrong: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.places = dict(self.places)

    def run(self, markdown: str) -> None:
        """Run blocks.

        Raises:
            Wrong: Something in it is not right. What only prints something else than shown is gathered.
        """
        page_blocks = list(parse_blocks(markdown))
        for block in page_blocks:  # first of all: a page may show the command before the file
            if "title" in block.options:
                (self.folder / block.options["title"]).write_text(self._insert_places(block.text), encoding="utf-8")
        for block in page_blocks:
            self._run_block(block)
        if self._wrong:
            raise InvalidSnippet("\n".join(self._wrong))

    def _run_block(self, block: Block) -> None:
        location = f"{self.page}:{block.line}"
        if block.language == "console":
            for command in parse_commands(block):
                self._run_command(command, block.options.get("expect") != "free")
        elif block.language == "python":
            done = self.shell.run_python(self._insert_places(block.text), self.page, block.line, _TIMEOUT_S)
            if done.code:
                raise InvalidSnippet(f"{location}: {done.printed}")
        elif block.language == "json" and _REQUEST.match(block.text):
            self._send_request(block.text, location)
        elif block.language in FILES:
            _check_file(block, location)
        elif block.language not in self.rules.languages:
            raise InvalidSnippet(
                f"{location}: nobody tries {block.language or 'a block without a language'!r} (`text` is for what is just shown)"
            )
        elif _PROMPT.search(block.text):
            raise InvalidSnippet(f"{location}: commands stand in `console`, where they are tried, and not in {block.language!r}")

    def _run_command(self, command: Command, compared: bool) -> None:
        location = f"{self.page}:{command.line}: $ {command.text}"
        if is_skipped(command.text, self.rules):
            for words in split_commands(command.text):
                try:
                    check_command(words, self.folder, self.python)
                except InvalidSnippet as error:
                    raise InvalidSnippet(f"{location}\n{error}") from error
            return
        try:
            result = self._run_or_start(command)
        except CommandTimeout as error:
            raise InvalidSnippet(f"{location}\n{error}") from error
        if not command.accepts_exit_code(result.code):
            raise InvalidSnippet(f"{location}\nexit code {result.code}\n{result.printed[-4000:]}")
        unprinted = find_missing(command.shown, self._restore_names(result.printed)) if compared else []
        if unprinted:
            shown = "\n".join(f"  - {line}" for line in unprinted)
            self._wrong.append(
                f"{location}\nshown, and not printed:\n{shown}\nprinted:\n{self._restore_names(result.printed)[-6000:]}"
            )

    def _run_or_start(self, command: Command) -> CommandResult:
        text = self._insert_places(get_replacement(command.text, self.rules))
        ready = next((line for start, line in self.rules.background.items() if command.text.startswith(start)), None)
        if ready is None:
            return self.shell.run(text, _TIMEOUT_S)
        result = self.shell.start_background(text, ready, _TIMEOUT_S)
        port = _PORT.search(result.printed)
        shown = next((shown for start, shown in _PORTS.items() if command.text.startswith(start)), None)
        if port and shown and shown not in self.places:
            self.places = {**self.places, shown: f":{port[1]}"}
        return result

    def _send_request(self, text: str, location: str) -> None:
        method, target = _REQUEST.match(text).groups()  # type: ignore[union-attr]
        body = text.partition("\n")[2].strip()
        bulk = "_bulk" in target or "_msearch" in target
        if body:
            for part in body.splitlines() if bulk else [body]:
                try:
                    FILES["json"](part)
                except ValueError as error:
                    raise InvalidSnippet(f"{location}: not json: {error}") from error
        if any(target.startswith(start) for start in self.rules.not_sent):
            return
        kind = "application/x-ndjson" if bulk else "application/json"
        response = requests.request(
            method,
            self.url + target,
            data=(self._insert_places(body) + "\n").encode() if body else None,
            headers={"content-type": kind} if body else {},
            timeout=_TIMEOUT_S,
        )
        if not response.ok or (bulk and response.json().get("errors")):
            raise InvalidSnippet(f"{location}: {method} {target}: {response.status_code} {response.text[:2000]}")

    def _insert_places(self, text: str) -> str:
        for name, place in self.places.items():
            text = text.replace(name, place)
        return text

    def _restore_names(self, text: str) -> str:
        for name, place in self.places.items():
            text = text.replace(place, name)
        return text


def check_page(page: str, markdown: str) -> None:
    """Check a page without running anything: our commands take their arguments, Python compiles, files have valid syntax.

    Raises:
        InvalidSnippet: If something in it is wrong.
    """
    for block in parse_blocks(markdown):
        location = f"{page}:{block.line}"
        if block.language == "console":
            for command in parse_commands(block):
                if command.accepts_exit_code(0):
                    _check_ours(command, f"{page}:{command.line}: $ {command.text}")
        elif block.language == "python":
            try:
                compile(block.text, location, "exec")
            except SyntaxError as error:
                raise InvalidSnippet(f"{location}: {error}") from error
        elif block.language in FILES and not _REQUEST.match(block.text):
            _check_file(block, location)


def _check_ours(command: Command, location: str) -> None:
    for words in split_commands(command.text):
        arguments = takewhile(lambda word: not _REDIRECTION.match(word), words)
        if next(arguments, None) == "stair-es":
            try:
                check_stair_es(list(arguments))
            except InvalidSnippet as error:
                raise InvalidSnippet(f"{location}\n{error}") from error


def _check_file(block: Block, location: str) -> None:
    try:
        FILES[block.language](block.text)
    except Exception as error:
        raise InvalidSnippet(f"{location}: not {block.language}: {error}") from error


def get_replacement(text: str, rules: Rules) -> str:
    """Return the command to run for it."""
    for start, replacement in rules.replacements.items():
        if text.startswith(start):
            return replacement + text.removeprefix(start)
    return text


def is_skipped(text: str, rules: Rules) -> bool:
    """Return whether the rules skip a part of a command."""
    text = get_replacement(text, rules)
    return any(" ".join(words).startswith(start) for words in split_commands(text) for start in rules.not_run)

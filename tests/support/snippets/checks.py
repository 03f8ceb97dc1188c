"""Check snippets that can't be run here: our commands exist, and files have valid syntax."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from functools import cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from typer import Exit
from typer.main import get_command

from stair_es.cli.main import app
from stair_es.training.config.toml import parse_training_toml
from stair_es.training.config.train_config import read_train_config

__all__ = ["FILES", "InvalidSnippet", "check_command", "check_stair_es", "split_commands"]

ROOT = Path(__file__).parents[3]
_SEPARATORS = {"|", "||", "&&", ";", "&", "|&", "(", ")", "do", "then", "else", "done", "fi", "{", "}"}
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)
_BEFORE = {"sudo", "time", "nice", "env", "exec"}
_OURS = "stair-es"
_IMAGE = re.compile(r"(?:\S+/)?stair-es:\S+")
_FOLDERS = ("benchmarks/", "deploy/", "docs/", "examples/", "scripts/", "tests/")
_NO_FILE = re.compile(r"(?:file|dir|directory|path)\b.* does not exist", re.IGNORECASE)
_EXTRAS = re.compile(r"(?:stair-es|^\.)\[([\w,-]+)\]")

# The script's own parser reads what it is given; then it is over.
_PARSE_ONLY = """
import argparse, runpy, sys
from pathlib import Path
real = argparse.ArgumentParser.parse_args
def parse_args(self, *given, **more):
    real(self, *given, **more)
    sys.exit(0)
argparse.ArgumentParser.parse_args = parse_args
sys.argv = sys.argv[1:]
sys.path.insert(0, str(Path(sys.argv[0]).parent))
runpy.run_path(sys.argv[0], run_name="__main__")
sys.exit("it reads no arguments")
"""


class InvalidSnippet(AssertionError):
    """A wrong snippet. The message says where, what and why."""


def split_commands(text: str) -> Iterator[list[str]]:
    """Yield simple commands without leading variables: `A=1 b c | d` has `b c` and `d`."""
    first = text.partition("<<")[0].replace("\\\n", " ")
    words = shlex.shlex(first, posix=True, punctuation_chars=True)
    words.whitespace_split = True
    words.commenters = ""
    command: list[str] = []
    for word in [*_drop_comment(words), ";"]:
        if word in _SEPARATORS or (word and set(word) <= set("|&;()")):
            if command:
                yield command
            command = []
        elif command or not (_ASSIGNMENT.fullmatch(word) or word in _BEFORE):
            command.append(word)


def _drop_comment(words: shlex.shlex) -> Iterator[str]:
    for word in words:
        if word == "#":
            return
        yield word


def check_stair_es(arguments: list[str]) -> None:
    """Let the real command line read arguments.

    Raises:
        Wrong: It doesn't take them.
    """
    command = _read_command_line()
    name, context, remaining = _OURS, None, arguments
    try:
        while True:
            context = command.make_context(name, list(remaining), parent=context)
            if not hasattr(command, "resolve_command"):
                return
            name, command, remaining = command.resolve_command(context, [*context._protected_args, *context.args])
    except (SystemExit, Exit):  # --show-completion, --help, --version
        return
    except Exception as error:
        message = error.format_message() if hasattr(error, "format_message") else str(error)
        if _NO_FILE.search(message):  # options are read before their values: all of them exist
            return
        raise InvalidSnippet(f"stair-es {shlex.join(arguments)}: {message or type(error).__name__}") from error


@cache
def _read_command_line() -> Any:  # noqa: ANN401  a private class of Typer
    return get_command(app)


def check_command(words: list[str], folder: Path = ROOT, python: str | Path = sys.executable) -> None:
    """Check a simple command as far as possible without running it.

    Args:
        words: Program and arguments.
        folder: Where a page has made files beside ours.
        python: Runs the parsers of scripts.

    Raises:
        Wrong: Something in it doesn't exist.
    """
    program = Path(words[0]).name
    if program in ("pip", "pip3", "uv", "pipx"):
        _check_extras(words)
    elif program == "make":
        _check_make_target(words)
    elif program == "python" and len(words) > 1 and words[1].endswith(".py"):
        _check_script(words[1:], python)
    for word in words:
        if word.startswith(_FOLDERS) and not any(any(each.glob(word)) for each in (ROOT, folder)):
            raise InvalidSnippet(f"{shlex.join(words)}: there is no {word}")
    positions = [
        index for index, word in enumerate(words) if Path(word).name == _OURS or ("run" in words and _IMAGE.fullmatch(word))
    ]
    if positions:
        check_stair_es(words[positions[0] + 1 :])


def _check_extras(words: list[str]) -> None:
    setup = ConfigParser()
    setup.read(ROOT / "setup.cfg")
    extras = set(setup["options.extras_require"])
    requested = {extra for word in words for found in _EXTRAS.findall(word) for extra in found.split(",")}
    if requested - extras:
        raise InvalidSnippet(f"{shlex.join(words)}: setup.cfg has no extras {sorted(requested - extras)}")


def _check_make_target(words: list[str]) -> None:
    result = subprocess.run([*words, "-n"], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise InvalidSnippet(f"{shlex.join(words)}: {result.stderr}")


def _check_script(words: list[str], python: str | Path) -> None:
    result = subprocess.run([python, "-c", _PARSE_ONLY, *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if result.returncode:
        raise InvalidSnippet(f"python {shlex.join(words)}: {result.stderr[-2000:]}")


def _parse_toml(text: str) -> None:
    values = parse_training_toml(text, "snippet.toml")
    if "recipe" in values or "stages" in values:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "snippet.toml")
            file.write_text(text, encoding="utf-8")
            read_train_config(file)


def _parse_ini(text: str) -> None:
    ConfigParser(strict=False, interpolation=None, allow_no_value=True).read_string(text)


def _check_braces(text: str) -> None:
    plain = re.sub(r"#.*", "", text)
    if plain.count("{") != plain.count("}") or re.search(r"[^{};\s]\s*(\n\s*)?}", plain):
        raise ValueError("braces that don't match, or a line without ';'")


def _parse_yaml(text: str) -> None:
    list(yaml.safe_load_all(text))


FILES: dict[str, Callable[[str], object]] = {
    "json": json.loads,
    "toml": _parse_toml,
    "yaml": _parse_yaml,
    "ini": _parse_ini,
    "nginx": _check_braces,
}
"""Language -> what reads it, and raises where it can't."""

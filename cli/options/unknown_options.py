"""Options that the parser doesn't know: words of a query that begin with a minus (`search -people beach`), and suggestions."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from typer.core import TyperCommand

from stair_es.config.file import is_safe_option
from stair_es.errors import UsageError

_HITS_OPTION = "-k"
_HITS_SYNONYMS = frozenset({"-n", "-s", "--size", "--limit", "--top", "--top-k", "--hits", "--results", "--count", "--rows"})
"""Names that other programs give to `-k`."""
_LEADING_MINUS_WORD = re.compile(r"-#*[^\W\d_].+", re.DOTALL)
"""`-people`, as `parse_query` reads it; a single letter may be a mistyped option."""


class WordsCommand(TyperCommand):
    """A command whose last argument is a query. Its short options take a value without a space only if it is a number."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:  # noqa: ANN401
        """Parse the arguments, with words that begin with a minus moved behind `--`.

        Raises:
            UsageError: If such a word is also the name of a long option.
        """
        if not ctx.resilient_parsing:
            args = self._move_words_last(args)
        return super().parse_args(ctx, args)

    def _move_words_last(self, args: list[str]) -> list[str]:
        end = args.index("--") if "--" in args else len(args)
        positions = list(self._find_words(args[:end]))
        if not positions:
            return args
        others = [arg for i, arg in enumerate(args[:end]) if i not in positions]
        return [*others, "--", *(args[i] for i in positions), *args[end + 1 :]]

    def _find_words(self, args: list[str]) -> Iterator[int]:
        options = {name: param for param in self.params for name in (*param.opts, *param.secondary_opts) if name.startswith("-")}
        value_follows = False
        for i, arg in enumerate(args):
            if value_follows:
                value_follows = False
            elif arg in options:
                value_follows = not getattr(options[arg], "is_flag", False)
            elif _LEADING_MINUS_WORD.fullmatch(arg) and not (arg[:2] in (*options, *_HITS_SYNONYMS) and arg[2:].isdecimal()):
                _check_not_option(arg, options)
                yield i


def _check_not_option(word: str, options: dict[str, Any]) -> None:
    name = "-" + word.partition("=")[0]
    if name in options or name == "--help":
        raise UsageError(
            f"{word!r} may be the option {name} or a word to exclude",
            f"Write {name} for the option, or put the word after `--`: -- {word}",
        )


def improve_suggestions(error: Any) -> None:  # noqa: ANN401  Typer's class depends on its version
    """Change what an error about an unknown option suggests: never an option that removes a protection, and `-k` for `--size`."""
    if type(error).__name__ != "NoSuchOption" or error.ctx is None:
        return
    context, name = error.ctx, error.option_name
    error.possibilities = [option for option in error.possibilities or () if is_safe_option(option)]
    options = {option for parameter in context.command.params for option in parameter.opts}
    if name in _HITS_SYNONYMS and _HITS_OPTION in options:
        error.possibilities = [_HITS_OPTION]
    elif isinstance(context.command, WordsCommand) and not name.startswith("--"):
        error.message += f". Put a word that begins with a minus after `--`: {context.command_path} -- -WORD"

"""The `stair-es` command: registers the commands, and is the only place that exits."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise, takewhile
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperCommand, TyperGroup

from stair_es._version import __version__
from stair_es.config.defaults import ENV_CONFIG, ENV_LOG_FORMAT, ENV_PROFILE
from stair_es.errors import StairError, UsageError
from stair_es.model.own_code import OwnCode, ask_with
from stair_es.system.decoder_logs import disable_decoder_logs

from .commands import (
    dashboards,
    distill,
    doctor,
    encode,
    export_xmp,
    inspect,
    models,
    node,
    plan,
    search,
    serve,
    template,
    train,
    words,
)
from .commands.evaluate import commands as evaluate
from .commands.evaluate import coverage
from .commands.evaluate import labels as label_evaluation
from .commands.ingest import annotate, forget, images, labels, texts
from .commands.policy import commands as policy
from .commands.policy import teach
from .options import config_file as settings
from .options.decorator import prepare_command
from .output.console import ask_yes, print_error, print_notice, set_log_format, translate_os_error
from .output.json_logging import is_json_logging

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
            code="option-or-word",
        )


def improve_suggestions(error: Any) -> None:  # noqa: ANN401  Typer's class depends on its version
    """Change what an error about an unknown option suggests: never an option that removes a protection, and `-k` for `--size`."""
    if type(error).__name__ != "NoSuchOption" or error.ctx is None:
        return
    context, name = error.ctx, error.option_name
    error.possibilities = [option for option in error.possibilities or () if settings.is_safe_option(option)]
    options = {option for parameter in context.command.params for option in parameter.opts}
    if name in _HITS_SYNONYMS and _HITS_OPTION in options:
        error.possibilities = [_HITS_OPTION]
    elif isinstance(context.command, WordsCommand) and not name.startswith("--"):
        error.message += f". Put a word that begins with a minus after `--`: {context.command_path} -- -WORD"


class _RootGroup(TyperGroup):
    """Root group that reports usage errors like other errors, if stderr is JSON."""

    def make_context(self, info_name: str | None, args: list[str], *others: Any, **extra: Any) -> Any:  # noqa: ANN401
        """Create the context. From now on, stderr is JSON if options or environment request it."""
        set_log_format("json" if _is_json_requested(args) else "text")
        _hide_types(self, typer.Context(self, help_option_names=list(_HELP_FLAGS)))
        help_requested = not _HELP_FLAGS.isdisjoint(takewhile(lambda arg: arg != "--", args))
        with _report_usage_errors(info_name, None):
            context = super().make_context(info_name, args, *others, **extra)
        context.meta[_HELP_REQUESTED] = help_requested
        return context

    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401
        """Invoke the subcommand."""
        with _report_usage_errors(ctx.info_name, ctx):
            return super().invoke(ctx)


def _hide_types(command: Any, context: typer.Context) -> None:  # noqa: ANN401
    """Hide Python types in help, such as `<bool>` after a flag and `<list[str]>` after an argument."""
    for parameter in command.get_params(context):
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
        elif parameter.param_type_name == "argument":
            parameter.display_type_rich = _hide_type
    for child in getattr(command, "commands", {}).values():
        _hide_types(child, context)


def _hide_type(ctx: typer.Context) -> None:
    """Return no type, in place of Typer's method."""


@contextmanager
def _report_usage_errors(program: str | None, context: Any) -> Iterator[None]:  # noqa: ANN401
    try:
        yield
    except Exception as error:
        improve_suggestions(error)
        if not hasattr(error, "format_message") or not is_json_logging():
            raise
        command = " ".join(filter(None, (program, context and context.invoked_subcommand)))
        print_error(UsageError(error.format_message() or "no command given", f"See {command} --help.", code="invalid-arguments"))
        raise typer.Exit(2) from None


def _is_json_requested(args: list[str]) -> bool:
    """Return whether `--log-format` will be json, before the command line is parsed."""
    formats = [value for name, value in pairwise(args) if name == "--log-format"]
    formats += [arg.partition("=")[2] for arg in args if arg.startswith("--log-format=")]
    return (formats or [os.environ.get(ENV_LOG_FORMAT, "")])[-1] == "json"


_HELP_FLAGS, _HELP_REQUESTED = frozenset({"-h", "--help"}), "stair_es.helped"
app = typer.Typer(
    name="stair-es",
    cls=_RootGroup,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _register(name: str, command: Callable[..., None], kind: type[TyperCommand] | None = None) -> None:
    app.command(name=name, cls=kind)(prepare_command(command))


_register("ingest", images.ingest_command)
_register("annotate", annotate.annotate_command)
_register("ingest-texts", texts.ingest_texts_command)
_register("ingest-labels", labels.ingest_labels_command)
_register("export-xmp", export_xmp.export_xmp_command)
_register("forget", forget.forget_command)
_register("search", search.search_command, WordsCommand)
_register("explain", search.explain_command, WordsCommand)
_register("inspect", inspect.inspect_command)
_register("words", words.show_words_command)
_register("teach", teach.teach_command, teach.TeachCommand)
_register("serve", serve.serve_command)
app.add_typer(dashboards.app, name="dashboards")
_register("encode", encode.encode_command)
_register("encoder", serve.serve_encoder_command)
evaluate.app.command(name="labels")(prepare_command(label_evaluation.evaluate_labels_command))
app.add_typer(evaluate.app, name="evaluate")
_register("coverage", coverage.coverage_command)
_register("query", search.query_command, WordsCommand)
app.add_typer(doctor.config_app, name="config")
_register("doctor", doctor.doctor_command)
_register("models", models.list_models_command)
_register("plan", plan.plan_command)
_register("plugins", models.list_plugins_command)
_register("train", train.train_command)
_register("distill", distill.distill_command)
_register("export", train.export_command)
app.add_typer(template.app, name="template")
app.add_typer(node.app, name="node")
app.add_typer(policy.app, name="policy")


def _print_version(is_requested: bool) -> None:
    if is_requested:
        typer.echo(f"stair-es {__version__}")
        raise typer.Exit


@app.callback()
def _configure_run(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config",
            envvar=ENV_CONFIG,
            show_envvar=True,
            metavar="FILE",
            help="Configuration file (TOML) with defaults of options and profiles for clusters.",
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            envvar=ENV_PROFILE,
            show_envvar=True,
            metavar="NAME",
            help="Profile of the configuration file to use.",
            autocompletion=settings.complete_profiles,
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format",
            envvar=ENV_LOG_FORMAT,
            show_envvar=True,
            help="Format of messages on stderr: text, or one JSON object per line.",
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Search images by words in your OpenSearch or Elasticsearch cluster.

    **Examples**

    ```text
    stair-es ingest ~/Pictures --index photos
    stair-es search "red car" --index photos
    stair-es serve --index photos --open
    ```
    """
    help_requested = context.meta[_HELP_REQUESTED]
    loaded = settings.load_config(
        context, config_file, profile, tolerant=help_requested or context.invoked_subcommand == "doctor"
    )
    set_log_format(log_format or loaded.get_text("log_format") or "text")
    if help_requested and loaded.error is not None:
        print_error(loaded.error)
    context.with_resource(ask_with(_ask_consent))


def _ask_consent(code: OwnCode) -> bool:
    return ask_yes(f"{code.describe()}\nRead it at {code.place}", "Run it?")


_EXIT_REASONS = {129: "terminated by SIGHUP", 130: "interrupted", 143: "terminated by SIGTERM"}
"""Exit code -> notice."""


def _exit_on_signal(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as an exception, so that `finally` blocks clean up


def _install_signal_handlers() -> None:
    """Clean up on SIGTERM and when the terminal is closed; not on the latter under nohup, which ignores SIGHUP."""
    signal.signal(signal.SIGTERM, _exit_on_signal)
    if not hasattr(signal, "SIGHUP") or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
        return  # Windows has no SIGHUP
    terminals = [number for number in (1, 2) if os.isatty(number)]

    def exit_on_hangup(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # both the shell and the kernel may send it
        devnull = os.open(os.devnull, os.O_WRONLY)
        for terminal in terminals:  # writing to a closed terminal would fail in the middle of the cleanup
            os.dup2(devnull, terminal)
        os.close(devnull)
        _exit_on_signal(number, frame)

    signal.signal(signal.SIGHUP, exit_on_hangup)


def main() -> None:
    """Run the command line.

    It exits with 0, 1 (failed), 2 (usage error), 3 (some images failed), 129 (the terminal was closed), 130 (interrupted) or
    143 (ended).
    """
    _install_signal_handlers()
    disable_decoder_logs()
    try:
        app()
    except StairError as error:
        print_error(error)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in _EXIT_REASONS:  # Typer turns Ctrl-C into this, without a message
            print_notice(_EXIT_REASONS[end.code])
        raise
    except KeyboardInterrupt:
        print_notice(_EXIT_REASONS[130])
        sys.exit(130)
    except OSError as error:
        print_error(translate_os_error(error))
        sys.exit(1)

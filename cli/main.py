"""The `stair-es` command: registers the commands, and is the only place that exits."""

from __future__ import annotations

import signal
import sys
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from stair_es._version import __version__
from stair_es.config import ENV_CONFIG, ENV_LOG_FORMAT, ENV_PROFILE
from stair_es.errors import StairError

from . import (
    asking,
    config,
    dashboards,
    doctor,
    encode,
    evaluate,
    explain,
    export,
    ingest,
    ingest_texts,
    inspect,
    node,
    options,
    plugins,
    policy,
    query,
    search,
    serve,
    settings,
    telemetry,
    template,
    train,
    words,
)
from .output import fail, log_as, note


class _Root(TyperGroup):
    def invoke(self, ctx: Any) -> Any:  # noqa: ANN401  as click has it
        """The command; its wrong usage is said as everything else is, where that isn't Typer's way."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            if not hasattr(error, "format_message") or not ctx.meta.get(_JSON):
                raise
            fail(StairError(error.format_message(), f"See {ctx.info_name} {ctx.invoked_subcommand or ''} --help."))
            raise typer.Exit(2) from None


_JSON = "stair_es.json"
app = typer.Typer(
    name="stair-es",
    cls=_Root,
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command(name="ingest")(options.connected(telemetry.metered(ingest.ingest)))
app.command(name="ingest-texts")(options.connected(ingest_texts.ingest_texts))
app.command(name="search")(options.connected(asking.asking(search.search)))
app.command(name="explain")(options.connected(asking.asking(explain.explain)))
app.command(name="inspect")(options.connected(inspect.inspect))
app.command(name="words")(options.connected(words.words))
app.command(name="serve")(options.connected(serve.serve))
app.add_typer(dashboards.app, name="dashboards")
app.command(name="encode")(encode.encode)
app.add_typer(evaluate.app, name="evaluate")
app.command(name="query")(asking.asking(query.query))
app.add_typer(config.app, name="config")
app.command(name="doctor")(options.connected(doctor.doctor))
app.command(name="plugins")(plugins.plugins)
app.command(name="train")(train.train)
app.command(name="export")(export.export)
app.add_typer(template.app, name="template")
app.add_typer(node.app, name="node")
app.add_typer(policy.app, name="policy")


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"stair-es {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    context: typer.Context,
    config_file: Annotated[
        Path | None,
        typer.Option(
            "--config", envvar=ENV_CONFIG, show_envvar=True, metavar="FILE", help="Defaults and profiles of clusters (TOML)."
        ),
    ] = None,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            envvar=ENV_PROFILE,
            show_envvar=True,
            metavar="NAME",
            help="A profile of that file.",
            autocompletion=settings.complete_profiles,
        ),
    ] = None,
    log_format: Annotated[
        Literal["text", "json"] | None,
        typer.Option(
            "--log-format", envvar=ENV_LOG_FORMAT, show_envvar=True, help="What goes to stderr: text, or one JSON object a line."
        ),
    ] = None,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Image search on the search cluster you already run: photos become `rank_features` documents that words find."""
    _say_as(context, log_format or "text")
    taken = settings.take(context, config_file, profile, tolerant=context.invoked_subcommand == "doctor")
    _say_as(context, log_format or taken.text("log_format") or "text")


def _say_as(context: typer.Context, form: str) -> None:
    context.meta[_JSON] = form == "json"
    log_as(form)


_ENDED = {130: "interrupted", 143: "ended by SIGTERM"}
"""Exit code -> what is said."""


def _terminate(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)  # as an exception: what was relaxed or begun is put in order on the way out


def main() -> None:
    """Run the command line; exit with 0, 1 (failed), 2 (wrong usage), 3 (some images dead), 130 (interrupted) or 143 (ended)."""
    signal.signal(signal.SIGTERM, _terminate)
    try:
        app()
    except StairError as error:
        fail(error)
        sys.exit(error.exit_code)
    except SystemExit as end:
        if isinstance(end.code, int) and end.code in _ENDED:  # Typer makes this of Ctrl-C, and says nothing
            note(_ENDED[end.code])
        raise
    except KeyboardInterrupt:
        note(_ENDED[130])
        sys.exit(130)
    except OSError as error:
        fail(_of_file(error))
        sys.exit(1)


def _of_file(error: OSError) -> Exception:
    """The system's words for a file, without its number."""
    if error.filename is None or not error.strerror:
        return error
    return StairError(f"{error.filename}: {error.strerror}", "Check the path, and whether you may use it so.")

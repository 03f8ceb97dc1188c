"""The `stair-es` command: registers the commands, and is the only place that exits."""

from __future__ import annotations

import signal
import sys
from types import FrameType
from typing import Annotated

import typer

from stair_es._version import __version__
from stair_es.errors import StairError

from . import (
    asking,
    dashboards,
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
    telemetry,
    template,
    train,
    words,
)
from .output import fail, note

app = typer.Typer(
    name="stair-es",
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Image search on the search cluster you already run: photos become `rank_features` documents that words find.",
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
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options before the command."""


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

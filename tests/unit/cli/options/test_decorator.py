"""Options that are the fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from support.errors import expect_error
from typer.testing import CliRunner

from stair_es.cli.commands.ingest.arguments import BuildArguments, IndexArguments
from stair_es.cli.options.decorator import prepare_command
from stair_es.cli.options.shared import LAST_PANEL
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    paint: Annotated[str, typer.Option("--paint", help="The paint.")] = "red"
    coats: Annotated[int, typer.Option("--coats", min=1, help="How often.")] = 2


@dataclass(frozen=True, kw_only=True)
class FinishOptions(PaintOptions):
    gloss: Annotated[bool, typer.Option("--gloss", help="Whether it shines.")] = False


@dataclass(frozen=True, kw_only=True)
class WorkOptions:
    tool: Annotated[str, typer.Option("--tool", rich_help_panel=LAST_PANEL)] = "brush"
    finish: FinishOptions
    context: typer.Context | None = None


@pytest.mark.parametrize(
    ("arguments", "tool", "finish"),
    [
        ((), "brush", FinishOptions()),
        (("--paint", "blue", "--gloss"), "brush", FinishOptions(paint="blue", gloss=True)),
        (("--coats", "3", "--tool", "roller"), "roller", FinishOptions(coats=3)),
    ],
)
def test_a_command_takes_its_options_as_dataclasses(arguments: tuple[str, ...], tool: str, finish: FinishOptions) -> None:
    given = list[tuple[str, WorkOptions, bool]]()
    app = typer.Typer(add_completion=False)

    @app.command()
    @prepare_command
    def paint_wall(wall: str, *, work: WorkOptions, quick: bool = False) -> None:
        given.append((wall, work, quick))

    assert CliRunner().invoke(app, ["north", *arguments]).exit_code == 0
    [(wall, work, quick)] = given
    assert (wall, work.tool, work.finish, quick) == ("north", tool, finish, False)
    assert work.context is not None
    assert work.context.params["coats"] == finish.coats
    assert CliRunner().invoke(app, ["north", "--coats", "0"]).exit_code == 2
    names = [parameter.name for parameter in typer.main.get_command(app).params]
    assert names == ["wall", "paint", "coats", "gloss", "quick", "tool"], "the options of the last panel come last"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (BuildArguments(), ClusterSinkOptions()),
        (BuildArguments(no_swap=True, retain_indices=0), ClusterSinkOptions(swap="never", retain_indices=0)),
        (BuildArguments(force_swap=True, token_index=False), ClusterSinkOptions(swap="always", token_index=False)),
    ],
)
def test_options_of_a_build_are_options_of_the_sink(arguments: BuildArguments, expected: ClusterSinkOptions) -> None:
    assert arguments.build_sink_options() == expected


def test_options_given_with_the_sink_win() -> None:
    name, options = IndexArguments(
        sink="cluster:swap=never,token_index=no", force_swap=True, token_index=True, no_replicas_while_building=True
    ).parse_sink()
    assert name == "cluster"
    assert options == ClusterSinkOptions(swap="never", token_index=False, no_replicas_while_building=True)
    assert IndexArguments(sink="ndjson:folder=x").parse_sink() == ("ndjson", {"folder": "x"})
    with expect_error("sink-without-token-index"):
        IndexArguments(sink="ndjson:folder=x", token_index=True).parse_sink()

"""Options that are the fields of a dataclass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from stair_es.cli.commands.ingest.arguments import BuildArguments, IndexArguments
from stair_es.cli.options.decorator import ArgumentGroup, prepare_command
from stair_es.errors import UsageError
from stair_es.ingest.sinks.cluster_options import ClusterSinkOptions


@dataclass(frozen=True, kw_only=True)
class PaintOptions:
    paint: Annotated[str, typer.Option("--paint", help="The paint.")] = "red"
    coats: Annotated[int, typer.Option("--coats", min=1, help="How often.")] = 2


@dataclass(frozen=True, kw_only=True)
class FinishOptions(PaintOptions):
    gloss: Annotated[bool, typer.Option("--gloss", help="Whether it shines.")] = False


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), FinishOptions()),
        (("--paint", "blue", "--gloss"), FinishOptions(paint="blue", gloss=True)),
        (("--coats", "3"), FinishOptions(coats=3)),
    ],
)
def test_a_command_reads_its_options_as_a_dataclass(arguments: tuple[str, ...], expected: FinishOptions) -> None:
    group, read = ArgumentGroup(FinishOptions), list[FinishOptions]()
    app = typer.Typer()

    def paint(wall: str) -> None:
        read.append(group.read())

    app.command()(prepare_command(group)(paint))
    assert CliRunner().invoke(app, ["north", *arguments]).exit_code == 0
    assert read == [expected]
    assert CliRunner().invoke(app, ["north", "--coats", "0"]).exit_code == 2
    assert group.read() == FinishOptions()  # outside of a command


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
    with pytest.raises(UsageError, match="has no token index"):
        IndexArguments(sink="ndjson:folder=x", token_index=True).parse_sink()

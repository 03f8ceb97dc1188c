"""Options that several commands share, and the connection that they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from stair_es.config import ENV_INDEX, ENV_MODEL, ENV_URL

from .output import note

if TYPE_CHECKING:
    from stair_es.cluster.connect import Connection

Words = Annotated[list[str] | None, typer.Argument(help="What to look for, in plain words.")]
QueryImage = Annotated[
    Path | None,
    typer.Option("--image", exists=True, dir_okay=False, readable=True, help="Look for images like this one instead."),
]
Url = Annotated[
    str | None,
    typer.Option("--url", envvar=ENV_URL, show_envvar=True, help="The search cluster. Without it the embedded node is used."),
]
Index = Annotated[str, typer.Option("--index", "-i", envvar=ENV_INDEX, show_envvar=True, help="The alias to write or search.")]
Model = Annotated[str, typer.Option("--model", "-m", envvar=ENV_MODEL, show_envvar=True, help="A model of the catalogue.")]
Json = Annotated[bool, typer.Option("--json", help="Machine-readable output on stdout.")]
BackendOption = Annotated[
    Literal["auto", "onnx", "torch"],
    typer.Option("--backend", help="Runtime of the network: auto takes torch where CUDA is there, else onnxruntime."),
]
TextTowerOption = Annotated[
    Literal["full", "table"],
    typer.Option("--text-tower", help="full runs the text network; table looks words up in a static table (lighter)."),
]


def connection(url: str | None) -> Connection:
    """The connection to `url`, or to the embedded node, which is started where it isn't running (stderr says so)."""
    from stair_es.cluster.connect import Connection

    if url:
        return Connection(url=url)
    from stair_es.node import ensure_running

    node_url = ensure_running(say=note)
    note(f"no --url / {ENV_URL} given: using the embedded node at {node_url}")
    return Connection(url=node_url)

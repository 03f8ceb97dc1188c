"""`stair-es plan`."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

import typer
from rich.text import Text

from stair_es.sizing import THUMBNAIL_BYTES, TOKENS_PER_TEXT, SizingFigure, SizingInputs, SizingPlan, make_sizing_plan

from ..options import shared
from ..output.console import emit_json, print_plain, stdout

_DEFAULTS = {field.name: field.default for field in fields(SizingInputs)}
_TEXTS, _IMAGES = SizingInputs(images=1), SizingInputs(images=1, query_kind="image")


def _define_option(name: str, help_text: str, default_text: str = "") -> Any:  # noqa: ANN401  an option for Typer
    """Declare an option that is None unless given, and show its default."""
    default = _DEFAULTS[name]
    return typer.Option(
        f"--{name.replace('_', '-')}",
        metavar=None if isinstance(default, str) else "N" if isinstance(default, int) else "X",
        help=help_text,
        show_default=default_text
        or (False if default is None else f"{default:,}" if isinstance(default, int | float) else str(default)),
    )


_EncoderRate = Annotated[
    float | None, _define_option("encoder_images_per_s", "Images per second that one encoder (a machine or a GPU) encodes.")
]
_NodeRate = Annotated[float | None, _define_option("node_docs_per_s", "Documents per second that one search node indexes.")]
_DocumentBytes = Annotated[
    float | None,
    _define_option(
        "bytes_per_document",
        f"Bytes on disk per document, without replicas; {THUMBNAIL_BYTES:,} of them for the thumbnail.",
        f"{_TEXTS.document_bytes:,}, by the tokens",
    ),
]
_Rebuild = Annotated[
    bool | None,
    typer.Option(
        "--rebuild/--no-rebuild",
        help="Reserve disk space for a second index, to rebuild with another model or mapping.",
        show_default="rebuild",
    ),
]
_QueryKind = Annotated[
    Literal["text", "image"] | None, _define_option("query_kind", "Kind of queries, which determines their cost.")
]
_QueryMs = Annotated[
    float | None,
    _define_option(
        "query_ms",
        "CPU time per query and shard of a million images, in milliseconds.",
        f"{_TEXTS.core_ms} for text or {_IMAGES.core_ms} for image, by the tokens",
    ),
]
_ImageTokens = Annotated[float | None, _define_option("tokens_per_image", "Tokens of an image; `stair-es words` counts yours.")]
_QueryTokens = Annotated[
    float | None,
    _define_option("tokens_per_query", "Tokens of a query.", f"{TOKENS_PER_TEXT} for text, those of an image for image"),
]


@dataclass(frozen=True, kw_only=True)
class PlanArguments:
    """Options of `plan`, None unless given."""

    images: Annotated[int, typer.Option("--images", "-n", metavar="N", help="Number of images to plan for.")]
    tokens_per_image: _ImageTokens = None
    encoder_images_per_s: _EncoderRate = None
    encoders: Annotated[int | None, _define_option("encoders", "Number of encoders.")] = None
    node_docs_per_s: _NodeRate = None
    bytes_per_document: _DocumentBytes = None
    shard_gb: Annotated[float | None, _define_option("shard_gb", "Maximum size of a shard in GB.")] = None
    shard_images: Annotated[int | None, _define_option("shard_images", "Maximum number of images per shard.")] = None
    replicas: Annotated[int | None, _define_option("replicas", "Number of replicas of each shard.")] = None
    rebuild: _Rebuild = None
    node_disk_gb: Annotated[float | None, _define_option("node_disk_gb", "Disk size of one search node in GB.")] = None
    node_memory_gb: Annotated[float | None, _define_option("node_memory_gb", "Memory of one search node in GB.")] = None
    node_cores: Annotated[int | None, _define_option("node_cores", "CPU cores of one search node.")] = None
    queries_per_s: Annotated[float | None, _define_option("queries_per_s", "Searches per second.")] = None
    query_kind: _QueryKind = None
    tokens_per_query: _QueryTokens = None
    query_ms: _QueryMs = None
    node_price_per_hour: Annotated[
        float | None, _define_option("node_price_per_hour", "Price per hour of one search node, in any currency.")
    ] = None
    encoder_price_per_hour: Annotated[
        float | None, _define_option("encoder_price_per_hour", "Price per hour of one encoder.")
    ] = None


def plan_command(arguments: PlanArguments, as_json: shared.JsonOption = False) -> None:
    """Estimate shards, disk, nodes, hours and cost for a number of images.

    **Examples**

    ```text
    stair-es plan --images 1000000
    stair-es plan --images 100000000 --encoder-images-per-s 400 --encoders 4
    stair-es plan --images 1000000000 --tokens-per-image 64 --query-kind image --node-price-per-hour 0.5 --json
    ```

    The estimate is calculated, not measured, and requires no cluster. Each line shows where its number comes from. For a better
    estimate, measure your encoder and cluster, and pass the results as options. docs/sizing.md explains each option.
    """
    values = {name: value for name, value in vars(arguments).items() if value is not None}
    plan = make_sizing_plan(SizingInputs(**values), values)
    if as_json:
        emit_json(plan.to_dict())
    else:
        _print_plan(plan)


def _print_plan(plan: SizingPlan) -> None:
    figures = (*plan.inputs, *plan.results)
    widths = max(len(figure.label) for figure in figures), max(len(figure.text) for figure in figures)
    for heading, section in (("input", plan.inputs), ("result", plan.results)):
        stdout.print(Text(heading, style="bold"))
        for figure in section:
            print_plain(_format_figure(figure, widths))
    for remark in plan.remarks:
        print_plain(f"note: {remark}")


def _format_figure(figure: SizingFigure, widths: tuple[int, int]) -> str:
    return f"  {figure.label:<{widths[0]}}  {figure.text:<{widths[1]}}  {figure.origin}"

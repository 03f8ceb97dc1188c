"""`stair-es inspect`."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE, DecodeError, MissingExtra, OptionConflict, QueryError, UsageError

from ..options import shared
from ..options.connections import ConnectionArguments, open_cluster
from ..options.search import EncoderArguments
from ..output.bars import TerminalInfo, display_path, escape_control, format_line, format_rows, format_weight, truncate_text
from ..output.console import emit_json, print_error, print_notice, stdout
from ..output.csv import CsvOption, OutputFormat, format_csv, print_csv, select_output_format
from .search import parse_document_reference

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from stair_es.inspection.diff import PolicyEffect, VectorComparison, WeightDifference
    from stair_es.inspection.inspector import InspectionResult, Inspector
    from stair_es.model.base import Encoder
    from stair_es.types import SparseVector

_MAX_TOKENS = 20
_MAX_DIFFERENCES = 12
_COLUMNS = ("reference", "id", "uri", "origin", "rank", "token", "weight", "share", "cumulative")
_LEADING_FIELDS = (
    "name",
    "folder",
    "source",
    "model",
    "width",
    "height",
    "format",
    "bytes",
    "colors",
    "taken_at",
    "modified_at",
    "ingested_at",
    "sha256",
    "perceptual_hash",
    "fingerprint",
    "version",
)
_HIDDEN_FIELDS = ("uri", "top_tokens")
"""Fields that are shown elsewhere."""
_MIN_THUMBNAIL_CELLS, _MAX_THUMBNAIL_CELLS = 4, 40
_THUMBNAIL_MARGIN = 2
_MAX_THUMBNAIL_PIXELS = 4_000_000
"""Larger thumbnails are not decoded: the index is untrusted."""

_References = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Ids, URIs or paths of images; - for stdin.")]
_Words = Annotated[
    int | None, typer.Option("-k", metavar="N", min=1, help="Number of words to print. [default: 20; all with --json or --csv]")
]
_All = Annotated[bool, typer.Option("--all", help="Print all words.")]
_Compare = Annotated[bool, typer.Option("--compare", help="Encode the file again and compare the result with the stored words.")]
_Thumbnail = Annotated[
    bool | None,
    typer.Option(
        "--thumbnail/--no-thumbnail", help="Draw the stored thumbnail in the terminal. [default: if the terminal supports it]"
    ),
]
_Model = Annotated[str | None, shared.define_index_model_option("Model to encode files with. [default: the model of the index]")]


def inspect_command(
    references: _References,
    k: _Words = None,
    show_all: _All = False,
    compare: _Compare = False,
    thumbnail: _Thumbnail = None,
    as_json: shared.JsonOption = False,
    as_csv: CsvOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    model: _Model = None,
    backend: shared.BackendOption = "auto",
) -> None:
    """Print the words of images in the index with their weights, and what a token policy changed.

    **Examples**

    ```text
    stair-es inspect photos/tabby-cat.jpg
    stair-es inspect 8738a1008650a89a53e3cfea92a9d334 --all
    stair-es inspect s3://bucket/a.jpg --json
    stair-es inspect photos/*.jpg --compare
    stair-es search "red car" --json | jq -r ".hits[].id" | stair-es inspect - --csv
    ```

    A file that isn't in the index is encoded with the model of the index. The command changes nothing in the index.

    **Exit codes**: 0 if all images were found; 3 if some of several images were not found; 1 if no image was found.
    """
    output_format = select_output_format(as_json=as_json, as_csv=as_csv)
    if show_all and k:
        raise OptionConflict("-k and --all are mutually exclusive", "Leave one of them out.")
    from stair_es.inspection.inspector import Inspector
    from stair_es.search.index_info import fetch_index_info

    with open_cluster(connection) as cluster:
        info = fetch_index_info(cluster, index)

        @cache
        def load_encoder_once() -> Encoder:
            return EncoderArguments(model=model, backend=backend, text_tower=None).prepare_for_index(index)(info)

        inspector = Inspector(cluster, index, load_encoder_once, info.policy)
        printer = InspectionPrinter(index, k=k, show_all=show_all, output_format=output_format, thumbnail=thumbnail)
        requested, found = _inspect_all(inspector, printer, references, compare=compare, index=index)
    _check_found(requested, found, index)


def _inspect_all(
    inspector: Inspector, printer: InspectionPrinter, references: list[str], *, compare: bool, index: str
) -> tuple[int, int]:
    """Print each image, and return how many were requested and found. An image that can't be shown doesn't stop the others."""
    from stair_es.sources.io.uris import find_file

    requested = found = 0
    for reference in _read_references(references):
        requested += 1
        try:
            result = inspector.inspect(_list_names(reference), find_file(reference), against_file=compare)
        except DecodeError as error:
            print_error(error)
            continue
        if result is None:
            print_notice(f"neither in {index!r} nor a file: {reference}")
            continue
        found += 1
        printer.print_image(reference, result, inspector)
        _print_remarks(reference, result, compare=compare)
    return requested, found


def _print_remarks(reference: str, result: InspectionResult, *, compare: bool) -> None:
    image = result.image
    if image is None:
        return
    if image.id not in (reference, parse_document_reference(reference)) and image.uri not in _list_names(reference):
        print_notice(f"{reference} has the same bytes as {image.uri}, and is not in the index itself")
    if compare and result.comparison is None:
        print_notice(f"nothing to compare with: {reference} is not a local file")
    if result.file_changed and not compare:
        print_notice(f"the file has changed since it was ingested (--compare encodes it): {reference}")


def _check_found(requested: int, found: int, index: str) -> None:
    if not requested:
        raise UsageError("no image given", "Give an id, a URI or a path: stair-es inspect photos/cat.jpg", code="no-image-given")
    if not found:
        raise QueryError(
            f"none of the {requested} images could be shown" if requested > 1 else f"there is nothing to show from {index!r}",
            "stair-es search --json prints ids and URIs; documents appear after a refresh of the index.",
            code="nothing-to-show",
        )
    if found < requested:
        print_notice(f"{requested - found} of {requested} images could not be shown")
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _read_references(references: list[str]) -> Iterator[str]:
    for reference in references:
        if reference == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield reference


def _list_names(reference: str) -> list[str]:
    """Return the names that the document may have in the index."""
    from stair_es.sources.io.uris import from_file_uri, to_file_uri

    names = [parse_document_reference(reference), reference]
    with suppress(ValueError):
        names.append(to_file_uri(from_file_uri(reference)) if reference.startswith("file:") else to_file_uri(reference))
    return list(dict.fromkeys(names))


class InspectionPrinter:
    """Prints images to stdout, one after the other."""

    def __init__(self, index: str, *, k: int | None, show_all: bool, output_format: OutputFormat, thumbnail: bool | None) -> None:
        self._index, self._output_format, self._thumbnail = index, output_format, thumbnail
        self._k = None if show_all else k or (_MAX_TOKENS if output_format == "text" else None)
        self._printed_count = 0

    def print_image(self, reference: str, result: InspectionResult, inspector: Inspector) -> None:
        """Print one image."""
        self._printed_count += 1
        if self._output_format == "json":
            emit_json(to_json(reference, result, self._k))
        elif self._output_format == "csv":
            table = format_csv(_COLUMNS, build_inspection_rows(reference, result, self._k))
            print_csv(table if self._printed_count == 1 else table.partition("\n")[2])
        else:
            self._print_text(result, inspector)

    def _print_text(self, result: InspectionResult, inspector: Inspector) -> None:
        terminal = TerminalInfo.from_console(stdout)
        if self._printed_count > 1:
            stdout.print()
        stdout.print(format_line(display_path(result.uri) or (result.image.id if result.image else ""), terminal, "bold"))
        if result.image is None and result.encoded_file:
            message = f"  not in {self._index}: encoded by {result.encoded_file.current.model} now"
            stdout.print(format_line(message, terminal, "yellow"))
        if self._thumbnail if self._thumbnail is not None else can_show_thumbnails(stdout):
            thumbnail = inspector.get_thumbnail(result)
            rendered = render_terminal_thumbnail(thumbnail.data, stdout, required=bool(self._thumbnail)) if thumbnail else None
            if rendered is not None:
                stdout.print(rendered)
        for line in format_inspection(result, self._k, terminal):
            stdout.print(line)


def format_inspection(result: InspectionResult, k: int | None, terminal: TerminalInfo) -> list[Text]:
    """Format the tokens, the other fields, the effect of a policy, and the comparison. Pure."""
    lines = _format_tokens(result.vector, k, terminal)
    lines += _format_facts(_collect_facts(result), terminal)
    if result.policy_effect:
        lines += _format_policy_effect(result.policy_effect, result, terminal)
    if result.comparison and result.encoded_file:
        lines += _format_comparison(result.comparison, result.encoded_file.current.model, terminal)
    return lines


def to_json(reference: str, result: InspectionResult, k: int | None) -> dict[str, Any]:
    """Return the machine-readable form: `{"reference", "id", "uri", "origin", "tokens": [...], "fields": {...}, ...}`."""
    image, encoded_file = result.image, result.encoded_file
    comparison = result.comparison
    return {
        "reference": reference,
        "id": image.id if image else None,
        "index": image.index if image else None,
        "uri": result.uri,
        "origin": "index" if image else "model",
        "model": image.source.get("model") if image else encoded_file.current.model if encoded_file else None,
        "token_count": len(result.vector),
        "sum": math.fsum(result.vector.weights),
        "tokens": [dict(zip(_COLUMNS[5:], row, strict=True)) for row in _compute_shares(result.vector, k)],
        "fields": dict(image.source) if image else dict(encoded_file.facts) if encoded_file else {},
        "policy": asdict(result.policy_effect) if result.policy_effect else None,
        "compare": {"is_same": comparison.is_same, **asdict(comparison)} if comparison else None,
    }


def build_inspection_rows(reference: str, result: InspectionResult, k: int | None) -> Iterator[tuple[str | int | float, ...]]:
    """Yield one row per token: those in the index, then those that the model returns now."""
    id_ = result.image.id if result.image else ""
    vectors = {
        "index": result.image.vector if result.image else None,
        "model": result.encoded_file.current.vector if result.encoded_file else None,
    }
    for origin, vector in vectors.items():
        for rank, row in enumerate(_compute_shares(vector, k) if vector else [], start=1):
            yield (reference, id_, result.uri, origin, rank, *row)


def _compute_shares(vector: SparseVector, k: int | None) -> list[tuple[str, float, float, float]]:
    """Return token, weight, its share of the sum of all weights, and the cumulative share."""
    total, cumulative = math.fsum(vector.weights), 0.0
    rows = []
    for token, weight in vector.top(len(vector) if k is None else k):
        cumulative += weight
        rows.append((token, weight, weight / total, min(1.0, cumulative / total)))
    return rows


def _format_tokens(vector: SparseVector, k: int | None, terminal: TerminalInfo) -> list[Text]:
    if not len(vector):
        return [Text("  no word, so no query finds it", style="yellow")]
    rows = _compute_shares(vector, k)
    bars = [
        (token, weight, f"{format_weight(weight)}  {100 * share:>4.1f} %  {100 * cumulative:>5.1f} %")
        for token, weight, share, cumulative in rows
    ]
    lines = format_rows(bars, "  ", terminal)
    rest = len(vector) - len(rows)
    if rest:
        noun = "word has" if rest == 1 else "words have"
        lines.append(Text(f"  {rest:,} more {noun} {100 * (1 - rows[-1][3]):.1f} % of the weight (--all)", style="dim"))
    total = format_weight(math.fsum(vector.weights))
    lines.append(Text(f"  {len(vector):,} words, total weight {total}; columns: weight, share, cumulative share", style="dim"))
    return lines


def _collect_facts(result: InspectionResult) -> dict[str, Any]:
    if result.image is None:
        return dict(result.encoded_file.facts) if result.encoded_file else {}
    source = {name: value for name, value in result.image.source.items() if name not in _HIDDEN_FIELDS}
    leading = {name: source.pop(name) for name in _LEADING_FIELDS if name in source}
    return {"id": result.image.id, "index": result.image.index, "uri": result.image.uri, **source, **leading}


def _format_facts(facts: Mapping[str, Any], terminal: TerminalInfo) -> list[Text]:
    names = [escape_control(truncate_text(name, 24), terminal.encoding) for name in facts]
    cells = max(map(len, names), default=0)
    shown = (_format_fact(value) for value in facts.values())
    return [
        Text.assemble("  ", (f"{name:<{cells}}", "dim"), "  ", escape_control(truncate_text(value, 200), terminal.encoding))
        for name, value in zip(names, shown, strict=True)
        if value
    ]


def _format_fact(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _format_policy_effect(effect: PolicyEffect, result: InspectionResult, terminal: TerminalInfo) -> list[Text]:
    digest = result.image.source.get("policy") if result.image else None
    rules = f": {', '.join(effect.rules)}" if effect.rules else ""
    by = f"the token policy {digest}" if digest else "a token policy"
    return [
        format_line(f"  {by} changed it{rules}", terminal, "yellow"),
        *_format_differences(effect.tokens, ("without it", "with it"), terminal, reverse=True),
    ]


def _format_comparison(comparison: VectorComparison, model: str, terminal: TerminalInfo) -> list[Text]:
    if comparison.is_same:
        message, style = f"  the stored words are the same as those of {model} for the file now", "green"
    else:
        message, style = f"  {len(comparison.differences):,} words differ from those of {model} for the file now", "yellow"
    lines = [format_line(message, terminal, style)]
    lines += [format_line(f"    {reason}", terminal) for reason in comparison.reasons]
    if not comparison.is_same and not comparison.reasons:
        lines.append(Text("    cause not recorded: perhaps an enricher, another backend, or an edited document"))
    return [*lines, *_format_differences(comparison.differences, ("stored", "now"), terminal, reverse=False)]


def _format_differences(
    differences: Sequence[WeightDifference], titles: tuple[str, str], terminal: TerminalInfo, *, reverse: bool
) -> list[Text]:
    """Format one line per token: before and after."""
    lines = []
    tokens = [escape_control(difference.token, terminal.encoding) for difference in differences[:_MAX_DIFFERENCES]]
    cells = max(map(len, tokens), default=0)
    for token, difference in zip(tokens, differences, strict=False):
        pair = (difference.current, difference.stored) if reverse else (difference.stored, difference.current)
        before, after = (format_weight(value) if value else "-" for value in pair)
        lines.append(Text.assemble("    ", (f"{token:<{cells}}", "cyan"), f"  {titles[0]} {before:>6}, {titles[1]} {after:>6}"))
    if len(differences) > _MAX_DIFFERENCES:
        lines.append(Text(f"    {len(differences) - _MAX_DIFFERENCES:,} more (--json)", style="dim"))
    return lines


def can_show_thumbnails(console: Console) -> bool:
    """Return whether the console is a terminal with at least 256 colors and Unicode."""
    colors = console.color_system in ("256", "truecolor") and not console.no_color
    return console.is_terminal and colors and console.encoding.lower().startswith("utf")


def render_terminal_thumbnail(data: bytes, console: Console, *, required: bool) -> RenderableType | None:
    """Render a thumbnail, at most as wide as the console; None if it is not an image, or the console is too narrow.

    Raises:
        MissingExtra: If it is required and rich-pixels isn't installed.
    """
    from stair_es.optional import import_optional

    try:
        pixels = import_optional("rich_pixels", "terminal").Pixels
    except MissingExtra:
        if required:
            raise
        return None
    from PIL import Image
    from rich.padding import Padding

    from stair_es.sources.image.decode import DecodeLimits, decode_image
    from stair_es.types import ImageSpec

    cells = min(_MAX_THUMBNAIL_CELLS, console.width - 2 * _THUMBNAIL_MARGIN)
    if cells < _MIN_THUMBNAIL_CELLS:
        return None
    try:
        decoded = decode_image(data, ImageSpec(size_px=cells), DecodeLimits(max_pixels=_MAX_THUMBNAIL_PIXELS))
    except DecodeError:
        return None
    left, upper, right, lower = decoded.box
    cropped = Image.fromarray(decoded.pixels_HWC[upper : max(lower, upper + 1), left : max(right, left + 1)])
    return Padding(pixels.from_image(cropped), (0, 0, 0, _THUMBNAIL_MARGIN), expand=False)

"""Tokens of one image, as text, JSON or CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .bars import TerminalInfo, display_path, escape_control, format_line, format_rows, format_weight, truncate_text
from .console import emit_json, stdout
from .csv import OutputFormat
from .csv import format_csv as csv_lines
from .csv import print_csv as show_csv
from .thumbnail import can_show_thumbnails, render_terminal_thumbnail

if TYPE_CHECKING:
    from stair_es.inspection.diff import PolicyEffect, VectorComparison, WeightDifference
    from stair_es.inspection.inspector import InspectionResult, Inspector
    from stair_es.types import SparseVector

_MAX_TOKENS = 20
_MAX_DIFFERENCES = 12
_COLUMNS = ("reference", "id", "uri", "origin", "rank", "token", "weight", "share", "cumulative")
_LEADING_FIELDS = (
    "source",
    "model",
    "width",
    "height",
    "format",
    "colours",
    "taken_at",
    "ingested_at",
    "sha256",
    "fingerprint",
    "version",
)
_HIDDEN_FIELDS = ("uri", "top_tokens")
"""Fields that are shown elsewhere."""


class InspectionPrinter:
    """Prints images to stdout, one after the other."""

    def __init__(self, index: str, *, k: int | None, every: bool, form: OutputFormat, thumbnail: bool | None) -> None:
        self._index, self._form, self._thumbnail = index, form, thumbnail
        self._k = None if every else k or (_MAX_TOKENS if form == "text" else None)
        self._shown = 0

    def print_image(self, reference: str, found: InspectionResult, inspector: Inspector) -> None:
        """Print one image."""
        self._shown += 1
        if self._form == "json":
            emit_json(to_json(reference, found, self._k))
        elif self._form == "csv":
            table = csv_lines(_COLUMNS, build_inspection_rows(reference, found, self._k))
            show_csv(table if self._shown == 1 else table.partition("\n")[2])
        else:
            self._print_text(found, inspector)

    def _print_text(self, found: InspectionResult, inspector: Inspector) -> None:
        canvas = TerminalInfo.from_console(stdout)
        if self._shown > 1:
            stdout.print()
        stdout.print(format_line(display_path(found.uri) or (found.image.id if found.image else ""), canvas, "bold"))
        if found.image is None and found.encoded_file:
            said = f"  not in {self._index}: encoded by {found.encoded_file.current.model} now"
            stdout.print(format_line(said, canvas, "yellow"))
        if self._thumbnail if self._thumbnail is not None else can_show_thumbnails(stdout):
            small = inspector.get_thumbnail(found)
            drawn = render_terminal_thumbnail(small.data, stdout, asked=bool(self._thumbnail)) if small else None
            if drawn is not None:
                stdout.print(drawn)
        for line in format_inspection(found, self._k, canvas):
            stdout.print(line)


def format_inspection(found: InspectionResult, k: int | None, canvas: TerminalInfo) -> list[Text]:
    """Format the tokens, the other fields, the effect of a policy, and the comparison. Pure."""
    made = _format_tokens(found.vector, k, canvas)
    made += _format_facts(_collect_facts(found), canvas)
    if found.policy_effect:
        made += _format_policy_effect(found.policy_effect, found, canvas)
    if found.comparison and found.encoded_file:
        made += _format_comparison(found.comparison, found.encoded_file.current.model, canvas)
    return made


def to_json(reference: str, found: InspectionResult, k: int | None) -> dict[str, Any]:
    """Return the machine-readable form: `{"reference", "id", "uri", "origin", "tokens": [...], "fields": {...}, ...}`."""
    image, seen = found.image, found.encoded_file
    comparison = found.comparison
    return {
        "reference": reference,
        "id": image.id if image else None,
        "index": image.index if image else None,
        "uri": found.uri,
        "origin": "index" if image else "model",
        "model": image.source.get("model") if image else seen.current.model if seen else None,
        "token_count": len(found.vector),
        "sum": math.fsum(found.vector.weights),
        "tokens": [dict(zip(_COLUMNS[5:], row, strict=True)) for row in _compute_shares(found.vector, k)],
        "fields": dict(image.source) if image else dict(seen.facts) if seen else {},
        "policy": asdict(found.policy_effect) if found.policy_effect else None,
        "compare": {"is_same": comparison.is_same, **asdict(comparison)} if comparison else None,
    }


def build_inspection_rows(reference: str, found: InspectionResult, k: int | None) -> Iterator[tuple[str | int | float, ...]]:
    """Yield one row per token: those in the index, then those that the model returns now."""
    id_ = found.image.id if found.image else ""
    vectors = {
        "index": found.image.vector if found.image else None,
        "model": found.encoded_file.current.vector if found.encoded_file else None,
    }
    for origin, vector in vectors.items():
        for rank, row in enumerate(_compute_shares(vector, k) if vector else [], start=1):
            yield (reference, id_, found.uri, origin, rank, *row)


def _compute_shares(vector: SparseVector, k: int | None) -> list[tuple[str, float, float, float]]:
    """Return token, weight, its share of the sum of all weights, and the cumulative share."""
    total, so_far = math.fsum(vector.weights), 0.0
    rows = []
    for word, weight in vector.top(len(vector) if k is None else k):
        so_far += weight
        rows.append((word, weight, weight / total, min(1.0, so_far / total)))
    return rows


def _format_tokens(vector: SparseVector, k: int | None, canvas: TerminalInfo) -> list[Text]:
    if not len(vector):
        return [Text("  no word, so no query finds it", style="yellow")]
    rows = _compute_shares(vector, k)
    drawn = [
        (word, weight, f"{format_weight(weight)}  {100 * share:>4.1f} %  {100 * up_to:>5.1f} %")
        for word, weight, share, up_to in rows
    ]
    made = format_rows(drawn, "  ", canvas)
    rest = len(vector) - len(rows)
    if rest:
        having = "word has" if rest == 1 else "words have"
        made.append(Text(f"  {rest:,} more {having} {100 * (1 - rows[-1][3]):.1f} % of the weight (--all)", style="dim"))
    together = format_weight(math.fsum(vector.weights))
    made.append(Text(f"  {len(vector):,} words, total weight {together}; columns: weight, share, cumulative share", style="dim"))
    return made


def _collect_facts(found: InspectionResult) -> dict[str, Any]:
    if found.image is None:
        return dict(found.encoded_file.facts) if found.encoded_file else {}
    source = {name: value for name, value in found.image.source.items() if name not in _HIDDEN_FIELDS}
    first = {name: source.pop(name) for name in _LEADING_FIELDS if name in source}
    return {"id": found.image.id, "index": found.image.index, "uri": found.image.uri, **source, **first}


def _format_facts(facts: Mapping[str, Any], canvas: TerminalInfo) -> list[Text]:
    names = [escape_control(truncate_text(name, 24), canvas.encoding) for name in facts]
    cells = max(map(len, names), default=0)
    shown = (_format_fact(value) for value in facts.values())
    return [
        Text.assemble("  ", (f"{name:<{cells}}", "dim"), "  ", escape_control(truncate_text(value, 200), canvas.encoding))
        for name, value in zip(names, shown, strict=True)
        if value
    ]


def _format_fact(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _format_policy_effect(steered: PolicyEffect, found: InspectionResult, canvas: TerminalInfo) -> list[Text]:
    digest = found.image.source.get("policy") if found.image else None
    rules = f": {', '.join(steered.rules)}" if steered.rules else ""
    by = f"the token policy {digest}" if digest else "a token policy"
    return [
        format_line(f"  {by} changed it{rules}", canvas, "yellow"),
        *_format_differences(steered.tokens, ("without it", "with it"), canvas, reverse=True),
    ]


def _format_comparison(comparison: VectorComparison, model: str, canvas: TerminalInfo) -> list[Text]:
    if comparison.is_same:
        said, style = f"  the stored words are the same as those of {model} for the file now", "green"
    else:
        said, style = f"  {len(comparison.differences):,} words differ from those of {model} for the file now", "yellow"
    made = [format_line(said, canvas, style)]
    made += [format_line(f"    {reason}", canvas) for reason in comparison.reasons]
    if not comparison.is_same and not comparison.reasons:
        made.append(Text("    cause not recorded: perhaps an enricher, another backend, or an edited document"))
    return [*made, *_format_differences(comparison.differences, ("stored", "now"), canvas, reverse=False)]


def _format_differences(
    differences: Sequence[WeightDifference], titles: tuple[str, str], canvas: TerminalInfo, *, reverse: bool
) -> list[Text]:
    """Format one line per token: before and after."""
    made = []
    words = [escape_control(each.token, canvas.encoding) for each in differences[:_MAX_DIFFERENCES]]
    cells = max(map(len, words), default=0)
    for word, each in zip(words, differences, strict=False):
        pair = (each.current, each.stored) if reverse else (each.stored, each.current)
        before, after = (format_weight(value) if value else "-" for value in pair)
        made.append(Text.assemble("    ", (f"{word:<{cells}}", "cyan"), f"  {titles[0]} {before:>6}, {titles[1]} {after:>6}"))
    if len(differences) > _MAX_DIFFERENCES:
        made.append(Text(f"    {len(differences) - _MAX_DIFFERENCES:,} more (--json)", style="dim"))
    return made

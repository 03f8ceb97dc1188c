"""Tokens of one image, as text, JSON or CSV."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.text import Text

from .bars import Canvas, number, plain_line, readable, row_lines, shortened, visible
from .csv_output import Form
from .csv_output import lines as csv_lines
from .csv_output import show as show_csv
from .output import emit_json, stdout
from .thumbnail import picture, shows_pictures

if TYPE_CHECKING:
    from stair_es.inspection.compare import Comparison, Difference, Steered
    from stair_es.inspection.inspector import Inspected, Inspector
    from stair_es.types import SparseVector

_WORDS = 20
_DIFFERENCES = 12
_COLUMNS = ("reference", "id", "uri", "from", "rank", "word", "weight", "share", "cumulative")
_FIRST = (
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
_ELSEWHERE = ("uri", "top_tokens")
"""Fields that are shown elsewhere."""


class Printer:
    """Prints images to stdout, one after the other."""

    def __init__(self, index: str, *, k: int | None, every: bool, form: Form, thumbnail: bool | None) -> None:
        self._index, self._form, self._thumbnail = index, form, thumbnail
        self._k = None if every else k or (_WORDS if form == "text" else None)
        self._shown = 0

    def show(self, reference: str, found: Inspected, inspector: Inspector) -> None:
        """Print one image."""
        self._shown += 1
        if self._form == "json":
            emit_json(to_json(reference, found, self._k))
        elif self._form == "csv":
            table = csv_lines(_COLUMNS, to_rows(reference, found, self._k))
            show_csv(table if self._shown == 1 else table.partition("\n")[2])
        else:
            self._print(found, inspector)

    def _print(self, found: Inspected, inspector: Inspector) -> None:
        canvas = Canvas.of(stdout)
        if self._shown > 1:
            stdout.print()
        stdout.print(plain_line(readable(found.uri) or (found.image.id if found.image else ""), canvas, "bold"))
        if found.image is None and found.seen:
            said = f"  not in {self._index}: encoded by {found.seen.now.model} now"
            stdout.print(plain_line(said, canvas, "yellow"))
        if self._thumbnail if self._thumbnail is not None else shows_pictures(stdout):
            small = inspector.thumbnail(found)
            drawn = picture(small.data, stdout, asked=bool(self._thumbnail)) if small else None
            if drawn is not None:
                stdout.print(drawn)
        for line in lines(found, self._k, canvas):
            stdout.print(line)


def lines(found: Inspected, k: int | None, canvas: Canvas) -> list[Text]:
    """Format the tokens, the other fields, the effect of a policy, and the comparison. Pure."""
    made = _word_lines(found.vector, k, canvas)
    made += _fact_lines(_facts(found), canvas)
    if found.steered:
        made += _policy_lines(found.steered, found, canvas)
    if found.comparison and found.seen:
        made += _comparison_lines(found.comparison, found.seen.now.model, canvas)
    return made


def to_json(reference: str, found: Inspected, k: int | None) -> dict[str, Any]:
    """Return the machine-readable form: `{"reference", "id", "uri", "from", "words": [...], "fields": {...}, ...}`."""
    image, seen = found.image, found.seen
    comparison = found.comparison
    return {
        "reference": reference,
        "id": image.id if image else None,
        "index": image.index if image else None,
        "uri": found.uri,
        "from": "index" if image else "model",
        "model": image.source.get("model") if image else seen.now.model if seen else None,
        "words_in_all": len(found.vector),
        "sum": math.fsum(found.vector.weights),
        "words": [dict(zip(_COLUMNS[5:], row, strict=True)) for row in _shares(found.vector, k)],
        "fields": dict(image.source) if image else dict(seen.facts) if seen else {},
        "policy": asdict(found.steered) if found.steered else None,
        "compare": {"same": comparison.same, **asdict(comparison)} if comparison else None,
    }


def to_rows(reference: str, found: Inspected, k: int | None) -> Iterator[tuple[str | int | float, ...]]:
    """Yield one row per token: those in the index, then those that the model returns now."""
    id_ = found.image.id if found.image else ""
    vectors = {"index": found.image.vector if found.image else None, "model": found.seen.now.vector if found.seen else None}
    for origin, vector in vectors.items():
        for rank, row in enumerate(_shares(vector, k) if vector else [], start=1):
            yield (reference, id_, found.uri, origin, rank, *row)


def _shares(vector: SparseVector, k: int | None) -> list[tuple[str, float, float, float]]:
    """Return token, weight, its share of the sum of all weights, and the cumulative share."""
    total, so_far = math.fsum(vector.weights), 0.0
    rows = []
    for word, weight in vector.top(len(vector) if k is None else k):
        so_far += weight
        rows.append((word, weight, weight / total, min(1.0, so_far / total)))
    return rows


def _word_lines(vector: SparseVector, k: int | None, canvas: Canvas) -> list[Text]:
    if not len(vector):
        return [Text("  no word, so no query finds it", style="yellow")]
    rows = _shares(vector, k)
    drawn = [
        (word, weight, f"{number(weight)}  {100 * share:>4.1f} %  {100 * up_to:>5.1f} %") for word, weight, share, up_to in rows
    ]
    made = row_lines(drawn, "  ", canvas)
    rest = len(vector) - len(rows)
    if rest:
        having = "word has" if rest == 1 else "words have"
        made.append(Text(f"  {rest:,} more {having} {100 * (1 - rows[-1][3]):.1f} % of the weight (--all)", style="dim"))
    together = number(math.fsum(vector.weights))
    made.append(
        Text(
            f"  {len(vector):,} words, {together} together; next to each weight its share, and the cumulative share", style="dim"
        )
    )
    return made


def _facts(found: Inspected) -> dict[str, Any]:
    if found.image is None:
        return dict(found.seen.facts) if found.seen else {}
    source = {name: value for name, value in found.image.source.items() if name not in _ELSEWHERE}
    first = {name: source.pop(name) for name in _FIRST if name in source}
    return {"id": found.image.id, "index": found.image.index, "uri": found.image.uri, **source, **first}


def _fact_lines(facts: Mapping[str, Any], canvas: Canvas) -> list[Text]:
    names = [visible(shortened(name, 24), canvas.encoding) for name in facts]
    cells = max(map(len, names), default=0)
    shown = (_fact_text(value) for value in facts.values())
    return [
        Text.assemble("  ", (f"{name:<{cells}}", "dim"), "  ", visible(shortened(value, 200), canvas.encoding))
        for name, value in zip(names, shown, strict=True)
        if value
    ]


def _fact_text(value: object) -> str:
    if isinstance(value, list) and value and all(isinstance(part, str) for part in value):
        return ", ".join(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _policy_lines(steered: Steered, found: Inspected, canvas: Canvas) -> list[Text]:
    digest = found.image.source.get("policy") if found.image else None
    rules = f": {', '.join(steered.rules)}" if steered.rules else ""
    by = f"the word policy {digest}" if digest else "a word policy"
    return [
        plain_line(f"  {by} changed it{rules}", canvas, "yellow"),
        *_difference_lines(steered.words, ("without it", "with it"), canvas, reverse=True),
    ]


def _comparison_lines(comparison: Comparison, model: str, canvas: Canvas) -> list[Text]:
    if comparison.same:
        said, style = f"  the stored words are those that {model} gives the file now", "green"
    else:
        said, style = f"  {len(comparison.differences):,} words are stored otherwise than {model} gives them now", "yellow"
    made = [plain_line(said, canvas, style)]
    made += [plain_line(f"    {reason}", canvas) for reason in comparison.reasons]
    if not comparison.same and not comparison.reasons:
        made.append(Text("    no recorded cause: an enricher, another backend, or an edited document"))
    return [*made, *_difference_lines(comparison.differences, ("stored", "now"), canvas, reverse=False)]


def _difference_lines(differences: Sequence[Difference], titles: tuple[str, str], canvas: Canvas, *, reverse: bool) -> list[Text]:
    """Format one line per token: before and after."""
    made = []
    words = [visible(each.word, canvas.encoding) for each in differences[:_DIFFERENCES]]
    cells = max(map(len, words), default=0)
    for word, each in zip(words, differences, strict=False):
        pair = (each.now, each.stored) if reverse else (each.stored, each.now)
        before, after = (number(value) if value else "-" for value in pair)
        made.append(Text.assemble("    ", (f"{word:<{cells}}", "cyan"), f"  {titles[0]} {before:>6}, {titles[1]} {after:>6}"))
    if len(differences) > _DIFFERENCES:
        made.append(Text(f"    {len(differences) - _DIFFERENCES:,} more (--json)", style="dim"))
    return made

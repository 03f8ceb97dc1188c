"""The vocabulary of an index, as text, JSON or CSV."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from stair_es.inspection.figures import Order, WordFigures, matching, ordered
from stair_es.inspection.muting import stop_words
from stair_es.inspection.vocabulary import dead as dead_words

from .bars import Canvas, bar, number, plain_line, readable, shortened, visible
from .csv_output import Form, emit_csv
from .output import emit_json, plain, stdout

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stair_es.inspection.corpus import Corpus
    from stair_es.inspection.vocabulary import ModelWords
    from stair_es.search.known import Known

_ROWS = 30
_NAMED = 12
_BAR_CELLS, _MOST_WORD_CELLS, _MOST_NAME_CELLS, _OTHER_CELLS = 12, 24, 40, 75
_COLUMNS = ("word", "images", "share", "mean", "max", "weight_share", "flatness", "stop_word", "example")


@dataclass(frozen=True, kw_only=True)
class View:
    """The selected part of a vocabulary."""

    corpus: Corpus
    known: Known
    told: ModelWords
    rows: tuple[WordFigures, ...]
    """The selected tokens, in the requested order."""
    stop_words: tuple[WordFigures, ...]
    """Candidates among all tokens."""
    flat: float
    dead: tuple[str, ...]
    """The selected unused tokens."""
    dead_count: int
    """Number of all unused tokens."""


def view(found: Corpus, known: Known, told: ModelWords, *, flat: float, order: Order, min_df: int, match: str) -> View:
    """Select the rows to show. Pure."""
    seen = [row.word for row in found.figures]
    rows = [row for row in found.figures if row.images >= min_df]
    dead = dead_words(told, seen, known.policy)
    if match:
        wanted = matching(seen, match)
        rows = [row for row in rows if row.word in wanted]
    return View(
        corpus=found,
        known=known,
        told=told,
        rows=ordered(rows, order),
        stop_words=stop_words(found.figures, found.images, flat),
        flat=flat,
        dead=tuple(sorted(matching(dead, match))) if match else dead,
        dead_count=len(dead),
    )


def emit(shown: View, k: int | None, *, index: str, dead: bool, form: Form) -> None:
    """Print the tokens, or the unused ones, to stdout."""
    if form == "json":
        emit_json(to_json(shown, k, index))
    elif form == "csv" and dead:
        emit_csv(["word"], [[word] for word in shown.dead[:k]])
    elif form == "csv":
        emit_csv(_COLUMNS, to_rows(shown, k))
    elif dead:
        for word in shown.dead[:k]:
            plain(visible(word, stdout.encoding))
    else:
        for line in lines(shown, k or _ROWS, index, Canvas.of(stdout)):
            stdout.print(line)


def to_json(shown: View, k: int | None, index: str) -> dict[str, Any]:
    """Return the machine-readable form: `{"index", "images", "words": [...], "stop_words": {...}, "dead": {...}, ...}`."""
    corpus, known = shown.corpus, shown.known
    return {
        "index": index,
        "model": known.model,
        "policy": known.policy.label if known.policy else None,
        "documents": corpus.documents,
        "without_uri": corpus.without_uri,
        "images": corpus.images,
        "missed": corpus.missed,
        "empty": corpus.empty,
        "words_an_image": corpus.words_an_image,
        "distinct": len(corpus.figures),
        "sample": asdict(corpus.sample) if corpus.sample else None,
        "words": [asdict(row) for row in shown.rows[:k]],
        "stop_words": {"flat": shown.flat, "words": [row.word for row in shown.stop_words]},
        "dead": {
            "vocabulary": shown.told.of,
            "why": shown.told.why or None,
            "words_in_it": len(shown.told.words),
            "count": shown.dead_count,
            "words": list(shown.dead),
        },
    }


def to_rows(shown: View, k: int | None) -> Iterable[tuple[str | int | float | bool, ...]]:
    """Yield one row per token, with the columns of the header."""
    stop = {row.word for row in shown.stop_words}
    for row in shown.rows[:k]:
        yield (
            row.word,
            row.images,
            row.share,
            row.mean,
            row.max,
            row.weight_share,
            row.flatness,
            row.word in stop,
            row.example,
        )


def lines(shown: View, k: int, index: str, canvas: Canvas) -> list[Text]:
    """Format a table of the tokens, and remarks on the others. Pure."""
    corpus, holds = shown.corpus, shown.known.holds
    one = holds.removesuffix("s")
    each = f"{corpus.words_an_image:.1f} words {'an' if holds == 'images' else 'a'} {one}"
    head = f"{index}: {corpus.images:,} {holds}, {each}, {len(corpus.figures):,} different words"
    made = [plain_line(f"{head} ({shown.known.model})", canvas, "bold")]
    if corpus.empty:
        made.append(plain_line(f"{corpus.empty:,} {holds} have no word, so no query finds them", canvas, "yellow"))
    if shown.rows:
        made += _table(shown.rows[:k], {row.word for row in shown.stop_words}, holds, canvas)
    elif corpus.figures:
        made.append(plain_line(f"no {one} has a matching word (--match, --min-df)", canvas, "yellow"))
    if len(shown.rows) > k:
        more = len(shown.rows) - k
        made.append(plain_line(f"{more:,} more word{'s' * (more > 1)} (-k, --json, --csv)", canvas, "dim"))
    return [*made, *_stop_lines(shown, canvas), *_dead_lines(shown, canvas)]


def _table(rows: Sequence[WordFigures], stop: set[str], holds: str, canvas: Canvas) -> list[Text]:
    words = [_cut(visible(row.word, canvas.encoding) or '""', _MOST_WORD_CELLS) for row in rows]
    cells = max(4, *map(cell_len, words))
    names = [_cut(visible(_name(row.example), canvas.encoding), _MOST_NAME_CELLS) for row in rows]
    counts = max(len(holds), *(len(f"{row.images:,}") for row in rows))
    with_bar = canvas.width >= cells + counts + _BAR_CELLS + _OTHER_CELLS
    titles = f"{holds:>{counts}}            mean     max   of all  flat  heaviest in"
    made = [Text(f"  {'word':<{cells}}  {' ' * (_BAR_CELLS + 2) if with_bar else ''}{titles}", style="dim")]
    for row, word, name in zip(rows, words, names, strict=True):
        parts = [
            f"{row.images:>{counts},} {100 * row.share:>5.1f} %",
            f"{number(row.mean):>6}",
            f"{number(row.max):>6}",
            f"{100 * row.weight_share:>5.2f} %",
        ]
        drawn = (bar(row.share, _BAR_CELLS, canvas.encoding) + "  ", "green") if with_bar else ""
        flat = (f"{row.flatness:>4.2f}", "yellow" if row.word in stop else "")
        padded = (word + " " * (cells - cell_len(word)), "cyan")
        made.append(Text.assemble("  ", padded, "  ", drawn, "  ".join(parts), "  ", flat, "  ", (name, "dim")))
    return made


def _stop_lines(shown: View, canvas: Canvas) -> list[Text]:
    stop = shown.stop_words
    if not stop:
        return []
    named = ", ".join(visible(row.word) for row in stop[:_NAMED]) + (
        f", {len(stop) - _NAMED:,} more" if len(stop) > _NAMED else ""
    )
    share = 100 * sum(row.weight_share for row in stop)
    said = f"{len(stop):,} stop-word candidates (flatness {shown.flat:g} or more), {share:.1f} % of all weight: {named}"
    return [plain_line(said, canvas, "yellow")]


def _dead_lines(shown: View, canvas: Canvas) -> list[Text]:
    told = shown.told
    whose = f"of {told.of}" if not told.why else f"of {told.of} ({told.why})"
    said = "not seen in the sample" if shown.corpus.sample else f"in no {shown.known.holds.removesuffix('s')}"
    return [
        plain_line(f"{shown.dead_count:,} of the {len(told.words):,} words {whose} are {said} (--dead lists them)", canvas, "dim")
    ]


def _name(uri: str) -> str:
    """Return the last part of a path."""
    return readable(uri).rstrip("/").rpartition("/")[2] or uri


def _cut(text: str, cells: int) -> str:
    text = shortened(text, cells)
    while cell_len(text) > cells:
        text = text[:-1]
    return text

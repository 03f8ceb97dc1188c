"""The vocabulary of an index, as text, JSON or CSV."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from stair_es.inspection.model_vocabulary import find_unused_tokens
from stair_es.inspection.stop_words import find_stop_words
from stair_es.inspection.token_stats import StatsOrder, TokenStats, match_tokens, sort_token_stats

from .bars import TerminalInfo, display_path, escape_control, format_line, format_weight, render_bar, truncate_text
from .console import emit_json, print_plain, stdout
from .csv import OutputFormat, emit_csv

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stair_es.inspection.model_vocabulary import ModelVocabulary
    from stair_es.inspection.vocabulary_stats import VocabularyStats
    from stair_es.search.index_info import IndexInfo

_MAX_ROWS = 30
_MAX_NAMED = 12
_BAR_CELLS, _MOST_WORD_CELLS, _MOST_NAME_CELLS, _OTHER_CELLS = 12, 24, 40, 81
_COLUMNS = (
    "token",
    "images",
    "image_share",
    "mean_weight",
    "max_weight",
    "weight_share",
    "uniformity",
    "stop_word",
    "example",
)


@dataclass(frozen=True, kw_only=True)
class VocabularyView:
    """The selected part of a vocabulary."""

    corpus: VocabularyStats
    index_info: IndexInfo
    vocabulary: ModelVocabulary
    rows: tuple[TokenStats, ...]
    """The selected tokens, in the requested order."""
    stop_words: tuple[TokenStats, ...]
    """Candidates among all tokens."""
    uniformity: float
    unused: tuple[str, ...]
    """The selected unused tokens."""
    unused_count: int
    """Number of all unused tokens."""


def build_vocabulary_view(
    found: VocabularyStats,
    known: IndexInfo,
    told: ModelVocabulary,
    *,
    uniformity: float,
    order: StatsOrder,
    min_df: int,
    match: str,
) -> VocabularyView:
    """Select the rows to show. Pure."""
    seen = [row.token for row in found.token_stats]
    rows = [row for row in found.token_stats if row.images >= min_df]
    unused = find_unused_tokens(told, seen, known.policy)
    if match:
        wanted = match_tokens(seen, match)
        rows = [row for row in rows if row.token in wanted]
    return VocabularyView(
        corpus=found,
        index_info=known,
        vocabulary=told,
        rows=sort_token_stats(rows, order),
        stop_words=find_stop_words(found.token_stats, found.images, uniformity),
        uniformity=uniformity,
        unused=tuple(sorted(match_tokens(unused, match))) if match else unused,
        unused_count=len(unused),
    )


def print_vocabulary(shown: VocabularyView, k: int | None, *, index: str, unused: bool, form: OutputFormat) -> None:
    """Print the tokens, or the unused ones, to stdout."""
    if form == "json":
        emit_json(to_json(shown, k, index))
    elif form == "csv" and unused:
        emit_csv(["token"], [[word] for word in shown.unused[:k]])
    elif form == "csv":
        emit_csv(_COLUMNS, build_vocabulary_rows(shown, k))
    elif unused:
        for word in shown.unused[:k]:
            print_plain(escape_control(word, stdout.encoding))
    else:
        for line in format_vocabulary(shown, k or _MAX_ROWS, index, TerminalInfo.from_console(stdout)):
            stdout.print(line)


def to_json(shown: VocabularyView, k: int | None, index: str) -> dict[str, Any]:
    """Return the machine-readable form: `{"index", "images", "tokens": [...], "stop_words": {...}, "unused": {...}, ...}`."""
    corpus, known = shown.corpus, shown.index_info
    return {
        "index": index,
        "model": known.model,
        "policy": known.policy.label if known.policy else None,
        "documents": corpus.documents,
        "without_uri": corpus.without_uri,
        "images": corpus.images,
        "missed_count": corpus.missed_count,
        "without_tokens": corpus.empty,
        "mean_tokens": corpus.mean_tokens,
        "distinct_tokens": len(corpus.token_stats),
        "sample": asdict(corpus.sample) if corpus.sample else None,
        "tokens": [asdict(row) for row in shown.rows[:k]],
        "stop_words": {"threshold": shown.uniformity, "tokens": [row.token for row in shown.stop_words]},
        "unused": {
            "vocabulary": shown.vocabulary.source,
            "reason": shown.vocabulary.reason or None,
            "vocabulary_size": len(shown.vocabulary.tokens),
            "count": shown.unused_count,
            "tokens": list(shown.unused),
        },
    }


def build_vocabulary_rows(shown: VocabularyView, k: int | None) -> Iterable[tuple[str | int | float | bool, ...]]:
    """Yield one row per token, with the columns of the header."""
    stop = {row.token for row in shown.stop_words}
    for row in shown.rows[:k]:
        yield (
            row.token,
            row.images,
            row.image_share,
            row.mean_weight,
            row.max_weight,
            row.weight_share,
            row.uniformity,
            row.token in stop,
            row.example,
        )


def format_vocabulary(shown: VocabularyView, k: int, index: str, canvas: TerminalInfo) -> list[Text]:
    """Format a table of the tokens, and remarks on the others. Pure."""
    corpus, holds = shown.corpus, shown.index_info.content_type
    one = holds.removesuffix("s")
    each = f"{corpus.mean_tokens:.1f} words per {one}"
    head = f"{index}: {corpus.images:,} {holds}, {each}, {len(corpus.token_stats):,} different words"
    made = [format_line(f"{head} ({shown.index_info.model})", canvas, "bold")]
    if corpus.empty:
        made.append(format_line(f"{corpus.empty:,} {holds} have no word, so no query finds them", canvas, "yellow"))
    if shown.rows:
        made += _format_table(shown.rows[:k], {row.token for row in shown.stop_words}, holds, canvas)
    elif corpus.token_stats:
        made.append(format_line(f"no {one} has a matching word (--match, --min-df)", canvas, "yellow"))
    if len(shown.rows) > k:
        more = len(shown.rows) - k
        made.append(format_line(f"{more:,} more word{'s' * (more > 1)} (-k, --json, --csv)", canvas, "dim"))
    return [*made, *_format_stop_words(shown, canvas), *_format_unused(shown, canvas)]


def _format_table(rows: Sequence[TokenStats], stop: set[str], holds: str, canvas: TerminalInfo) -> list[Text]:
    words = [_truncate_cells(escape_control(row.token, canvas.encoding) or '""', _MOST_WORD_CELLS) for row in rows]
    cells = max(5, *map(cell_len, words))
    names = [_truncate_cells(escape_control(_get_file_name(row.example), canvas.encoding), _MOST_NAME_CELLS) for row in rows]
    counts = max(len(holds), *(len(f"{row.images:,}") for row in rows))
    with_bar = canvas.width >= cells + counts + _BAR_CELLS + _OTHER_CELLS
    titles = f"{holds:>{counts}}            mean     max    share  uniformity  heaviest in"
    made = [Text(f"  {'token':<{cells}}  {' ' * (_BAR_CELLS + 2) if with_bar else ''}{titles}", style="dim")]
    for row, word, name in zip(rows, words, names, strict=True):
        parts = [
            f"{row.images:>{counts},} {100 * row.image_share:>5.1f} %",
            f"{format_weight(row.mean_weight):>6}",
            f"{format_weight(row.max_weight):>6}",
            f"{100 * row.weight_share:>5.2f} %",
        ]
        drawn = (render_bar(row.image_share, _BAR_CELLS, canvas.encoding) + "  ", "green") if with_bar else ""
        uniformity = (f"{row.uniformity:>10.2f}", "yellow" if row.token in stop else "")
        padded = (word + " " * (cells - cell_len(word)), "cyan")
        made.append(Text.assemble("  ", padded, "  ", drawn, "  ".join(parts), "  ", uniformity, "  ", (name, "dim")))
    return made


def _format_stop_words(shown: VocabularyView, canvas: TerminalInfo) -> list[Text]:
    stop = shown.stop_words
    if not stop:
        return []
    named = ", ".join(escape_control(row.token) for row in stop[:_MAX_NAMED]) + (
        f", {len(stop) - _MAX_NAMED:,} more" if len(stop) > _MAX_NAMED else ""
    )
    share = 100 * sum(row.weight_share for row in stop)
    said = f"{len(stop):,} stop-word candidates (uniformity {shown.uniformity:g} or more), {share:.1f} % of all weight: {named}"
    return [format_line(said, canvas, "yellow")]


def _format_unused(shown: VocabularyView, canvas: TerminalInfo) -> list[Text]:
    told = shown.vocabulary
    whose = f"of {told.source}" if not told.reason else f"of {told.source} ({told.reason})"
    said = "not seen in the sample" if shown.corpus.sample else f"in no {shown.index_info.content_type.removesuffix('s')}"
    return [
        format_line(
            f"{shown.unused_count:,} of the {len(told.tokens):,} words {whose} are {said} (--unused lists them)", canvas, "dim"
        )
    ]


def _get_file_name(uri: str) -> str:
    """Return the last part of a path."""
    return display_path(uri).rstrip("/").rpartition("/")[2] or uri


def _truncate_cells(text: str, cells: int) -> str:
    text = truncate_text(text, cells)
    while cell_len(text) > cells:
        text = text[:-1]
    return text

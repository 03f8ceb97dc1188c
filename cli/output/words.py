"""The vocabulary of an index, as text, JSON or CSV."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from rich.cells import cell_len
from rich.text import Text

from stair_es.inspection.model_vocabulary import find_unused_tokens
from stair_es.inspection.token_stats import StatsOrder, TokenStats, find_stop_words, match_tokens, sort_token_stats

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
_COLUMNS = ("token", "images", "image_share", "mean_weight", "max_weight", "weight_share", "uniformity", "stop_word", "example")


@dataclass(frozen=True, kw_only=True)
class VocabularyView:
    """The selected part of a vocabulary."""

    stats: VocabularyStats
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
    stats: VocabularyStats,
    info: IndexInfo,
    vocabulary: ModelVocabulary,
    *,
    uniformity: float,
    order: StatsOrder,
    min_df: int,
    match: str,
) -> VocabularyView:
    """Select the rows to show. Pure."""
    seen = [row.token for row in stats.token_stats]
    rows = [row for row in stats.token_stats if row.images >= min_df]
    unused = find_unused_tokens(vocabulary, seen, info.policy)
    if match:
        matching = match_tokens(seen, match)
        rows = [row for row in rows if row.token in matching]
    return VocabularyView(
        stats=stats,
        index_info=info,
        vocabulary=vocabulary,
        rows=sort_token_stats(rows, order),
        stop_words=find_stop_words(stats.token_stats, stats.images, uniformity),
        uniformity=uniformity,
        unused=tuple(sorted(match_tokens(unused, match))) if match else unused,
        unused_count=len(unused),
    )


def print_vocabulary(view: VocabularyView, k: int | None, *, index: str, unused: bool, output_format: OutputFormat) -> None:
    """Print the tokens, or the unused ones, to stdout."""
    if output_format == "json":
        emit_json(to_json(view, k, index))
    elif output_format == "csv" and unused:
        emit_csv(["token"], [[token] for token in view.unused[:k]])
    elif output_format == "csv":
        emit_csv(_COLUMNS, build_vocabulary_rows(view, k))
    elif unused:
        for token in view.unused[:k]:
            print_plain(escape_control(token, stdout.encoding))
    else:
        for line in format_vocabulary(view, k or _MAX_ROWS, index, TerminalInfo.from_console(stdout)):
            stdout.print(line)


def to_json(view: VocabularyView, k: int | None, index: str) -> dict[str, Any]:
    """Return the machine-readable form: `{"index", "images", "tokens": [...], "stop_words": {...}, "unused": {...}, ...}`."""
    stats, info = view.stats, view.index_info
    return {
        "index": index,
        "model": info.model,
        "policy": info.policy.label if info.policy else None,
        "documents": stats.documents,
        "without_uri": stats.without_uri,
        "images": stats.images,
        "missed_count": stats.missed_count,
        "without_tokens": stats.empty,
        "mean_tokens": stats.mean_tokens,
        "distinct_tokens": len(stats.token_stats),
        "sample": asdict(stats.sample) if stats.sample else None,
        "tokens": [asdict(row) for row in view.rows[:k]],
        "stop_words": {"threshold": view.uniformity, "tokens": [row.token for row in view.stop_words]},
        "unused": {
            "vocabulary": view.vocabulary.source,
            "reason": view.vocabulary.reason or None,
            "vocabulary_size": len(view.vocabulary.tokens),
            "count": view.unused_count,
            "tokens": list(view.unused),
        },
    }


def build_vocabulary_rows(view: VocabularyView, k: int | None) -> Iterable[tuple[str | int | float | bool, ...]]:
    """Yield one row per token, with the columns of the header."""
    stop = {row.token for row in view.stop_words}
    for row in view.rows[:k]:
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


def format_vocabulary(view: VocabularyView, k: int, index: str, terminal: TerminalInfo) -> list[Text]:
    """Format a table of the tokens, and remarks on the others. Pure."""
    stats, content_type = view.stats, view.index_info.content_type
    noun = content_type.removesuffix("s")
    average = f"{stats.mean_tokens:.1f} words per {noun}"
    head = f"{index}: {stats.images:,} {content_type}, {average}, {len(stats.token_stats):,} different words"
    lines = [format_line(f"{head} ({view.index_info.model})", terminal, "bold")]
    if stats.empty:
        lines.append(format_line(f"{stats.empty:,} {content_type} have no word, so no query finds them", terminal, "yellow"))
    if view.rows:
        lines += _format_table(view.rows[:k], {row.token for row in view.stop_words}, content_type, terminal)
    elif stats.token_stats:
        lines.append(format_line(f"no {noun} has a matching word (--match, --min-df)", terminal, "yellow"))
    if len(view.rows) > k:
        more = len(view.rows) - k
        lines.append(format_line(f"{more:,} more word{'s' * (more > 1)} (-k, --json, --csv)", terminal, "dim"))
    return [*lines, *_format_stop_words(view, terminal), *_format_unused(view, terminal)]


def _format_table(rows: Sequence[TokenStats], stop: set[str], content_type: str, terminal: TerminalInfo) -> list[Text]:
    tokens = [_truncate_cells(escape_control(row.token, terminal.encoding) or '""', _MOST_WORD_CELLS) for row in rows]
    cells = max(5, *map(cell_len, tokens))
    names = [_truncate_cells(escape_control(_get_file_name(row.example), terminal.encoding), _MOST_NAME_CELLS) for row in rows]
    counts = max(len(content_type), *(len(f"{row.images:,}") for row in rows))
    with_bar = terminal.width >= cells + counts + _BAR_CELLS + _OTHER_CELLS
    titles = f"{content_type:>{counts}}            mean     max    share  uniformity  heaviest in"
    lines = [Text(f"  {'token':<{cells}}  {' ' * (_BAR_CELLS + 2) if with_bar else ''}{titles}", style="dim")]
    for row, token, name in zip(rows, tokens, names, strict=True):
        parts = [
            f"{row.images:>{counts},} {100 * row.image_share:>5.1f} %",
            f"{format_weight(row.mean_weight):>6}",
            f"{format_weight(row.max_weight):>6}",
            f"{100 * row.weight_share:>5.2f} %",
        ]
        bar = (render_bar(row.image_share, _BAR_CELLS, terminal.encoding) + "  ", "green") if with_bar else ""
        uniformity = (f"{row.uniformity:>10.2f}", "yellow" if row.token in stop else "")
        padded = (token + " " * (cells - cell_len(token)), "cyan")
        lines.append(Text.assemble("  ", padded, "  ", bar, "  ".join(parts), "  ", uniformity, "  ", (name, "dim")))
    return lines


def _format_stop_words(view: VocabularyView, terminal: TerminalInfo) -> list[Text]:
    stop = view.stop_words
    if not stop:
        return []
    named = ", ".join(escape_control(row.token) for row in stop[:_MAX_NAMED]) + (
        f", {len(stop) - _MAX_NAMED:,} more" if len(stop) > _MAX_NAMED else ""
    )
    share = 100 * sum(row.weight_share for row in stop)
    message = f"{len(stop):,} stop-word candidates (uniformity {view.uniformity:g} or more), {share:.1f} % of all weight: {named}"
    return [format_line(message, terminal, "yellow")]


def _format_unused(view: VocabularyView, terminal: TerminalInfo) -> list[Text]:
    vocabulary = view.vocabulary
    owner = f"of {vocabulary.source}" if not vocabulary.reason else f"of {vocabulary.source} ({vocabulary.reason})"
    finding = "not seen in the sample" if view.stats.sample else f"in no {view.index_info.content_type.removesuffix('s')}"
    return [
        format_line(
            f"{view.unused_count:,} of the {len(vocabulary.tokens):,} words {owner} are {finding} (--unused lists them)",
            terminal,
            "dim",
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

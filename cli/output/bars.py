"""Tokens, weights and hits as lines for a terminal. Pure: values in, `Text` lines out.

File names and tokens are untrusted: characters that could control the terminal are escaped, and markup is not interpreted.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes, urlsplit

from rich.cells import cell_len
from rich.style import Style
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console

    from stair_es.search.diagnose import RankExplanation
    from stair_es.search.results import Hit, TokenContribution

_EIGHTHS = " ▏▎▍▌▋▊▉"
_ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
_JOINERS = "\u200c\u200d"
_FEWEST_CELLS, _MOST_CELLS = 8, 40
_MAX_TOKENS = 8
_INDENT = " " * 6


@dataclass(frozen=True, kw_only=True)
class TerminalInfo:
    """Width and encoding of a terminal."""

    width: int
    """Number of cells."""
    encoding: str = "utf-8"

    @classmethod
    def from_console(cls, console: Console) -> TerminalInfo:
        """Return width and encoding of `console`."""
        return cls(width=console.width, encoding=console.encoding)


def escape_control(text: str, encoding: str = "utf-8") -> str:
    r"""Escape control, format and undecodable characters in `text` as `\n`, `\x1b`, `\u202e`; the result is one line."""
    shown = "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _ESCAPED_CATEGORIES and character not in _JOINERS
        else character
        for character in text
    )
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def format_line(text: str, canvas: TerminalInfo, style: str = "") -> Text:
    """Return `text` as one escaped line."""
    return Text(escape_control(text, canvas.encoding), style=style)


def display_path(uri: str) -> str:
    """Return a `file:` URI as a path, any other URI unchanged. It may hold any character: see `escape_control`."""
    try:
        parts = urlsplit(uri)
    except ValueError:
        return uri
    if parts.scheme != "file" or parts.netloc not in ("", "localhost") or parts.query:
        return uri
    path = unquote_to_bytes(parts.path).decode("utf-8", "backslashreplace")
    return f"{path}#{parts.fragment}" if parts.fragment else path


def format_weight(value: float) -> str:
    """Format a weight with four decimals, or in scientific notation if they would all be 0."""
    return f"{value:.4f}" if value >= 0.00005 or value == 0 else f"{value:.1e}"


def render_bar(share: float, cells: int, encoding: str = "utf-8") -> str:
    """Render a bar.

    Args:
        share: Filled share, 0 to 1.
        cells: Width of the full bar; it is drawn in eighths of a cell.
        encoding: Encoding of the terminal; without Unicode the bar is made of `#`.

    Returns:
        The bar, padded to `cells`.
    """
    eighths = max(1, round(share * cells * 8))
    if not encoding.lower().replace("-", "").startswith("utf"):
        return ("#" * max(1, round(share * cells))).ljust(cells)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(cells)


def format_weights(weights: Iterable[tuple[str, float]], canvas: TerminalInfo) -> list[Text]:
    """Format one line per token: the token, a bar relative to the largest weight, the weight."""
    return format_rows([(word, weight, format_weight(weight)) for word, weight in weights], "  ", canvas)


def format_contributions(
    reasons: Sequence[TokenContribution], canvas: TerminalInfo, engine: Mapping[str, float] | None = None
) -> list[Text]:
    """Format one line per common token: the token, a bar of its contribution to the score, and the two weights.

    The last tokens, with a negligible sum, share one line.

    Args:
        reasons: Contributions, largest first.
        canvas: The terminal.
        engine: Contribution of each token as reported by the engine, if requested.

    Returns:
        The lines.
    """
    shown = reasons[: _count_significant([reason.contribution for reason in reasons])]
    rows = []
    for reason in shown:
        weights = f"{format_weight(reason.query_weight)} x {format_weight(reason.document_weight)}"
        figures = f"{weights} = {format_weight(reason.contribution)}"
        if engine:
            figures += f"  engine {format_weight(engine.get(reason.token, 0.0))}"
        rows.append((reason.token, reason.contribution, figures))
    lines = format_rows(rows, _INDENT, canvas)
    rest = reasons[len(shown) :]
    if rest:
        added = format_weight(sum(reason.contribution for reason in rest))
        lines.append(Text(f"{_INDENT}{len(rest)} more words add {added}", style="dim"))
    return lines


def format_hit(rank: int, hit: Hit, canvas: TerminalInfo, *, explain: bool) -> list[Text]:
    """Format rank, score, URI and caption of a hit, and the common tokens: as bars with `explain`, otherwise by name."""
    link = Style(link=hit.uri) if _is_linkable(hit.uri) else Style()
    head = Text.assemble(
        (f"{rank:3}.  ", "bold"),
        (format_weight(hit.score), "bold green"),
        "  ",
        (escape_control(display_path(hit.uri) or hit.id, canvas.encoding), link),
    )
    lines = [head]
    caption = hit.source.get("caption")
    if isinstance(caption, str) and caption.strip():
        lines.append(Text(f'{_INDENT}"{escape_control(truncate_text(caption), canvas.encoding)}"', style="italic"))
    if hit.ranks:
        ranks = ", ".join(f"{name} {place}" for name, place in hit.ranks.items())
        lines.append(Text(f"{_INDENT}rank by {ranks}", style="dim"))
    if explain:
        return [
            *lines,
            *format_contributions(hit.contributions, canvas, hit.engine_scores),
            *([] if hit.ranks else [_format_score_sum(hit, canvas)]),
        ]
    words = [_escape_token(reason.token, canvas) for reason in hit.contributions]
    return [*lines, Text(_INDENT + _join_tokens(words), style="cyan")] if words else lines


def format_rank_explanation(found: RankExplanation, k: int, canvas: TerminalInfo) -> list[Text]:
    """Format the rank of a document, its reasons, and the tokens it lacks."""
    lines = [format_line(display_path(found.uri) or found.id, canvas, "bold")]
    if found.score is None:
        lines.append(Text("  not found by this query", style="bold red"))
    else:
        lines.append(Text(f"  rank {found.rank}, score {format_weight(found.score)}", style="bold green"))
        if found.cutoff_score is not None and found.score < found.cutoff_score:
            gap, cutoff = format_weight(found.cutoff_score - found.score), format_weight(found.cutoff_score)
            lines.append(Text(f"  {gap} short of hit {k}, which scores {cutoff}"))
    lines += [format_line(f"  {reason}", canvas, "red") for reason in found.failed_conditions]
    if found.contributions:
        lines += [Text("  common words"), *format_contributions(found.contributions, canvas)]
    for title, vector in (
        ("words of the query that it lacks", found.missing_tokens),
        ("its other heaviest words", found.extra_tokens),
    ):
        if len(vector):
            words = [f"{_escape_token(word, canvas)} {format_weight(weight)}" for word, weight in vector]
            lines += [Text(f"  {title}"), Text(_INDENT + _join_tokens(words), style="cyan")]
    return lines


def truncate_text(text: str, most: int = 120) -> str:
    """Truncate a text to `most` characters, the ellipsis included."""
    return text if len(text) <= most else text[: most - 3] + "..."


def _format_score_sum(hit: Hit, canvas: TerminalInfo) -> Text:
    exact = sum(reason.contribution for reason in hit.contributions)
    beyond = hit.score - exact
    if exact and -0.004 * exact <= beyond <= 1e-6 * exact:
        said = f"({beyond / exact * 100:+.2f} %: the engine keeps 9 bits of a weight)"
    else:
        said = f"({format_weight(beyond)} by the caption)" if beyond > 0 else ""
    return format_line(f"{_INDENT}sum {format_weight(exact)}, score {format_weight(hit.score)} {said}".rstrip(), canvas, "dim")


def _count_significant(contributions: Sequence[float]) -> int:
    """Count the largest contributions that add up to 99 % of the sum. A single one left over is counted, too."""
    left = sum(contributions)
    least = left / 100
    for count, contribution in enumerate(contributions):
        if left <= least and len(contributions) - count > 1:
            return count
        left -= contribution
    return len(contributions)


def _join_tokens(words: Sequence[str]) -> str:
    more = f", {len(words) - _MAX_TOKENS} more" if len(words) > _MAX_TOKENS else ""
    return ", ".join(words[:_MAX_TOKENS]) + more


def format_rows(rows: Sequence[tuple[str, float, str]], indent: str, canvas: TerminalInfo) -> list[Text]:
    """Format one line per row: its token, a bar relative to the largest value, its figures."""
    words = [_escape_token(word, canvas) for word, _, _ in rows]
    word_cells = max(map(cell_len, words), default=0)
    figure_cells = max((len(figures) for _, _, figures in rows), default=0)
    room = canvas.width - len(indent) - word_cells - figure_cells - 4
    cells = min(_MOST_CELLS, max(_FEWEST_CELLS, room))
    most = max((value for _, value, _ in rows), default=1.0)
    return [
        Text.assemble(
            indent,
            (word + " " * (word_cells - cell_len(word)), "cyan"),
            "  ",
            (render_bar(value / most, cells, canvas.encoding), "green"),
            "  ",
            figures.rjust(figure_cells),
        )
        for word, (_, value, figures) in zip(words, rows, strict=True)
    ]


def _escape_token(word: str, canvas: TerminalInfo) -> str:
    return escape_control(word, canvas.encoding) or '""'


def _is_linkable(uri: str) -> bool:
    return uri.isascii() and uri.isprintable() and uri.startswith(("file://", "http://", "https://"))

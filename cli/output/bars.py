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
_MIN_BAR_CELLS, _MAX_BAR_CELLS = 8, 40
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
    escaped = "".join(
        character.encode("unicode_escape").decode("ascii")
        if unicodedata.category(character) in _ESCAPED_CATEGORIES and character not in _JOINERS
        else character
        for character in text
    )
    return escaped.encode(encoding, "backslashreplace").decode(encoding)


def format_line(text: str, terminal: TerminalInfo, style: str = "") -> Text:
    """Return `text` as one escaped line."""
    return Text(escape_control(text, terminal.encoding), style=style)


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


def render_bar(fraction: float, cells: int, encoding: str = "utf-8") -> str:
    """Render a bar of which `fraction` (0 to 1) is filled, padded to `cells`: in eighths of a cell, or of `#` without Unicode."""
    eighths = max(1, round(fraction * cells * 8))
    if not encoding.lower().replace("-", "").startswith("utf"):
        return ("#" * max(1, round(fraction * cells))).ljust(cells)
    return ("█" * (eighths // 8) + _EIGHTHS[eighths % 8].strip()).ljust(cells)


def format_weights(weights: Iterable[tuple[str, float]], terminal: TerminalInfo) -> list[Text]:
    """Format one line per token: the token, a bar relative to the largest weight, the weight."""
    return format_rows([(token, weight, format_weight(weight)) for token, weight in weights], "  ", terminal)


def format_contributions(
    contributions: Sequence[TokenContribution], terminal: TerminalInfo, engine_scores: Mapping[str, float] | None = None
) -> list[Text]:
    """Format one line per common token: the token, a bar of its contribution to the score, and the two weights.

    `contributions` begin with the largest; the last ones, with a negligible sum, share one line. `engine_scores` are the
    contributions that the engine reports, if requested.
    """
    shown = contributions[: _count_significant([contribution.contribution for contribution in contributions])]
    rows = []
    for contribution in shown:
        weights = f"{format_weight(contribution.query_weight)} x {format_weight(contribution.document_weight)}"
        figures = f"{weights} = {format_weight(contribution.contribution)}"
        if engine_scores:
            figures += f"  engine {format_weight(engine_scores.get(contribution.token, 0.0))}"
        rows.append((contribution.token, contribution.contribution, figures))
    lines = format_rows(rows, _INDENT, terminal)
    rest = contributions[len(shown) :]
    if rest:
        added = format_weight(sum(contribution.contribution for contribution in rest))
        lines.append(Text(f"{_INDENT}{len(rest)} more words add {added}", style="dim"))
    return lines


def format_hit(rank: int, hit: Hit, terminal: TerminalInfo, *, explain: bool) -> list[Text]:
    """Format rank, score, URI and title or caption of a hit, and the common tokens: as bars with `explain`, otherwise by name."""
    link = Style(link=hit.uri) if _is_linkable(hit.uri) else Style()
    head = Text.assemble(
        (f"{rank:3}.  ", "bold"),
        (format_weight(hit.score), "bold green"),
        "  ",
        (escape_control(display_path(hit.uri) or hit.id, terminal.encoding), link),
        (_format_folded(hit), "dim"),
    )
    lines = [head]
    texts = (hit.source.get(name) for name in ("title", "caption", "text"))
    caption = next((text for text in texts if isinstance(text, str) and text.strip()), None)
    if caption is not None:
        shown = truncate_text(caption.replace("\n", " "))  # the text in a picture has lines
        lines.append(Text(f'{_INDENT}"{escape_control(shown, terminal.encoding)}"', style="italic"))
    if hit.ranks:
        ranks = ", ".join(f"{name} {position}" for name, position in hit.ranks.items())
        lines.append(Text(f"{_INDENT}rank by {ranks}", style="dim"))
    lines += _format_labels(hit.labels, terminal)
    if explain:
        return [
            *lines,
            *format_contributions(hit.contributions, terminal, hit.engine_scores),
            *([] if hit.ranks else [_format_score_sum(hit, terminal)]),
        ]
    tokens = [_escape_token(contribution.token, terminal) for contribution in hit.contributions]
    return [*lines, Text(_INDENT + _join_tokens(tokens), style="cyan")] if tokens else lines


def format_weak_heading(weak: int, shown: int) -> Text:
    """Format the line above the weak matches, which mentions if there are no others."""
    if weak == shown:
        return Text("no good match, only weak ones:", style="bold yellow")
    matches = "match" if weak == 1 else "matches"
    return Text(f"{weak} weak {matches}:", style="bold yellow")


def format_rank_explanation(explanation: RankExplanation, k: int, terminal: TerminalInfo) -> list[Text]:
    """Format the rank of a document, its reasons, and the tokens it lacks."""
    lines = [format_line(display_path(explanation.uri) or explanation.id, terminal, "bold")]
    if explanation.score is None:
        lines.append(Text("  not found by this query", style="bold red"))
    else:
        lines.append(Text(f"  rank {explanation.rank}, score {format_weight(explanation.score)}", style="bold green"))
        if explanation.cutoff_score is not None and explanation.score < explanation.cutoff_score:
            gap, cutoff = format_weight(explanation.cutoff_score - explanation.score), format_weight(explanation.cutoff_score)
            lines.append(Text(f"  {gap} short of hit {k}, which scores {cutoff}"))
    lines += [format_line(f"  {reason}", terminal, "red") for reason in explanation.failed_conditions]
    if explanation.contributions:
        lines += [Text("  common words"), *format_contributions(explanation.contributions, terminal)]
    lines += _format_labels(explanation.labels, terminal)
    for title, vector in (
        ("words of the query that it lacks", explanation.missing_tokens),
        ("its other heaviest words", explanation.extra_tokens),
    ):
        if len(vector):
            tokens = [f"{_escape_token(token, terminal)} {format_weight(weight)}" for token, weight in vector]
            lines += [Text(f"  {title}"), Text(_INDENT + _join_tokens(tokens), style="cyan")]
    return lines


def truncate_text(text: str, max_chars: int = 120) -> str:
    """Truncate a text to `max_chars` characters, the ellipsis included."""
    return text if len(text) <= max_chars else text[: max_chars - 3] + "..."


def _format_labels(labels: Mapping[str, float], terminal: TerminalInfo) -> list[Text]:
    shown = [f"{_escape_token(label, terminal)} {format_weight(weight)}" for label, weight in labels.items()]
    return [Text(f"{_INDENT}labels: {_join_tokens(shown)}", style="magenta")] if shown else []


def _format_score_sum(hit: Hit, terminal: TerminalInfo) -> Text:
    token_sum = sum(contribution.contribution for contribution in hit.contributions)
    rest = hit.score - token_sum
    if token_sum and -0.004 * token_sum <= rest <= 1e-6 * token_sum:
        note = f"({rest / token_sum * 100:+.2f} %: the engine keeps 9 bits of a weight)"
    else:
        note = f"({format_weight(rest)} by {'caption and labels' if hit.labels else 'the caption'})" if rest > 0 else ""
    return format_line(
        f"{_INDENT}sum {format_weight(token_sum)}, score {format_weight(hit.score)} {note}".rstrip(), terminal, "dim"
    )


def _format_folded(hit: Hit) -> str:
    count = len(hit.duplicates)
    are_pages = hit.document_uri is not None and {each.document_uri for each in hit.duplicates} == {hit.document_uri}
    one, more = ("page", "pages") if are_pages else ("copy", "copies")
    return f"  +{count} {one if count == 1 else more}" if count else ""


def _count_significant(contributions: Sequence[float]) -> int:
    """Count the largest contributions that add up to 99 % of the sum. A single one left over is counted, too."""
    remaining = sum(contributions)
    threshold = remaining / 100
    for count, contribution in enumerate(contributions):
        if remaining <= threshold and len(contributions) - count > 1:
            return count
        remaining -= contribution
    return len(contributions)


def _join_tokens(tokens: Sequence[str]) -> str:
    more = f", {len(tokens) - _MAX_TOKENS} more" if len(tokens) > _MAX_TOKENS else ""
    return ", ".join(tokens[:_MAX_TOKENS]) + more


def format_rows(rows: Sequence[tuple[str, float, str]], indent: str, terminal: TerminalInfo) -> list[Text]:
    """Format one line per row: its token, a bar relative to the largest value, its figures."""
    tokens = [_escape_token(token, terminal) for token, _, _ in rows]
    token_cells = max(map(cell_len, tokens), default=0)
    figure_cells = max((len(figures) for _, _, figures in rows), default=0)
    available = terminal.width - len(indent) - token_cells - figure_cells - 4
    cells = min(_MAX_BAR_CELLS, max(_MIN_BAR_CELLS, available))
    largest = max((value for _, value, _ in rows), default=1.0)
    return [
        Text.assemble(
            indent,
            (token + " " * (token_cells - cell_len(token)), "cyan"),
            "  ",
            (render_bar(value / largest, cells, terminal.encoding), "green"),
            "  ",
            figures.rjust(figure_cells),
        )
        for token, (_, value, figures) in zip(tokens, rows, strict=True)
    ]


def _escape_token(token: str, terminal: TerminalInfo) -> str:
    return escape_control(token, terminal.encoding) or '""'


def _is_linkable(uri: str) -> bool:
    return uri.isascii() and uri.isprintable() and uri.startswith(("file://", "http://", "https://"))

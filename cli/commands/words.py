"""`stair-es words`."""

from __future__ import annotations

import shlex
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.cells import cell_len
from rich.text import Text

from stair_es.config.defaults import DEFAULT_INDEX, DEFAULT_UNIFORMITY
from stair_es.errors import IndexMismatch, OptionConflict, UsageError
from stair_es.types import StatsOrder

from ..options import config_file, shared
from ..options.connections import ConnectionArguments, open_cluster
from ..output.bars import TerminalInfo, display_path, escape_control, format_line, format_weight, render_bar, truncate_text
from ..output.console import emit_json, print_notice, print_plain, stdout
from ..output.csv import CsvOption, OutputFormat, emit_csv, select_output_format

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from stair_es.inspection.token_stats import TokenStats
    from stair_es.inspection.vocabulary_stats import DocumentSample, ModelVocabulary, VocabularyStats
    from stair_es.search.index_info import IndexInfo
    from stair_es.token_policy import TokenPolicy

_MAX_ROWS = 30
_MAX_NAMED = 12
_BAR_CELLS, _MOST_WORD_CELLS, _MOST_NAME_CELLS, _OTHER_CELLS = 12, 24, 40, 81
_COLUMNS = ("token", "images", "image_share", "mean_weight", "max_weight", "weight_share", "uniformity", "stop_word", "example")

_Words = Annotated[
    int | None, typer.Option("-k", metavar="N", min=1, help="Number of words to print. [default: 30; all with --json or --csv]")
]
_Sort = Annotated[
    StatsOrder,
    typer.Option(
        "--sort",
        help="Sort by number of images (`df`), mean or maximum weight, share of the total weight, or uniformity, descending.",
    ),
]
_MinDf = Annotated[int, typer.Option("--min-df", metavar="N", min=1, help="Print only words that at least N images have.")]
_Match = Annotated[
    str,
    typer.Option(
        "--match", metavar="PATTERN", help="Print only words that begin with a text, or match a pattern with *, ? and [...]."
    ),
]
_Unused = Annotated[
    bool, typer.Option("--unused", help="List the words of the model's vocabulary that no image has, one per line.")
]
_Labels = Annotated[bool, typer.Option("--labels", help="Print the labels of `stair-es ingest-labels` instead of the words.")]
_SampleSize = Annotated[
    int | None, typer.Option("--sample", metavar="N", min=1, help="Read a random sample of N images instead of all images.")
]
_Seed = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Random seed of the sample.")]
_Uniformity = Annotated[
    float, typer.Option("--uniformity", metavar="X", min=0.0, max=1.0, help="Minimum uniformity of a stop-word candidate.")
]
_PolicyFile = Annotated[
    Path | None,
    typer.Option(
        "--policy", metavar="FILE", help="Write a token policy that mutes the stop-word candidates. Fails if the file exists."
    ),
]
_Model = Annotated[
    str | None,
    shared.define_index_model_option("Model whose vocabulary --unused compares with. [default: the model of the index]"),
]


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
    unit: Literal["word", "label"] = "word"


def show_words_command(
    k: _Words = None,
    sort: _Sort = "df",
    min_df: _MinDf = 1,
    match: _Match = "",
    unused: _Unused = False,
    labels: _Labels = False,
    sample: _SampleSize = None,
    seed: _Seed = 0,
    uniformity: _Uniformity = DEFAULT_UNIFORMITY,
    policy: _PolicyFile = None,
    as_json: shared.JsonOption = False,
    as_csv: CsvOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    model: _Model = None,
) -> None:
    """Print the vocabulary of an index: the frequency and weights of each word, unused words, and stop-word candidates.

    **Examples**

    ```text
    stair-es words --index photos
    stair-es words --sort mean --min-df 10 -k 50
    stair-es words --match "cat*" --csv
    stair-es words --sample 5000 --json
    stair-es words --labels --sort mean
    stair-es words --policy stop-words.json
    stair-es policy plan stop-words.json
    ```

    Reads all words of all images, not just the heaviest, and changes nothing in the index. A word is a stop-word candidate if its
    weight is nearly the same in every image, so that it doesn't tell images apart. See docs/inspect.md for the formula.
    """
    output_format = select_output_format(as_json=as_json, as_csv=as_csv)
    if labels and (unused or policy or model):
        raise OptionConflict("--labels excludes --unused, --policy and --model", "They are about the words of the model.")
    if policy:
        check_policy_path(policy)
    from stair_es.cluster.documents.document import LABELS_FIELD
    from stair_es.inspection.vocabulary_stats import DocumentSample, ModelVocabulary, load_model_vocabulary
    from stair_es.model.base import ModelSpec
    from stair_es.search.dsl.select import TOKENS_FIELD
    from stair_es.search.index_info import add_fit

    field = LABELS_FIELD if labels else TOKENS_FIELD
    info, stats = _read_vocabulary(index, connection, DocumentSample(size=sample, seed=seed) if sample else None, field)
    _print_remarks(stats, index, info.content_type)
    vocabulary = ModelVocabulary(tokens=frozenset(), source=LABELS_FIELD)
    if not labels:
        spec = add_fit(ModelSpec(name=model or info.model_name), info)
        settings = config_file.get_config().settings
        vocabulary = load_model_vocabulary(spec.name, required=model is not None, fit=spec.fit, settings=settings)
    view = build_vocabulary_view(stats, info, vocabulary, uniformity=uniformity, order=sort, min_df=min_df, match=match)
    view = replace(view, unit="label" if labels else "word")
    if policy:
        _write_policy(policy, view, info.policy)
    print_vocabulary(view, k, index=index, unused=unused, output_format=output_format)


def _read_vocabulary(
    index: str, connection: ConnectionArguments, sample: DocumentSample | None, field: str
) -> tuple[IndexInfo, VocabularyStats]:
    from stair_es.inspection.vocabulary_stats import collect_vocabulary_stats
    from stair_es.search.index_info import fetch_index_info

    from ..output.progress import show_document_progress

    with open_cluster(connection) as cluster:
        info = fetch_index_info(cluster, index)
        if not info.sortable:
            raise IndexMismatch(
                f"the index {index!r} can't be paginated: `uri` and `sha256` are not keyword fields in its mapping",
                "Ingest into an index with the packaged mapping, or one that maps these two fields the same way.",
                code="index-not-pageable",
            )
        with show_document_progress() as progress:
            return info, collect_vocabulary_stats(cluster, index, field=field, sample=sample, progress=progress)


def _print_remarks(stats: VocabularyStats, index: str, content_type: str) -> None:
    """Print notices about what the figures cover."""
    if not stats.documents:
        print_notice(f"{index!r} is empty: nothing was ingested, or the index was not refreshed yet")
    if stats.without_uri:
        print_notice(f"{stats.without_uri:,} documents have no URI, or one of 8 KiB or more, and are not counted")
    if stats.missed_count:
        difference = f"{stats.missed_count:,} fewer" if stats.missed_count > 0 else f"{-stats.missed_count:,} more"
        print_notice(
            f"{difference} documents were read than counted before: the index was changed concurrently, "
            "or documents have the same URI and content"
        )
    if stats.sample and stats.images < stats.documents - stats.without_uri:
        print_notice(
            f"a sample of {stats.images:,} of {stats.documents:,} {content_type} (seed {stats.sample.seed}): all figures are "
            f"estimates; shares of {content_type} are within {98 / stats.images**0.5:.1f} percentage points (95 %), "
            "and rare words are missing"
        )


def _write_policy(path: Path, view: VocabularyView, current: TokenPolicy | None) -> None:
    import json

    from stair_es.inspection.token_stats import build_stop_word_policy

    if not view.stop_words:
        print_notice(f"no stop-word candidates: {path} was not written")
        return
    policy, skipped = build_stop_word_policy([row.token for row in view.stop_words], current, path.stem)
    if skipped:
        print_notice(f"not muted, since the policy of the index renames or merges them: {', '.join(skipped)}")
    if len(policy.mute) == len(current.mute if current else ()):
        print_notice(f"no other words to mute: {path} was not written")
        return
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(json.dumps(policy.to_json(), ensure_ascii=False, indent=2) + "\n")
    except FileExistsError:
        raise _build_exists_error(path) from None
    note = f", with the rules that the index has ({current.label})" if current else ""
    print_notice(f"{path}: mutes {len(policy.mute):,} words{note}. Preview it: stair-es policy plan {shlex.quote(str(path))}")


def check_policy_path(path: Path) -> None:
    """Check that the file can be written, before a long scan."""
    if path.exists():
        raise _build_exists_error(path)
    if not path.parent.is_dir():
        raise UsageError(
            f"the folder {path.parent} for {path.name} doesn't exist", "Create it, or use another one.", code="no-such-folder"
        )


def _build_exists_error(path: Path) -> UsageError:
    return UsageError(
        f"{path} already exists", "Use another name, or delete it first: existing files are not overwritten.", code="file-exists"
    )


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
    from stair_es.inspection.token_stats import find_stop_words, match_tokens, sort_token_stats
    from stair_es.inspection.vocabulary_stats import find_unused_tokens

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
        values = {**vars(row), "stop_word": row.token in stop}
        yield tuple(values[column] for column in _COLUMNS)


def format_vocabulary(view: VocabularyView, k: int, index: str, terminal: TerminalInfo) -> list[Text]:
    """Format a table of the tokens, and remarks on the others. Pure."""
    stats, content_type = view.stats, view.index_info.content_type
    noun = content_type.removesuffix("s")
    average = f"{stats.mean_tokens:.1f} {view.unit}s per {noun}"
    head = f"{index}: {stats.images:,} {content_type}, {average}, {len(stats.token_stats):,} different {view.unit}s"
    lines = [format_line(f"{head} ({view.index_info.model})", terminal, "bold")]
    if stats.empty:
        effect = ", so no query finds them" if view.unit == "word" else ""
        lines.append(format_line(f"{stats.empty:,} {content_type} have no {view.unit}{effect}", terminal, "yellow"))
    if view.rows:
        lines += _format_table(view.rows[:k], {row.token for row in view.stop_words}, content_type, terminal)
    elif stats.token_stats:
        lines.append(format_line(f"no {noun} has a matching {view.unit} (--match, --min-df)", terminal, "yellow"))
    if len(view.rows) > k:
        more = len(view.rows) - k
        lines.append(format_line(f"{more:,} more {view.unit}{'s' * (more > 1)} (-k, --json, --csv)", terminal, "dim"))
    return lines if view.unit == "label" else [*lines, *_format_stop_words(view, terminal), *_format_unused(view, terminal)]


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

"""`stair-es words`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import IndexMismatch, UsageError
from stair_es.inspection.token_stats import UNIFORMITY_THRESHOLD, StatsOrder

from ..options import config_file, shared
from ..options.connections import ConnectionArguments, open_cluster
from ..output.console import print_notice
from ..output.csv import CsvOption, select_output_format

if TYPE_CHECKING:
    from stair_es.inspection.vocabulary_stats import DocumentSample, VocabularyStats
    from stair_es.search.index_info import IndexInfo
    from stair_es.token_policy import TokenPolicy

    from ..output.words import VocabularyView


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


def show_words_command(
    k: _Words = None,
    sort: _Sort = "df",
    min_df: _MinDf = 1,
    match: _Match = "",
    unused: _Unused = False,
    sample: _SampleSize = None,
    seed: _Seed = 0,
    uniformity: _Uniformity = UNIFORMITY_THRESHOLD,
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
    stair-es words --policy stop-words.json
    stair-es policy plan stop-words.json
    ```

    Reads all words of all images, not just the heaviest, and changes nothing in the index. A word is a stop-word candidate if its
    weight is nearly the same in every image, so that it doesn't tell images apart. See docs/inspect.md for the formula.
    """
    output_format = select_output_format(as_json=as_json, as_csv=as_csv)
    if policy:
        _check_policy_path(policy)
    from stair_es.inspection import model_vocabulary
    from stair_es.inspection.vocabulary_stats import DocumentSample
    from stair_es.model.base import ModelSpec
    from stair_es.search.index_info import add_fit

    from ..output import words

    info, stats = _read_vocabulary(index, connection, DocumentSample(size=sample, seed=seed) if sample else None)
    _print_remarks(stats, index, info.content_type)
    spec = add_fit(ModelSpec(name=model or info.model_name), info)
    vocabulary = model_vocabulary.load_model_vocabulary(
        spec.name, required=model is not None, fit=spec.fit, settings=config_file.get_config().settings
    )
    view = words.build_vocabulary_view(stats, info, vocabulary, uniformity=uniformity, order=sort, min_df=min_df, match=match)
    if policy:
        _write_policy(policy, view, info.policy)
    words.print_vocabulary(view, k, index=index, unused=unused, output_format=output_format)


def _read_vocabulary(
    index: str, connection: ConnectionArguments, sample: DocumentSample | None
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
            )
        with show_document_progress() as progress:
            return info, collect_vocabulary_stats(cluster, index, sample=sample, progress=progress)


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


def _check_policy_path(path: Path) -> None:
    """Check that the file can be written, before a long scan."""
    if path.exists():
        raise _build_exists_error(path)
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} for {path.name} doesn't exist", "Create it, or use another one.")


def _build_exists_error(path: Path) -> UsageError:
    return UsageError(f"{path} already exists", "Use another name, or delete it first: existing files are not overwritten.")

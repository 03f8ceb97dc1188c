"""`stair-es evaluate labels`."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_INDEX

from ...options import shared
from ...options.connections import ConnectionArguments, open_cluster
from ...options.search import EncoderArguments
from ...output.bars import escape_control, truncate_text
from ...output.console import emit_json, print_notice, stdout
from ...output.csv import CsvOption, emit_csv, select_output_format
from ..words import check_policy_path

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from stair_es.eval.labels import LabelRow
    from stair_es.model.base import Encoder
    from stair_es.token_policy import TokenPolicy
    from stair_es.types import SparseVector

_MAX_ROWS = 40
_COLUMNS = ("label", "images", "mean_weight", "agreement", "coherence", "marks", "precision", "verdict", "floor", "basis")
_Marks = Annotated[
    str | None,
    typer.Option(
        "--marks", metavar="FILE", help="Marks of people (.jsonl, .csv): an image, a `label`, and `right` (true or false)."
    ),
]
_Agreement = Annotated[
    float, typer.Option("--agreement", metavar="X", min=0.5, max=1.0, help="Agreement with the model from which a label is kept.")
]
_Precision = Annotated[
    float, typer.Option("--precision", metavar="X", min=0.0, max=1.0, help="Precision by the marks from which a label is kept.")
]
_Limit = Annotated[int | None, typer.Option("--limit", metavar="N", min=1, help="Read the first N images with labels only.")]
_Rows = Annotated[
    int | None, typer.Option("-k", metavar="N", min=1, help="Number of labels to print. [default: 40; all with --json or --csv]")
]
_Policy = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="Write a policy that rejects labels. Fails if the file exists."),
]


def evaluate_labels_command(
    marks: _Marks = None,
    agreement: _Agreement = 0.85,
    precision: _Precision = 0.9,
    limit: _Limit = None,
    k: _Rows = None,
    policy: _Policy = None,
    as_json: shared.JsonOption = False,
    as_csv: CsvOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    encoder: EncoderArguments,
) -> None:
    """Compare the labels of an index with the model, and tell which to keep, from which confidence on, and which to reject.

    **Examples**

    ```text
    stair-es evaluate labels --index photos
    stair-es evaluate labels --index photos --marks marks.jsonl --policy rejected.json
    stair-es policy plan rejected.json --labels --index photos
    ```

    Agreement is the probability that an image with the label matches its text better than one without it, by the model; 0.5 is
    chance. Coherence is the same with the other images of the label instead of its text. Marks of people count more than both.
    See docs/howto/labels.md for the rules. Changes nothing in the index.
    """
    from stair_es.eval.labels import LabelTargets, assess_labels, collect_labeled_images, read_label_marks, summarize_rows
    from stair_es.search.index_info import fetch_index_info

    from ...output.progress import show_evaluation_progress

    output_format = select_output_format(as_json=as_json, as_csv=as_csv)
    if policy:
        check_policy_path(policy)
    known_marks = read_label_marks(marks) if marks else []
    targets = LabelTargets(area=agreement, precision=precision)
    with open_cluster(connection) as cluster, show_evaluation_progress() as progress:
        info = fetch_index_info(cluster, index)
        loaded = encoder.load_online(cluster, index)
        info.check_model(loaded.model_id)
        corpus = collect_labeled_images(cluster, index, partial(progress, "images"), limit)
        encode = partial(_encode_label, loaded, info.policy)
        rows = list(assess_labels(corpus, encode, known_marks, targets, partial(progress, "labels")))
    if policy:
        _write_policy(policy, rows, info.labels_policy)
    if output_format == "json":
        emit_json(
            {"index": index, "images": len(corpus.vectors), **summarize_rows(rows), "rows": [asdict(row) for row in rows[:k]]}
        )
    elif output_format == "csv":
        emit_csv(_COLUMNS, [tuple(getattr(row, name) for name in _COLUMNS) for row in rows[:k]])
    else:
        for line in _format_rows(rows, k or _MAX_ROWS, len(corpus.vectors)):
            stdout.print(escape_control(line), markup=False, emoji=False)


def _encode_label(encoder: Encoder, policy: TokenPolicy | None, label: str) -> SparseVector:
    """Encode a label for this index; the vector is empty unless the model knows all of its words."""
    from stair_es.model.vocabularies.unknown_words import find_unknown_words
    from stair_es.search.query_encoder import encode_any_text
    from stair_es.types import SparseVector

    if any(not word.searched_for for word in find_unknown_words(encoder, label)):
        return SparseVector((), ())
    vector = encode_any_text(encoder, label)
    return policy.rewrite_query(vector) if policy else vector


def build_label_policy(rows: Iterable[LabelRow], current: TokenPolicy | None, name: str) -> tuple[TokenPolicy, tuple[str, ...]]:
    """Build the policy that follows from verdicts, with the other rules of the labels; also return those it can't mute."""
    from stair_es.inspection.token_stats import build_stop_word_policy

    rows = list(rows)
    policy, skipped = build_stop_word_policy([row.label for row in rows if row.verdict == "reject"], current, name)
    kept = {*policy.mute, *policy.replacements}
    floors = {row.label: row.floor for row in rows if row.floor and row.label not in kept}
    floors = {label: floor for label, floor in floors.items() if floor <= policy.cap.get(label, floor)}
    return replace(policy, floor={**policy.floor, **floors}), skipped


def _write_policy(path: Path, rows: Sequence[LabelRow], current: TokenPolicy | None) -> None:
    policy, skipped = build_label_policy(rows, current, path.stem)
    if skipped:
        names = ", ".join(map(escape_control, skipped))
        print_notice(f"not muted, since the policy of the labels renames or merges them: {names}")
    if policy.describe_rules() == (current.describe_rules() if current else {}):
        print_notice(f"no other label is to be rejected: {path} was not written")
        return
    path.write_text(json.dumps(policy.to_json(), ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    note = f", with the rules that the labels have ({current.label})" if current else ""
    print_notice(f"{path}: rejects {len(policy.mute):,} labels, and {len(policy.floor):,} below a confidence{note}")


def _format_rows(rows: Sequence[LabelRow], k: int, images: int) -> Iterator[str]:
    yield f"{len(rows):,} labels of {images:,} images"
    yield f"  {'label':<28}{'images':>8}{'confidence':>12}{'agreement':>11}{'coherence':>11}{'marks':>14}  verdict"
    for row in rows[:k]:
        marks = "-" if row.precision is None else f"{row.precision:.0%} of {row.marks:,}"
        verdict = f"keep from {row.floor:.2f}" if row.floor else row.verdict
        basis = f" (by {row.basis})" if row.basis != "none" else ""
        yield (
            f"  {truncate_text(row.label, 27):<28}{row.images:>8,}{row.mean_weight:>12.2f}"
            f"{_format_area(row.agreement):>11}{_format_area(row.coherence):>11}{marks:>14}  {verdict}{basis}"
        )
    if len(rows) > k:
        yield f"{len(rows) - k:,} more labels (-k, --json, --csv)"


def _format_area(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

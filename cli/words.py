"""`stair-es words`."""

from __future__ import annotations

import shlex
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_INDEX
from stair_es.errors import IndexMismatch, UsageError
from stair_es.inspection.figures import Order
from stair_es.inspection.muting import FLAT

from . import connections, options
from .csv_output import Csv, form_of
from .output import note

if TYPE_CHECKING:
    from stair_es.inspection.corpus import Corpus, Sample
    from stair_es.policy import WordPolicy
    from stair_es.search.known import Known

    from .words_output import View


_Words = Annotated[int | None, typer.Option("-k", min=1, help="Number of words. [default: 30; all with --json or --csv]")]
_Sort = Annotated[
    Order,
    typer.Option(
        "--sort", help="Sort by number of images, mean or largest weight, share of all weight, or flatness; descending."
    ),
]
_MinDf = Annotated[int, typer.Option("--min-df", min=1, help="Minimum number of images that have the word.")]
_Match = Annotated[str, typer.Option("--match", help="Only words that match a pattern with * ? [...], or begin with a text.")]
_Unused = Annotated[bool, typer.Option("--dead", help="List the words of the model that no image has, one per line.")]
_SampleSize = Annotated[int | None, typer.Option("--sample", min=1, help="Read a random sample of N images.")]
_Seed = Annotated[int, typer.Option("--seed", min=0, help="Random seed of the sample.")]
_Flat = Annotated[float, typer.Option("--flat", min=0.0, max=1.0, help="Minimum flatness of a stop-word candidate.")]
_PolicyFile = Annotated[
    Path | None,
    typer.Option("--policy", metavar="FILE", help="Write a token policy that mutes the candidates. Never overwrites a file."),
]
_Model = Annotated[
    str | None, options.index_model("Model whose vocabulary is checked for unused words. [default: the model of the index]")
]


def words(
    k: _Words = None,
    sort: _Sort = "df",
    min_df: _MinDf = 1,
    match: _Match = "",
    dead: _Unused = False,
    sample: _SampleSize = None,
    seed: _Seed = 0,
    flat: _Flat = FLAT,
    policy: _PolicyFile = None,
    as_json: options.Json = False,
    as_csv: Csv = False,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    model: _Model = None,
) -> None:
    """Show the vocabulary of an index: document frequency and weights of each word, unused words, stop-word candidates.

    Reads all words of all images, not just the heaviest. Read-only. A word is a stop-word candidate if its weight is nearly the
    same in every image, so that it doesn't tell them apart: docs/inspect.md has the formula.

    **Examples**

    - `stair-es words --index photos`

    - `stair-es words --sort mean --min-df 10 -k 50`

    - `stair-es words --match "cat*" --csv`

    - `stair-es words --sample 5000 --json`

    - `stair-es words --policy stop-words.json`, then `stair-es policy plan stop-words.json`
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    if policy:
        _check(policy)
    from stair_es.inspection import vocabulary
    from stair_es.inspection.corpus import Sample
    from stair_es.model.encoder import ModelSpec
    from stair_es.search.known import add_fit

    from . import words_output

    known, found = _read(index, url, Sample(size=sample, seed=seed) if sample else None)
    _say(found, index, known.holds)
    spec = add_fit(ModelSpec(name=model or known.model_name), known)
    told = vocabulary.of_model(spec.name, asked=model is not None, fit=spec.fit)
    view = words_output.view(found, known, told, flat=flat, order=sort, min_df=min_df, match=match)
    if policy:
        _write(policy, view, known.policy)
    words_output.emit(view, k, index=index, dead=dead, form=form)


def _read(index: str, url: str | None, sample: Sample | None) -> tuple[Known, Corpus]:
    from stair_es.inspection.corpus import corpus
    from stair_es.search.known import look

    from .progress import show_document_progress

    connection = connections.connection(url)
    with closing(connection.client()) as client:
        known = look(client, connection, index)
        if not known.ordered:
            raise IndexMismatch(
                f"the index {index!r} can't be paginated: `uri` and `sha256` are not keyword fields in its mapping",
                "Ingest into an index with the packaged mapping, or one that maps these two fields the same way.",
            )
        with show_document_progress() as progress:
            return known, corpus(client, connection, index, sample=sample, progress=progress)


def _say(found: Corpus, index: str, holds: str) -> None:
    """Print notices about what the figures cover."""
    if not found.documents:
        note(f"{index!r} is empty: nothing was ingested, or the index was not refreshed yet")
    if found.without_uri:
        note(f"{found.without_uri:,} documents have no URI, or one of 8 KiB or more, and are not counted")
    if found.missed:
        fewer = f"{found.missed:,} fewer" if found.missed > 0 else f"{-found.missed:,} more"
        note(
            f"{fewer} documents were read than counted before: the index was changed concurrently, "
            "or documents have the same URI and content"
        )
    if found.sample and found.images < found.documents - found.without_uri:
        note(
            f"a sample of {found.images:,} of {found.documents:,} {holds} (seed {found.sample.seed}): all figures are estimates, "
            f"a share of {holds} is off by {98 / found.images**0.5:.1f} points at most (95 %), and rare words are missing"
        )


def _write(path: Path, view: View, had: WordPolicy | None) -> None:
    import json

    from stair_es.inspection.muting import muting

    if not view.stop_words:
        note(f"no stop-word candidates: {path} was not written")
        return
    made, left = muting([row.word for row in view.stop_words], had, path.stem)
    if left:
        note(f"not muted, since the policy of the index renames or merges them: {', '.join(left)}")
    if len(made.mute) == len(had.mute if had else ()):
        note(f"no other words to mute: {path} was not written")
        return
    try:
        with path.open("x", encoding="utf-8") as out:
            out.write(json.dumps(made.to_json(), ensure_ascii=False, indent=2) + "\n")
    except FileExistsError:
        raise _exists(path) from None
    kept = f", with the rules that the index has ({had.label})" if had else ""
    note(f"{path}: mutes {len(made.mute):,} words{kept}. Preview it: stair-es policy plan {shlex.quote(str(path))}")


def _check(path: Path) -> None:
    """Check that the file can be written, before a long scan."""
    if path.exists():
        raise _exists(path)
    if not path.parent.is_dir():
        raise UsageError(f"the folder {path.parent} for {path.name} doesn't exist", "Create it, or use another one.")


def _exists(path: Path) -> UsageError:
    return UsageError(f"{path} already exists", "Use another name, or delete it first: existing files are not overwritten.")

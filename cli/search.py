"""`stair-es search`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_INDEX, DEFAULT_MODEL, MAX_HITS

from . import inputs, options
from .bars import Canvas, hit_lines
from .output import emit_json, note, stdout

if TYPE_CHECKING:
    from stair_es.search.searcher import Result

_EXAMPLE = 'stair-es search "red car", or stair-es search --image FILE'


def search(
    words: options.Words = None,
    image: options.QueryImage = None,
    k: Annotated[int, typer.Option("-k", min=1, max=MAX_HITS, help="How many hits.")] = 10,
    explain: Annotated[bool, typer.Option("--explain", help="Draw what each word in common adds to the score.")] = False,
    as_json: options.Json = False,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    model: options.Model = DEFAULT_MODEL,
    backend: options.BackendOption = "auto",
    text_tower: options.TextTowerOption = "full",
) -> None:
    """Find images by words, or by another image: ranked hits with the words in common.

    The score is the dot product of the word weights of the query and of the image.

    **Examples**

    - `stair-es search "red car"`

    - `stair-es search dog on a beach -k 3 --explain`

    - `stair-es search --image holiday.jpg --json`
    """
    text = inputs.one_of(words or [], image, _EXAMPLE)
    encoder = inputs.load_encoder(model, backend, text_tower)
    vector = inputs.query_vector(encoder, text, image)
    connection = options.connection(url)
    from stair_es.search.searcher import Searcher

    with Searcher(connection, index, encoder.model_id) as searcher:
        result = searcher.search(vector, k)
    _remarks(result, index)
    if as_json:
        emit_json(to_json(result))
        return
    canvas = Canvas.of(stdout)
    for rank, hit in enumerate(result.hits, start=1):
        for line in hit_lines(rank, hit, canvas, explain=explain):
            stdout.print(line)


def to_json(result: Result) -> dict[str, object]:
    """The machine-readable form: `{"hits": [{"id", "uri", "score", "why": [...]}], "took_ms"}`."""
    from dataclasses import asdict

    return {
        "hits": [
            {"id": hit.id, "uri": hit.uri, "score": hit.score, "why": [asdict(reason) for reason in hit.why]}
            for hit in result.hits
        ],
        "took_ms": result.took_ms,
    }


def _remarks(result: Result, index: str) -> None:
    if len(result.cut):
        note(f"the cluster's clause limit left no room for the {len(result.cut)} lightest words of the query")
    if not result.hits:
        note(f"nothing found: no image in {index!r} has a word in common with the query")

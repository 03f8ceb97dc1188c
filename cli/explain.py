"""`stair-es explain`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_INDEX, MAX_HITS

from . import asking, connections, inputs, options
from .bars import Canvas, near_miss_lines
from .output import emit_json, stdout

if TYPE_CHECKING:
    from stair_es.search.placing import NearMiss

_EXAMPLE = 'stair-es explain URI "red car", or stair-es explain URI --image FILE'


def explain(
    document: Annotated[str, typer.Argument(help="URI, path or id of the image.")],
    words: options.Words = None,
    k: Annotated[int, typer.Option("-k", min=1, max=MAX_HITS, help="Number of hits that should have contained it.")] = 10,
    as_json: options.Json = False,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    model: options.IndexModel = None,
    fit: options.FitOption = None,
    backend: options.BackendOption = "auto",
    text_tower: options.TextTowerOption = "full",
) -> None:
    """Explain the rank of an image for a query: the common words, and what would have matched.

    **Examples**

    - `stair-es explain photos/tabby-cat.jpg "a kitten"`

    - `stair-es explain file:///photos/tabby-cat.jpg "dog -grass" --json`

    - `stair-es explain 3cb3f0d1 --image other.jpg`
    """
    given = asking.inputs_given(words or [], _EXAMPLE)
    how = asking.how_given()
    connection = connections.connection(url)
    encoder = inputs.encoder_for(model, fit, connection, index, backend, text_tower)
    from stair_es.search.inputs import question_of
    from stair_es.search.placing import near_miss
    from stair_es.search.searcher import Searcher

    question = question_of(encoder, given, asking.reading_given())
    with Searcher(connection, index, encoder.model_id) as searcher:
        found = near_miss(searcher, question, reference(document), k=k, how=how)
    if as_json:
        emit_json(to_json(found))
        return
    for line in near_miss_lines(found, k, Canvas.of(stdout)):
        stdout.print(line)


def reference(document: str) -> str:
    """Return the URI of a path as `search` prints it, with an optional line number; return URIs and ids unchanged."""
    from stair_es.sources.paths import uri_of

    path, mark, line = document, "", ""
    if not _is_file(document):
        path, mark, line = document.rpartition("#")
        if not _is_file(path):
            return (
                uri_of(document) if document.startswith("/") else document
            )  # the file may be gone while its document still exists
    return uri_of(path) + mark + line


def _is_file(path: str) -> bool:
    from pathlib import Path

    try:
        return Path(path).is_file()
    except OSError:  # too long for a path: it may be an id
        return False


def to_json(found: NearMiss) -> dict[str, object]:
    """Return the machine-readable form."""
    from dataclasses import asdict

    vectors = {"lacking": found.lacking.to_dict(), "beside": found.beside.to_dict()}
    return {**asdict(found), "why": [asdict(reason) for reason in found.why], **vectors}

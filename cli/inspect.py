"""`stair-es inspect`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_INDEX
from stair_es.errors import DecodeError, QueryError, UsageError

from . import connections, options
from .csv_output import Csv, form_of
from .explain import reference as uri_or_id
from .output import fail, note

if TYPE_CHECKING:
    from stair_es.inspection.inspector import Inspected, Inspector
    from stair_es.model.encoder import Encoder

    from .inspect_output import Printer

SOME_MISSING = 3
"""Exit code if only some of several images were found."""


_References = Annotated[
    list[str], typer.Argument(metavar="IMAGE...", help="Ids, URIs or paths of images; - reads them from stdin.")
]
_Words = Annotated[int | None, typer.Option("-k", min=1, help="Number of words. [default: 20; all with --json or --csv]")]
_All = Annotated[bool, typer.Option("--all", help="Print all words.")]
_Compare = Annotated[bool, typer.Option("--compare", help="Encode the file again, and compare the result with the stored words.")]
_Thumbnail = Annotated[
    bool | None, typer.Option("--thumbnail/--no-thumbnail", help="Draw the stored thumbnail. [default: if the terminal can]")
]
_Model = Annotated[str | None, options.index_model("Model for files. [default: the model of the index]")]


def inspect(
    references: _References,
    k: _Words = None,
    every: _All = False,
    compare: _Compare = False,
    thumbnail: _Thumbnail = None,
    as_json: options.Json = False,
    as_csv: Csv = False,
    index: options.Index = DEFAULT_INDEX,
    url: options.Url = None,
    model: _Model = None,
    backend: options.BackendOption = "auto",
) -> None:
    """Print all words of images in the index with their weights, and what a token policy changed.

    A file that isn't in the index is encoded with the model of the index. Read-only.

    **Examples**

    - `stair-es inspect photos/tabby-cat.jpg`

    - `stair-es inspect 8738a1008650a89a53e3cfea92a9d334 --all`

    - `stair-es inspect s3://bucket/a.jpg --json`

    - `stair-es inspect photos/*.jpg --compare`

    - `stair-es search "red car" --json | jq -r ".hits[].id" | stair-es inspect - --csv`

    **Exit code**: 0, 3 if only some of several images were found, 1 if none was.
    """
    form = form_of(as_json=as_json, as_csv=as_csv)
    if every and k:
        raise UsageError("-k and --all exclude each other", "Leave one of them out.")
    from stair_es.inspection.inspector import Inspector
    from stair_es.search.known import look

    from .inspect_output import Printer

    connection = connections.connection(url)
    with closing(connection.client()) as client:
        known = look(client, connection, index)

        @cache
        def encoder() -> Encoder:
            from stair_es.search.index_model import load_model

            return load_model(known, index, named=model, backend=backend)

        inspector = Inspector(client, connection, index, encoder, known.policy)
        printer = Printer(index, k=k, every=every, form=form, thumbnail=thumbnail)
        asked, found = _inspect(inspector, printer, references, compare=compare, index=index)
    _end(asked, found, index)


def _inspect(inspector: Inspector, printer: Printer, references: list[str], *, compare: bool, index: str) -> tuple[int, int]:
    """Print each image, and return how many were requested and found. An image that can't be shown doesn't stop the others."""
    from stair_es.sources.paths import file_at

    asked = found = 0
    for reference in _all(references):
        asked += 1
        try:
            inspected = inspector.inspect(_names(reference), file_at(reference), against_file=compare)
        except DecodeError as error:
            fail(error)
            continue
        if inspected is None:
            note(f"neither in {index!r} nor a file: {reference}")
            continue
        found += 1
        printer.show(reference, inspected, inspector)
        _say(reference, inspected, compare=compare)
    return asked, found


def _say(reference: str, inspected: Inspected, *, compare: bool) -> None:
    image = inspected.image
    if image is None:
        return
    if image.id not in (reference, uri_or_id(reference)) and image.uri not in _names(reference):
        note(f"{reference} has the same bytes as {image.uri}, and is not in the index itself")
    if compare and inspected.comparison is None:
        note(f"nothing to compare with: {reference} is not a local file")
    if inspected.changed and not compare:
        note(f"the file has changed since it was ingested (--compare encodes it): {reference}")


def _end(asked: int, found: int, index: str) -> None:
    if not asked:
        raise UsageError("no image given", "Give an id, a URI or a path: stair-es inspect photos/cat.jpg")
    if not found:
        raise QueryError(
            f"none of the {asked} images could be shown" if asked > 1 else f"there is nothing to show from {index!r}",
            "stair-es search --json prints ids and URIs; documents appear after a refresh of the index.",
        )
    if found < asked:
        note(f"{asked - found} of {asked} images could not be shown")
        raise typer.Exit(SOME_MISSING)


def _all(references: list[str]) -> Iterator[str]:
    for reference in references:
        if reference == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield reference


def _names(reference: str) -> list[str]:
    """Return the names that the document may have in the index."""
    from stair_es.sources.paths import path_of, uri_of

    names = [uri_or_id(reference), reference]
    with suppress(ValueError):
        names.append(uri_of(path_of(reference)) if reference.startswith("file:") else uri_of(reference))
    return list(dict.fromkeys(names))

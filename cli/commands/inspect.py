"""`stair-es inspect`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config.defaults import DEFAULT_INDEX
from stair_es.errors import EXIT_PARTIAL_FAILURE, DecodeError, QueryError, UsageError

from ..options import config_file, shared
from ..options.connections import ConnectionArguments, open_cluster
from ..output.console import print_error, print_notice
from ..output.csv import CsvOption, select_output_format
from .search import parse_document_reference

if TYPE_CHECKING:
    from stair_es.inspection.inspector import InspectionResult, Inspector
    from stair_es.model.base import Encoder

    from ..output.inspect import InspectionPrinter


_References = Annotated[list[str], typer.Argument(metavar="IMAGE", help="Ids, URIs or paths of images; - for stdin.")]
_Words = Annotated[
    int | None, typer.Option("-k", metavar="N", min=1, help="Number of words to print. [default: 20; all with --json or --csv]")
]
_All = Annotated[bool, typer.Option("--all", help="Print all words.")]
_Compare = Annotated[bool, typer.Option("--compare", help="Encode the file again and compare the result with the stored words.")]
_Thumbnail = Annotated[
    bool | None,
    typer.Option(
        "--thumbnail/--no-thumbnail", help="Draw the stored thumbnail in the terminal. [default: if the terminal supports it]"
    ),
]
_Model = Annotated[str | None, shared.define_index_model_option("Model to encode files with. [default: the model of the index]")]


def inspect_command(
    references: _References,
    k: _Words = None,
    show_all: _All = False,
    compare: _Compare = False,
    thumbnail: _Thumbnail = None,
    as_json: shared.JsonOption = False,
    as_csv: CsvOption = False,
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    connection: ConnectionArguments,
    model: _Model = None,
    backend: shared.BackendOption = "auto",
) -> None:
    """Print the words of images in the index with their weights, and what a token policy changed.

    **Examples**

    ```text
    stair-es inspect photos/tabby-cat.jpg
    stair-es inspect 8738a1008650a89a53e3cfea92a9d334 --all
    stair-es inspect s3://bucket/a.jpg --json
    stair-es inspect photos/*.jpg --compare
    stair-es search "red car" --json | jq -r ".hits[].id" | stair-es inspect - --csv
    ```

    A file that isn't in the index is encoded with the model of the index. The command changes nothing in the index.

    **Exit codes**: 0 if all images were found; 3 if some of several images were not found; 1 if no image was found.
    """
    output_format = select_output_format(as_json=as_json, as_csv=as_csv)
    if show_all and k:
        raise UsageError("-k and --all are mutually exclusive", "Leave one of them out.")
    from stair_es.inspection.inspector import Inspector
    from stair_es.search.index_info import fetch_index_info

    from ..output.inspect import InspectionPrinter

    with open_cluster(connection) as cluster:
        info = fetch_index_info(cluster, index)

        @cache
        def load_encoder_once() -> Encoder:
            from stair_es.search.index_encoder import load_query_encoder

            return load_query_encoder(info, index, model_name=model, backend=backend, settings=config_file.get_config().settings)

        inspector = Inspector(cluster, index, load_encoder_once, info.policy)
        printer = InspectionPrinter(index, k=k, show_all=show_all, output_format=output_format, thumbnail=thumbnail)
        requested, found = _inspect_all(inspector, printer, references, compare=compare, index=index)
    _check_found(requested, found, index)


def _inspect_all(
    inspector: Inspector, printer: InspectionPrinter, references: list[str], *, compare: bool, index: str
) -> tuple[int, int]:
    """Print each image, and return how many were requested and found. An image that can't be shown doesn't stop the others."""
    from stair_es.sources.io.uris import find_file

    requested = found = 0
    for reference in _read_references(references):
        requested += 1
        try:
            result = inspector.inspect(_list_names(reference), find_file(reference), against_file=compare)
        except DecodeError as error:
            print_error(error)
            continue
        if result is None:
            print_notice(f"neither in {index!r} nor a file: {reference}")
            continue
        found += 1
        printer.print_image(reference, result, inspector)
        _print_remarks(reference, result, compare=compare)
    return requested, found


def _print_remarks(reference: str, result: InspectionResult, *, compare: bool) -> None:
    image = result.image
    if image is None:
        return
    if image.id not in (reference, parse_document_reference(reference)) and image.uri not in _list_names(reference):
        print_notice(f"{reference} has the same bytes as {image.uri}, and is not in the index itself")
    if compare and result.comparison is None:
        print_notice(f"nothing to compare with: {reference} is not a local file")
    if result.file_changed and not compare:
        print_notice(f"the file has changed since it was ingested (--compare encodes it): {reference}")


def _check_found(requested: int, found: int, index: str) -> None:
    if not requested:
        raise UsageError("no image given", "Give an id, a URI or a path: stair-es inspect photos/cat.jpg")
    if not found:
        raise QueryError(
            f"none of the {requested} images could be shown" if requested > 1 else f"there is nothing to show from {index!r}",
            "stair-es search --json prints ids and URIs; documents appear after a refresh of the index.",
        )
    if found < requested:
        print_notice(f"{requested - found} of {requested} images could not be shown")
        raise typer.Exit(EXIT_PARTIAL_FAILURE)


def _read_references(references: list[str]) -> Iterator[str]:
    for reference in references:
        if reference == "-":
            yield from (line.rstrip("\r\n") for line in sys.stdin if line.strip())
        else:
            yield reference


def _list_names(reference: str) -> list[str]:
    """Return the names that the document may have in the index."""
    from stair_es.sources.io.uris import from_file_uri, to_file_uri

    names = [parse_document_reference(reference), reference]
    with suppress(ValueError):
        names.append(to_file_uri(from_file_uri(reference)) if reference.startswith("file:") else to_file_uri(reference))
    return list(dict.fromkeys(names))

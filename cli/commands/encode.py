"""`stair-es encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.errors import DecodeError, OptionConflict, UsageError
from stair_es.types import SparseVector

from ..options import shared
from ..options.connections import ConnectionArguments, open_cluster
from ..options.search import EncoderArguments, build_read_limits, check_image_arguments, check_text_encoding
from ..output.bars import TerminalInfo, escape_control, format_weights
from ..output.console import emit_json, print_error, stdout

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.sources.base import ReadLimits

_PRINTED_TOGETHER = 32


def encode_command(
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="Image files, or http(s) URLs of images.")] = None,
    text: Annotated[str | None, typer.Option("--text", metavar="TEXT", help="Encode a text instead of images.")] = None,
    allow_private_urls: shared.AllowPrivateUrlsOption = False,
    as_json: shared.JsonOption = False,
    *,
    index: Annotated[
        str | None,
        typer.Option("--index", "-i", metavar="ALIAS", help="Use the model and text tower of this index."),
    ] = None,
    connection: ConnectionArguments,
    model: shared.OptionalModelOption = None,
    fit: shared.FitOption = None,
    backend: shared.BackendOption = "auto",
    text_tower: shared.IndexTextTowerOption = None,
) -> None:
    """Encode images or a text, and print their words, heaviest first.

    **Examples**

    ```text
    stair-es encode photo.jpg
    stair-es encode --text "red car"
    stair-es encode *.jpg --json  # one JSON object per line
    stair-es encode photo.jpg --index photos  # with the model of that index
    ```

    Requires no cluster, unless you give `--index`.
    """
    example = 'stair-es encode photo.jpg, or stair-es encode --text "red car"'
    if images and text is not None:
        raise OptionConflict("IMAGE and --text are mutually exclusive", f"Give one of them: {example}")
    if not images and not (text and text.strip()):
        raise UsageError("neither IMAGE nor --text given", f"Give one of them: {example}", code="no-input")
    check_text_encoding(text or "")
    images = check_image_arguments("IMAGE", images or [])
    arguments = EncoderArguments(model=model or None, fit=fit, backend=backend, text_tower=text_tower)
    encoder = arguments.load() if index is None else _load_encoder_of_index(arguments, connection, index)
    if images:
        _encode_images(encoder, images, build_read_limits(allow_private=allow_private_urls), as_json)
    elif text:
        from stair_es.search.query_encoder import encode_query_text

        _print_vector("text", text, encode_query_text(encoder, text), as_json)


def _load_encoder_of_index(arguments: EncoderArguments, connection: ConnectionArguments, index: str) -> Encoder:
    """Load the encoder of an index; a given model or fit must be the same."""
    from stair_es.search.index_info import fetch_index_info

    with open_cluster(connection) as cluster:
        info = fetch_index_info(cluster, index)
    return arguments.load_checked(info, index)


def _encode_images(encoder: Encoder, images: list[str], read_limits: ReadLimits, as_json: bool) -> None:
    """Encode and print the images, report those that can't be decoded, and fail at the end if there were any."""
    from stair_es.sources.http.urls import normalize_url
    from stair_es.sources.image.read import is_http_url
    from stair_es.sources.io.uris import to_file_uri

    failed = 0
    for begin in range(0, len(images), _PRINTED_TOGETHER):
        together = images[begin : begin + _PRINTED_TOGETHER]
        for image, vector in zip(together, encoder.encode(images=together, read_limits=read_limits), strict=True):
            if isinstance(vector, SparseVector):
                _print_vector("uri", normalize_url(image) if is_http_url(image) else to_file_uri(image), vector, as_json)
            elif len(images) == 1:
                raise vector
            else:
                print_error(vector)
                failed += 1
    if failed:
        raise DecodeError(f"{failed} of {len(images)} images could not be decoded", code="images-not-decoded")


def _print_vector(key: str, name: str, vector: SparseVector, as_json: bool) -> None:
    if as_json:
        emit_json({key: name, "tokens": vector.to_dict()})
        return
    from rich.text import Text

    from ..output.bars import display_path

    terminal = TerminalInfo.from_console(stdout)
    label = display_path(name) if key == "uri" else name
    stdout.print(Text(escape_control(label, terminal.encoding), style="bold"))
    for line in format_weights(vector, terminal) or [Text("  no word in the vocabulary of the model", style="dim")]:
        stdout.print(line)

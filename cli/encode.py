"""`stair-es encode`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from stair_es.config import DEFAULT_MODEL
from stair_es.errors import DecodeError, UsageError

from . import connections, inputs, options
from .bars import Canvas, visible, weight_lines
from .output import emit_json, fail, stdout

if TYPE_CHECKING:
    from stair_es.model.encoder import Backend, Encoder, TextTower
    from stair_es.sources.item import Reading
    from stair_es.types import Fit, SparseVector


def encode(
    images: Annotated[list[str] | None, typer.Argument(metavar="IMAGE", help="Image files, or http(s) URLs of images.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Encode a text instead of images.")] = None,
    allow_private_urls: options.AllowPrivateUrls = False,
    as_json: options.Json = False,
    index: Annotated[
        str | None,
        typer.Option("--index", "-i", help="Use the model (and text tower) of this index."),
    ] = None,
    url: options.Url = None,
    model: options.NamedModel = None,
    fit: options.FitOption = None,
    backend: options.BackendOption = "auto",
    text_tower: options.IndexTextTower = None,
) -> None:
    """Print the words of images or of a text, heaviest first. Needs no cluster, except for `--index`.

    **Examples**

    - `stair-es encode photo.jpg`

    - `stair-es encode --text "red car"`

    - `stair-es encode *.jpg --json` (one JSON object per line)

    - `stair-es encode photo.jpg --index photos` (with the model of that index)
    """
    example = 'stair-es encode photo.jpg, or stair-es encode --text "red car"'
    if images and text is not None:
        raise UsageError("IMAGE and --text exclude each other", f"Give one of them: {example}")
    if not images and not (text and text.strip()):
        raise UsageError("neither IMAGE nor --text given", f"Give one of them: {example}")
    inputs.readable(text or "")
    images = inputs.check_images("IMAGE", images or [])
    if index is None:
        encoder = inputs.load_encoder(model or DEFAULT_MODEL, fit, backend, text_tower or "full")
    else:
        encoder = _encoder_of(index, url, model, fit, backend, text_tower)
    if images:
        _encode_images(encoder, images, inputs.reading_of(allow_private=allow_private_urls), as_json)
    elif text:
        from stair_es.search.inputs import text_vector

        _show("text", text, text_vector(encoder, text), as_json)


def _encoder_of(
    index: str, url: str | None, model: str | None, fit: Fit | None, backend: Backend, text_tower: TextTower | None
) -> Encoder:
    """Load the encoder of an index; a given model or fit must be the same."""
    from contextlib import closing

    from stair_es.search.index_model import load_model
    from stair_es.search.known import look

    connection = connections.connection(url)
    with closing(connection.client()) as client:
        known = look(client, connection, index)
    encoder = load_model(known, index, named=model, fit=fit, backend=backend, text_tower=text_tower)
    known.check_model(encoder.model_id)
    return encoder


def _encode_images(encoder: Encoder, images: list[str], reading: Reading, as_json: bool) -> None:
    """Encode and print the images, report those that can't be decoded, and fail at the end if there were any."""
    from stair_es.search.inputs import image_vector, is_url
    from stair_es.sources.paths import uri_of
    from stair_es.sources.web.text import public_uri

    failed = 0
    for image in images:
        try:
            vector = image_vector(encoder, image, reading)
        except DecodeError as error:
            if len(images) == 1:
                raise
            fail(error)
            failed += 1
            continue
        _show("uri", public_uri(image) if is_url(image) else uri_of(image), vector, as_json)
    if failed:
        raise DecodeError(f"{failed} of {len(images)} images could not be decoded")


def _show(kind: str, name: str, vector: SparseVector, as_json: bool) -> None:
    if as_json:
        emit_json({kind: name, "tokens": vector.to_dict()})
        return
    from rich.text import Text

    from .bars import readable

    canvas = Canvas.of(stdout)
    shown = readable(name) if kind == "uri" else name
    stdout.print(Text(visible(shown, canvas.encoding), style="bold"))
    for line in weight_lines(vector, canvas) or [Text("  no word in the vocabulary of the model", style="dim")]:
        stdout.print(line)

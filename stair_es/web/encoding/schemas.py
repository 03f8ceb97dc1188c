"""Parse the bodies of encoding requests: untrusted JSON -> values of checked type and size. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

import orjson

from stair_es.errors import DecodeError
from stair_es.types import SparseVector
from stair_es.web.errors import RequestRejected

MAX_INPUTS = 32
"""Texts and images in a request, as in text-embeddings-inference (`max_client_batch_size`)."""
MAX_TEXT_CHARS = 8192
_MAX_MODEL_CHARS = 1000
MAX_HITS = 10_000
"""Maximum `size` of a search request, as in the engines (`index.max_result_window`)."""
MAX_BODY_BYTES = 32 * 1024 * 1024
_MAX_SEPARATORS = MAX_INPUTS * MAX_TEXT_CHARS
"""Commas, brackets and quotes in a body, those of its texts among them. Values cost time and memory far beyond their bytes."""
_MAX_WIDE_BYTES = MAX_INPUTS * MAX_TEXT_CHARS * 12
"""Total size in JSON of the strings that aren't ASCII, enough for all texts: two escapes of 6 bytes can be a character."""
_MAX_URI_HEAD_CHARS = 200
"""Maximum length of `data:image/jpeg;base64`. The rest of a data URI is never searched: it may be all of the body."""
_ENCODE_FIELDS = ("texts", "images", "prune", "format", "model")
_QUERY_FIELDS = ("text", "image", "size", "prune")
_PRUNE_FIELDS = ("max_tokens", "min_ratio")
VectorFormat = Literal["tokens", "features", "feature_list"]
"""How a response has a vector: weights by token, or by the name that a token has in an index, or the latter as a list."""
_ENCODE_EXAMPLE = 'Send an object, such as {"texts": ["red car"]}.'
_QUERY_EXAMPLE = 'Send an object, such as {"text": "red car"}.'
_EMBED_EXAMPLE = 'Send an object, such as {"inputs": ["red car"]}.'


@dataclass(frozen=True, kw_only=True)
class Pruning:
    """Selection of the tokens of a vector."""

    max_tokens: int | None = None
    """Number of the heaviest tokens; None for all."""
    min_ratio: float = 0.0
    """Minimum ratio of a weight to the largest one."""

    def prune_vector(self, vector: SparseVector) -> SparseVector:
        """Return a vector without its light tokens."""
        kept = vector.top(self.max_tokens) if self.max_tokens else vector
        return kept.top(sum(weight >= self.min_ratio * kept.weights[0] for weight in kept.weights))


@dataclass(frozen=True, kw_only=True)
class EncodeParams:
    """The parameters of an encoding request."""

    texts: tuple[str, ...] = ()
    images: tuple[bytes, ...] = ()
    """Files."""
    pruning: Pruning = Pruning()
    format: VectorFormat = "tokens"
    model: str | None = None
    """The model id that is expected."""


@dataclass(frozen=True, kw_only=True)
class EmbedParams:
    """The parameters of a request in the form of text-embeddings-inference."""

    inputs: tuple[str | bytes, ...]
    """Texts, and files of images."""


@dataclass(frozen=True, kw_only=True)
class QueryParams:
    """The parameters of a request for the body of a search."""

    text: str | None = None
    image: bytes | None = None
    """A file."""
    size: int = 10
    """Number of hits."""
    pruning: Pruning = Pruning()


def parse_encode_params(body: bytes, max_image_bytes: int) -> EncodeParams:
    """Parse the body of `POST /v1/encode`.

    Args:
        body: The body.
        max_image_bytes: Maximum size of an image.

    Raises:
        RequestRejected: If it isn't JSON, has an unknown field, a value of another type, no input, or too many or too large ones.
    """
    fields = _parse_object(body, _ENCODE_EXAMPLE)
    _check_fields(fields, _ENCODE_FIELDS, "")
    texts, images = (_parse_strings(name, fields.get(name)) for name in ("texts", "images"))
    _check_count("`texts` and `images`", len(texts) + len(images), _ENCODE_EXAMPLE)
    for i, text in enumerate(texts):
        _check_length(f"`texts[{i}]`", text)
    model = fields.get("model")
    if model is not None and (not isinstance(model, str) or len(model) > _MAX_MODEL_CHARS):
        raise _reject(
            f"`model` is not a string of at most {_MAX_MODEL_CHARS} characters", "Send the id of the model, or leave it out."
        )
    return EncodeParams(
        texts=texts,
        images=tuple(_decode_data_uri(f"images[{i}]", image, max_image_bytes) for i, image in enumerate(images)),
        pruning=_parse_pruning(fields.get("prune")),
        format=_parse_format(fields.get("format")),
        model=model,
    )


def parse_query_params(body: bytes, max_image_bytes: int) -> QueryParams:
    """Parse the body of `POST /v1/query`.

    Args:
        body: The body.
        max_image_bytes: Maximum size of an image.

    Raises:
        RequestRejected: If it isn't JSON, has an unknown field, a value of another type, or not either a text or an image.
    """
    fields = _parse_object(body, _QUERY_EXAMPLE)
    _check_fields(fields, _QUERY_FIELDS, "")
    text, image, size = fields.get("text"), fields.get("image"), _parse_integer(fields.get("size"))
    for name, value in (("text", text), ("image", image)):
        if value is not None and not isinstance(value, str):
            raise _reject(f"`{name}` is not a string", _QUERY_EXAMPLE)
    if (text is None) == (image is None):
        raise _reject("`text` or `image` is required, and not both", _QUERY_EXAMPLE)
    if text is not None:
        _check_length("`text`", text)
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_HITS):
        raise _reject(f"`size` is not an integer from 1 to {MAX_HITS:,}")
    return QueryParams(
        text=text,
        image=None if image is None else _decode_data_uri("image", image, max_image_bytes),
        size=size or QueryParams.size,
        pruning=_parse_pruning(fields.get("prune")),
    )


def parse_embed_params(body: bytes, max_image_bytes: int) -> EmbedParams:
    """Parse the body of `POST /embed_sparse`. Fields that text-embeddings-inference has for other models are ignored.

    Args:
        body: The body.
        max_image_bytes: Maximum size of an image.

    Raises:
        RequestRejected: If it isn't JSON, `inputs` isn't a string or list of strings, or has too many or too large ones.
    """
    fields = _parse_object(body, _EMBED_EXAMPLE)
    given = fields.get("inputs")
    if given is None:
        raise _reject("`inputs` is missing", _EMBED_EXAMPLE)
    if fields.get("prompt_name") is not None:
        raise _reject("`prompt_name`: the model has no prompts", "Leave it out.")
    truncate = fields.get("truncate")
    if not isinstance(truncate, bool | None):
        raise _reject("`truncate` is not a boolean")
    inputs = _parse_strings("inputs", given)
    _check_count("`inputs`", len(inputs), _EMBED_EXAMPLE)
    return EmbedParams(
        inputs=tuple(
            _decode_data_uri(f"inputs[{i}]", item, max_image_bytes)
            if _read_uri_head(item)
            else _truncate_text(f"`inputs[{i}]`", item, truncate)
            for i, item in enumerate(inputs)
        )
    )


def build_decode_rejection(place: str, error: DecodeError) -> RequestRejected:
    """Build the rejection of an image that can't be decoded; `place` is where the request has it."""
    return _reject(f"`{place}`: {error.message}"[:1000], error.remedy or "Send a JPEG, PNG, WebP, GIF, TIFF or AVIF in base64.")


def _reject(error: str, remedy: str = "", status: int = 422) -> RequestRejected:
    return RequestRejected(status, error, remedy)


def _parse_object(body: bytes, example: str) -> Mapping[str, Any]:
    if sum(map(body.count, (b",", b"[", b"{", b'"'))) > _MAX_SEPARATORS:
        raise _reject(
            f"the body has more than {_MAX_SEPARATORS:,} commas, brackets and quotes", "Send fewer or shorter inputs.", 413
        )
    _check_wide_strings(body)
    try:
        fields = orjson.loads(body)
    except orjson.JSONDecodeError as error:  # includes nesting that is too deep, NaN and unpaired surrogates
        raise RequestRejected(400, f"the body is not JSON: {error}", example) from None
    if not isinstance(fields, dict):
        raise _reject("the body is not an object", example)
    return fields


def _check_wide_strings(body: bytes) -> None:
    """Check that no large string has characters beyond ASCII: one of them makes each character of the string take 4 bytes."""
    if body.isascii() and b"\\u" not in body:
        return
    strings = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    wide = (each for each in strings if not each.isascii() or each.count(b"\\u") > each.count(b"\\u00"))
    if sum(map(len, wide)) > _MAX_WIDE_BYTES:
        raise _reject(
            f"the body has more than {_MAX_WIDE_BYTES:,} bytes of strings that are not ASCII",
            f"Send images in base64, and texts of at most {MAX_TEXT_CHARS:,} characters.",
            413,
        )


def _check_fields(fields: Mapping[str, Any], known: tuple[str, ...], parent: str) -> None:
    unknown = next((name for name in fields if name not in known), None)
    if unknown is not None:
        raise _reject(f"unknown field {parent + unknown[:80]!r}", f"Available: {', '.join(parent + name for name in known)}.")


def _parse_strings(name: str, value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    items = [value] if isinstance(value, str) else value
    if not isinstance(items, list) or not all(isinstance(item, str) for item in items):
        raise _reject(f"`{name}` is neither a string nor a list of strings")
    return tuple(items)


def _check_count(names: str, count: int, example: str) -> None:
    if not count:
        raise RequestRejected(400, f"{names}: there is nothing to encode", example, error_type="Empty")
    if count > MAX_INPUTS:
        raise _reject(
            f"{names}: batch size {count} > maximum allowed batch size {MAX_INPUTS}", "Send them in several requests.", 413
        )


def _check_length(name: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise _reject(f"{name} has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are allowed", "Shorten it.", 413)


def _truncate_text(name: str, text: str, truncate: bool | None) -> str:
    if truncate is False:
        _check_length(name, text)
    return text[:MAX_TEXT_CHARS]


def _read_uri_head(text: str) -> str:
    """Return what a data URI in base64 has before its data, such as `data:image/jpeg;base64,`; empty if it is something else."""
    head, comma, _ = text[: _MAX_URI_HEAD_CHARS + 1].partition(",")
    lowered = head.lower()
    return head + comma if comma and lowered.startswith("data:") and lowered.endswith(";base64") else ""


def _decode_data_uri(place: str, text: str, max_bytes: int) -> bytes:
    """Decode an image; `place` is where the request has it."""
    head = _read_uri_head(text)
    if not head.lower().startswith("data:image/"):
        raise _reject(f"`{place}` is not an image in base64", "Send a data URI: data:image/jpeg;base64,...")
    if len(text) - len(head) > (max_bytes + 2) // 3 * 4:
        raise build_decode_rejection(place, DecodeError(f"the image is larger than {max_bytes:,} bytes", "Send a smaller one."))
    try:
        data = text.encode("ascii")[len(head) :]
        return base64.b64decode(data, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise build_decode_rejection(
            place,
            DecodeError("not valid base64", "Send standard base64: with + and /, padding, and without line breaks."),
        ) from None


def _parse_pruning(value: object) -> Pruning:
    if value is None:
        return Pruning()
    if not isinstance(value, dict):
        raise _reject("`prune` is not an object", 'Send {"max_tokens": 16}, {"min_ratio": 0.1} or both.')
    _check_fields(value, _PRUNE_FIELDS, "prune.")
    max_tokens, min_ratio = _parse_integer(value.get("max_tokens")), value.get("min_ratio")
    if max_tokens is not None and (not isinstance(max_tokens, int) or isinstance(max_tokens, bool) or max_tokens < 1):
        raise _reject("`prune.max_tokens` is not an integer from 1 on")
    is_number = isinstance(min_ratio, int | float) and not isinstance(min_ratio, bool)
    if min_ratio is not None and not (is_number and 0 <= min_ratio <= 1):
        raise _reject("`prune.min_ratio` is not a number from 0 to 1")
    return Pruning(max_tokens=max_tokens, min_ratio=min_ratio or 0.0)


def _parse_integer(value: object) -> object:
    """Return an integral number such as 3.0, an integer in JSON Schema, as an integer; any other value as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _parse_format(value: object) -> VectorFormat:
    formats = get_args(VectorFormat)
    if value is not None and value not in formats:
        raise _reject("`format` is not a known format", f"Send one of {', '.join(formats)}, or leave it out.")
    return cast(VectorFormat, value or "tokens")

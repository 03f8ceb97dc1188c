"""The bodies of the encoder: untrusted JSON -> requests and inputs of checked type and size, and what is answered. Pure."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, get_args

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from stair_es.errors import DecodeError
from stair_es.types import SparseVector
from stair_es.web.errors import RequestRejected
from stair_es.web.request_body import check_wide_strings, parse_struct
from stair_es.web.search.params import Conditions, FilterText, SortText, Tokens

MAX_INPUTS = 32
"""Texts and images in a request, as in text-embeddings-inference (`max_client_batch_size`)."""
MAX_TEXT_CHARS = 8192
MAX_BODY_BYTES = 32 * 1024 * 1024
DEFAULT_HITS = 10
_MAX_HITS = 10_000
"""Maximum `size` of a search request, as in the engines (`index.max_result_window`)."""
_MAX_SHOWN_CHARS = 80
_MAX_SEPARATORS = MAX_INPUTS * MAX_TEXT_CHARS
"""Commas, brackets and quotes in a body, those of its texts among them. Values cost time and memory far beyond their bytes."""
_MAX_WIDE_BYTES = MAX_INPUTS * MAX_TEXT_CHARS * 12
"""Total size in JSON of the strings that aren't ASCII, enough for all texts: two escapes of 6 bytes can be a character."""
_MAX_URI_HEAD_CHARS = 200
"""Maximum length of `data:image/jpeg;base64`. The rest of a data URI is never searched: it may be all of the body."""

VectorFormat = Literal["tokens", "features", "feature_list"]
"""How a response has a vector: weights by token, or by the name that a token has in an index, or the latter as a list."""
Inputs: TypeAlias = Mapping[str, str | bytes]
"""Place in the request -> text, or image file."""
RequestT = TypeVar("RequestT", bound=Struct)

# Texts, images and their number are checked below: what is wrong with them has other statuses, and a pattern would search all
# of an image.
_Text = Annotated[str, Meta(extra_json_schema={"maxLength": MAX_TEXT_CHARS})]
_Texts = Annotated[tuple[_Text, ...], Meta(extra_json_schema={"maxItems": MAX_INPUTS})]
_Image = Annotated[str, Meta(extra_json_schema={"pattern": "^data:image/[^,]{0,180};base64,[A-Za-z0-9+/]*={0,2}$"})]
_Images = Annotated[tuple[_Image, ...], Meta(extra_json_schema={"maxItems": MAX_INPUTS})]
_Mixed = Annotated[tuple[str, ...], Meta(extra_json_schema={"minItems": 1, "maxItems": MAX_INPUTS})]
_Count = Annotated[float, Meta(ge=1, multiple_of=1)]
"""3.0 is an integer in JSON Schema."""
_Size = Annotated[float, Meta(ge=1, le=_MAX_HITS, multiple_of=1)]
_Ratio = Annotated[float, Meta(ge=0, le=1)]
_Weight = Annotated[float, Meta(gt=0)]
_Cursor: TypeAlias = tuple[int | float | str, str | None, str | None, str]
_Objects: TypeAlias = list[dict[str, Any]]
_Natural = Annotated[int, Meta(ge=0)]

_ENCODE_EXAMPLE = 'Send an object, such as {"texts": ["red car"]}.'
_QUERY_EXAMPLE = 'Send an object, such as {"text": "red car"}.'
_EMBED_EXAMPLE = 'Send an object, such as {"inputs": ["red car"]}.'
_REMEDIES = {
    "filters": 'Write it like {"field": "format", "any": ["JPEG"]} or {"field": "width", "gte": 800}.',
    "k": f"Send an integer from 1 to {_MAX_HITS:,}.",
    "model": "Send the id of the model, or leave it out.",
    "format": f"Send one of {', '.join(get_args(VectorFormat))}, or leave it out.",
    "prune": 'Send {"max_tokens": 16}, {"min_ratio": 0.1} or both.',
    "prompt_name": "Leave it out: the model has no prompts.",
}


class Pruning(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Selection of the tokens of a vector."""

    max_tokens: Annotated[_Count | None, Meta(description="Number of heaviest tokens to keep.")] = None
    min_ratio: Annotated[_Ratio | None, Meta(description="Keep tokens with at least this share of the largest weight.")] = None

    def prune_vector(self, vector: SparseVector) -> SparseVector:
        """Return a vector without its light tokens."""
        kept = vector.top(int(self.max_tokens)) if self.max_tokens else vector
        return kept.top(sum(weight >= (self.min_ratio or 0.0) * kept.weights[0] for weight in kept.weights))


_Prune = Annotated[Pruning | None, Meta(description="Which tokens to keep. All of them by default.")]


class EncodeRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """At least one text or image, and at most 32 together."""

    texts: Annotated[_Text | _Texts | None, Meta(description="One or more texts.")] = None
    images: Annotated[_Image | _Images | None, Meta(description="One or more images as base64 data URIs.")] = None
    prune: _Prune = None
    format: Annotated[
        VectorFormat | None,
        Meta(
            description="Format of the vectors: `tokens` (default) maps tokens to weights; `features` uses the names of tokens "
            "in an index (`.` is `%2E`, `%` is `%25`); `feature_list` returns those as a list."
        ),
    ] = None
    model: Annotated[
        Annotated[str, Meta(max_length=1000)] | None, Meta(description="Expected model id. Any other model is an error.")
    ] = None


class QueryRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """A text, an image, or both."""

    text: Annotated[
        _Text | None,
        Meta(
            description='A query string: `+word` is required, `-word` excluded, `word^2` counts twice, `"words in quotes"` are '
            "read as they are. Required without `image`."
        ),
    ] = None
    image: Annotated[_Image | None, Meta(description="An image as a base64 data URI. Required without `text`.")] = None
    require: Annotated[Tokens, Meta(description="Words that an image must have.")] = ()
    exclude: Annotated[Tokens, Meta(description="Words that an image must not have.")] = ()
    filter: Annotated[FilterText, Meta(description="A query string: `width:>800 AND format:JPEG`.")] = ""
    filters: Annotated[
        Conditions,
        Meta(
            description='Conditions on fields (with `--index`): `{"field": "width", "gte": 800}`, or with `any` or `all` values.'
        ),
    ] = ()
    hybrid: Annotated[bool, Meta(description="Whether words are also searched in captions or titles, if there are any.")] = True
    k: Annotated[_Size | None, Meta(description="Number of hits.")] = DEFAULT_HITS
    after: Annotated[_Cursor | None, Meta(description="For the next page: `sort` of the last hit. The first has null.")] = None
    cut: Annotated[bool, Meta(description="Whether weak matches are left out.")] = False
    sort: Annotated[SortText, Meta(description="Order of the matches by a field (with `--index`): `price:asc`.")] = ""
    describe: Annotated[bool, Meta(description="Whether the answer also tells how the query was read.")] = False
    prune: _Prune = None


class EmbedSparseRequest(Struct, kw_only=True):
    """Texts and images. Fields that text-embeddings-inference has for other models are ignored."""

    inputs: Annotated[str | _Mixed, Meta(description="One or more texts. A base64 data URI of an image is encoded as an image.")]
    truncate: Annotated[
        bool | None,
        Meta(
            description=f"If `false`, a text of more than {MAX_TEXT_CHARS:,} characters is an error; otherwise it is truncated. "
            "The model also truncates texts to the length that it was trained on."
        ),
    ] = None
    prompt_name: Annotated[None, Meta(description="Must be null: the model has no prompts.")] = None


def parse_encode_request(body: bytes, max_image_bytes: int) -> tuple[EncodeRequest, Inputs]:
    """Parse the body of `POST /v1/encode`: the request without its images, and its inputs."""
    request = parse_request(body, EncodeRequest, _ENCODE_EXAMPLE)
    texts, images = _number_items("texts", request.texts), _number_items("images", request.images)
    check_count("`texts` and `images`", len(texts) + len(images), _ENCODE_EXAMPLE)
    for place, text in texts.items():
        _check_length(place, text)
    request.images = None
    return request, {**texts, **{place: decode_base64(place, image, max_image_bytes) for place, image in images.items()}}


def parse_query_request(body: bytes, max_image_bytes: int) -> tuple[QueryRequest, Inputs]:
    """Parse the body of `POST /v1/query`: the request without its image, and its inputs."""
    request = parse_request(body, QueryRequest, _QUERY_EXAMPLE)
    image, request.image = request.image, None
    if request.text is None and image is None:
        raise RequestRejected(422, "`text` or `image` is required", _QUERY_EXAMPLE, code="no-input")
    _check_length("text", request.text or "")
    texts: dict[str, str | bytes] = {} if request.text is None else {"text": request.text}
    return request, texts if image is None else {**texts, "image": decode_base64("image", image, max_image_bytes)}


def parse_embed_request(body: bytes, max_image_bytes: int) -> tuple[None, Inputs]:
    """Parse the body of `POST /embed_sparse`: its inputs."""
    request = parse_request(body, EmbedSparseRequest, _EMBED_EXAMPLE)
    items = _number_items("inputs", request.inputs)
    check_count("`inputs`", len(items), _EMBED_EXAMPLE)
    inputs: dict[str, str | bytes] = {}
    for place, item in items.items():
        if _read_uri_head(item):
            inputs[place] = decode_base64(place, item, max_image_bytes)
        else:
            if request.truncate is False:
                _check_length(place, item)
            inputs[place] = item[:MAX_TEXT_CHARS]
    return None, inputs


def build_decode_rejection(place: str, error: DecodeError) -> RequestRejected:
    """Build the rejection of an image that can't be decoded; `place` is where the request has it."""
    remedy = error.remedy or "Send a JPEG, PNG, WebP, GIF, TIFF or AVIF in base64."
    return RequestRejected(422, f"`{place}`: {error.message}"[:1000], remedy, code=error.code)


def parse_request(body: bytes, type_: type[RequestT], example: str) -> RequestT:
    """Parse a body; `example` is what to do about one that isn't an object."""
    if sum(map(body.count, (b",", b"[", b"{", b'"'))) > _MAX_SEPARATORS:
        raise RequestRejected(
            413,
            f"the body has more than {_MAX_SEPARATORS:,} commas, brackets and quotes",
            "Send fewer or shorter inputs.",
            code="body-too-complex",
        )
    check_wide_strings(body, _MAX_WIDE_BYTES)
    return parse_struct(body, type_, {**_REMEDIES, "": example}, _decode_json, 422)


def _decode_json(body: bytes) -> object:
    """Decode JSON with little memory: the errors of other decoders hold the body as text, perhaps with 4 bytes a character."""
    fields = msgspec.json.decode(body)
    if not isinstance(fields, dict):
        return fields
    # Errors have these several times.
    if isinstance(fields.get("format"), str):
        fields["format"] = fields["format"][:_MAX_SHOWN_CHARS]
    if isinstance(fields.get("prune"), dict):
        fields["prune"] = {name[:_MAX_SHOWN_CHARS]: value for name, value in fields["prune"].items()}
    return fields


def _number_items(name: str, value: str | tuple[str, ...] | None) -> dict[str, str]:
    items = (value,) if isinstance(value, str) else value or ()
    return {f"{name}[{i}]": item for i, item in enumerate(items)}


def check_count(names: str, count: int, example: str) -> None:
    """Check the number of inputs in a request; `names` are where it has them."""
    if not count:
        raise RequestRejected(400, f"{names}: there is nothing to encode", example, error_type="Empty", code="no-input")
    if count > MAX_INPUTS:
        raise RequestRejected(
            413,
            f"{names}: batch size {count} > maximum allowed batch size {MAX_INPUTS}",
            "Send them in several requests.",
            code="too-many-inputs",
        )


def _check_length(place: str, text: str) -> None:
    if len(text) > MAX_TEXT_CHARS:
        raise RequestRejected(
            413,
            f"`{place}` has {len(text):,} characters; at most {MAX_TEXT_CHARS:,} are allowed",
            "Shorten it.",
            code="text-too-long",
        )


def _read_uri_head(text: str) -> str:
    """Return what a data URI in base64 has before its data, such as `data:image/jpeg;base64,`; empty if it is something else."""
    head, comma, _ = text[: _MAX_URI_HEAD_CHARS + 1].partition(",")
    lowered = head.lower()
    return head + comma if comma and lowered.startswith("data:") and lowered.endswith(";base64") else ""


def decode_base64(place: str, text: str, max_bytes: int, *, allow_plain: bool = False) -> bytes:
    """Decode an image in base64: a data URI, or, if allowed, plain base64; `place` is where the request has it."""
    head = _read_uri_head(text)
    if not head.lower().startswith("data:image/") and (head or not allow_plain):
        raise RequestRejected(
            422, f"`{place}` is not an image in base64", "Send a data URI: data:image/jpeg;base64,...", code="not-base64"
        )
    if len(text) - len(head) > (max_bytes + 2) // 3 * 4:
        raise build_decode_rejection(
            place, DecodeError(f"the image is larger than {max_bytes:,} bytes", "Send a smaller one.", code="image-too-large")
        )
    try:
        data = text.encode("ascii")[len(head) :]
        return base64.b64decode(data, validate=True)
    except (UnicodeEncodeError, binascii.Error):
        raise build_decode_rejection(
            place,
            DecodeError(
                "not valid base64", "Send standard base64: with + and /, padding, and without line breaks.", code="not-base64"
            ),
        ) from None


class Feature(Struct, frozen=True, forbid_unknown_fields=True):
    """A token of a vector by the name that it has in an index."""

    feature: Annotated[str, Meta(description="The name of a token in an index.")]
    weight: Annotated[_Weight, Meta(description="Its weight.")]


class Vector(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tokens of a text or an image with their weights, heaviest first."""

    tokens: Annotated[
        dict[str, _Weight] | UnsetType,
        Meta(description="Tokens with weights, heaviest first; `{}` if the model knows no word of the text."),
    ] = UNSET
    features: Annotated[
        dict[str, _Weight] | tuple[Feature, ...] | UnsetType,
        Meta(description="Replaces `tokens` if the format is `features` or `feature_list`."),
    ] = UNSET


class EncodeResponse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The vectors of a request."""

    model: Annotated[str, Meta(description="Model id, as in the documents of an index.")]
    policy: Annotated[str | None, Meta(description="Digest of the token policy that was applied, or null.")]
    texts: Annotated[list[Vector], Meta(description="The vectors of the texts.")]
    images: Annotated[list[Vector], Meta(description="The vectors of the images.")]


class QueryResponse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A search, and how its query was read."""

    body: Annotated[dict[str, Any], Meta(description="The body of a `_search` request.")]
    model: Annotated[str, Meta(description="Model id. With the policy and the tokens it tells what the ranking is by.")]
    policy: Annotated[str | None, Meta(description="Digest of the token policy of the index, or null.")]
    tokens: Annotated[dict[str, _Weight], Meta(description="The tokens that are sent, heaviest first.")]
    weak_below: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(description="Sum of the tokens below which a hit is a weak match, as `cut` leaves it out; null if it isn't known."),
    ]
    conditions: Annotated[
        _Objects, Meta(description="The parts of the text that are read as conditions: `text`, `field` and `clause`.")
    ]
    unknown_words: Annotated[
        _Objects, Meta(description="The words that the model doesn't know: `word`, `suggestions` and `searched_for`.")
    ]
    remarks: Annotated[list[str], Meta(description="Notes for the user on how the query was read.")]


class SparseValue(Struct, frozen=True, forbid_unknown_fields=True):
    """A token of a vector by its position."""

    index: Annotated[_Natural, Meta(description="The position of the token in `/v1/vocabulary`.")]
    value: Annotated[_Weight, Meta(description="Its weight.")]


class Vocabulary(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The tokens of a model."""

    model: Annotated[str, Meta(description="The id of the model.")]
    tokens: Annotated[
        list[str], Meta(description="Tokens in the order of their indices.", extra_json_schema={"uniqueItems": True})
    ]
    photo_tokens: Annotated[
        list[str] | None,
        Meta(description="Those that photographs can carry, while drawings can carry all; null if it isn't known."),
    ]


class Info(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The model and the limits in the format of text-embeddings-inference."""

    model_id: Annotated[str, Meta(description="The id of the model.")]
    served_model_name: Annotated[str, Meta(description="Same as `model_id`.")]
    model_sha: Annotated[str | None, Meta(description="Always null: the revision is part of the id.")]
    model_dtype: Annotated[str, Meta(description="Type of the weights.")]
    model_type: Annotated[
        dict[str, dict[str, str]],
        Meta(description='Always `{"embedding": {"pooling": "splade"}}`, which means sparse vectors.'),
    ]
    max_concurrent_requests: Annotated[_Natural, Meta(description="Maximum number of queued inputs (`--max-waiting`).")]
    max_input_length: Annotated[_Natural, Meta(description="Maximum number of characters per text.")]
    max_batch_tokens: Annotated[_Natural, Meta(description="Maximum number of characters per batch.")]
    max_batch_requests: Annotated[_Natural, Meta(description="Maximum number of texts per batch (`--max-batch`).")]
    max_client_batch_size: Annotated[_Natural, Meta(description="Maximum number of inputs per request.")]
    auto_truncate: Annotated[bool, Meta(description="Whether long texts are truncated unless `truncate` is false.")]
    tokenization_workers: Annotated[_Natural, Meta(description="Always 1.")]
    version: Annotated[str, Meta(description="Version of stair-es.")]
    sha: Annotated[str | None, Meta(description="Always null.")]
    docker_label: Annotated[str | None, Meta(description="Always null.")]


class ErrorBody(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is wrong with a request, or with the server."""

    error: Annotated[str, Meta(description="What was wrong, and where.")]
    error_type: Annotated[
        Literal[
            "Validation",
            "Empty",
            "Overloaded",
            "Unhealthy",
            "Backend",
            "Unauthorized",
            "Forbidden",
            "NotFound",
            "MethodNotAllowed",
            "Timeout",
        ],
        Meta(description="The kind of error, as text-embeddings-inference has them."),
    ]
    code: Annotated[str, Meta(description="The fault, for programs: such as `index-not-found`.")]
    remedy: Annotated[str, Meta(description="What to do; may be empty.")]

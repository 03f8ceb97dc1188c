"""The bodies of `/v1/documents`: untrusted JSON, or a file and parameters -> images to ingest; and what is answered. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from stair_es.cluster.documents.document import check_field_names, make_document_id
from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import SourceItem
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.io.remote import strip_credentials
from stair_es.sources.kinds.fields import estimate_json_bytes, make_json_safe
from stair_es.sources.limits import MAX_FIELD_NAME_CHARS
from stair_es.types import Json
from stair_es.web.encoding.schemas import MAX_INPUTS, check_count, decode_base64, parse_request
from stair_es.web.errors import RequestRejected

API_URI = "api:"
"""The `source` of images that a request doesn't give another one."""
MAX_URI_BYTES = 8191
"""As long as a URI that the engines index."""
MAX_ID_BYTES = 512
"""As long as an `_id` in the engines."""
MAX_FIELDS = 100
MAX_IMAGE_FIELDS_BYTES = 64 * 1024
_MAX_THUMBNAIL_PX = 512

_EXAMPLE = 'Send an object, such as {"images": [{"url": "https://example.com/cat.jpg"}]}.'
_Thumbnail = Annotated[float, Meta(ge=0, le=_MAX_THUMBNAIL_PX, multiple_of=1)]
_Data = Annotated[str, Meta(extra_json_schema={"pattern": "^(data:image/[^,]{0,180};base64,)?[A-Za-z0-9+/]*={0,2}$"})]
_Index = Annotated[str, Meta(min_length=1, max_length=255)]
_Uri = Annotated[str, Meta(min_length=1, max_length=MAX_URI_BYTES)]
_Id = Annotated[str, Meta(min_length=1, max_length=MAX_ID_BYTES)]

OutcomeName = Literal["built", "written", "unchanged", "forgotten", "failed"]


class DocumentImage(Struct, kw_only=True, forbid_unknown_fields=True):
    """An image: its bytes or its URL, and what its document has in addition."""

    uri: Annotated[
        _Uri | None, Meta(description="Address of the image, such as `nextcloud:42`. Required with `data`; else the URL.")
    ] = None
    data: Annotated[_Data | None, Meta(description="The image as a base64 data URI, or in plain base64.")] = None
    url: Annotated[_Uri | None, Meta(description="The http(s) URL to read the image from.")] = None
    id: Annotated[
        _Id | None, Meta(description="`_id` of the document. By default that which `stair-es ingest` gives the URI.")
    ] = None
    fields: Annotated[
        dict[str, Any],
        Meta(description="Further fields of the document, such as a caption.", extra_json_schema={"maxProperties": MAX_FIELDS}),
    ] = {}


class DocumentsRequest(Struct, kw_only=True, forbid_unknown_fields=True):
    """One image or more, at most 32."""

    images: Annotated[
        tuple[DocumentImage, ...], Meta(description="The images.", extra_json_schema={"minItems": 1, "maxItems": MAX_INPUTS})
    ]
    index: Annotated[
        _Index | None, Meta(description="Index to write to, one of `--write-index`. By default nothing is written.")
    ] = None
    source: Annotated[_Uri | None, Meta(description="The field `source` of the documents; `api:` by default.")] = None
    thumbnail_px: Annotated[
        _Thumbnail | None,
        Meta(description="Longer side of a thumbnail, without `index`; 0 for none (default). An index has its own."),
    ] = None


class DocumentOutcome(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of an image."""

    uri: Annotated[str, Meta(description="Its address.")]
    outcome: Annotated[
        OutcomeName,
        Meta(
            description="`built` without an index; `written`, `unchanged` (the document is up to date), `forgotten` (kept out by "
            "`stair-es forget`) or `failed`."
        ),
    ]
    id: Annotated[str | None, Meta(description="`_id` of its document, if it has one.")] = None
    document: Annotated[dict[str, Any] | None, Meta(description="Its document, if it was built or written.")] = None
    stage: Annotated[str | None, Meta(description="Where it failed: check, read, decode, encode or write.")] = None
    reason: Annotated[str | None, Meta(description="Why it failed.")] = None


class DocumentsResponse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The outcomes of a request."""

    index: Annotated[str | None, Meta(description="The index that the alias points to, or null if nothing is written.")]
    model: Annotated[str, Meta(description="Model id, as in the documents.")]
    documents: Annotated[list[DocumentOutcome], Meta(description="One outcome per image, in the order of the request.")]


class Deletion(Struct, kw_only=True, forbid_unknown_fields=True):
    """What to delete."""

    index: _Index
    uri: _Uri | None = None
    id: _Id | None = None


class DeletionResponse(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The result of a deletion."""

    deleted: Annotated[int, Meta(ge=0, description="Number of deleted documents; 0 if there was none, which isn't an error.")]


@dataclass(frozen=True)
class DocumentInputs:
    """A checked request."""

    index: str | None
    thumbnail_px: int | None
    items: tuple[SourceItem, ...]


def parse_documents_request(body: bytes, max_image_bytes: int) -> DocumentInputs:
    """Parse a JSON body of `POST /v1/documents`."""
    request = parse_request(body, DocumentsRequest, _EXAMPLE)
    check_count("`images`", len(request.images), _EXAMPLE)
    contents: list[bytes | None] = []
    for place, image in enumerate(request.images):
        data, image.data = image.data, None  # as large as the body
        contents.append(None if data is None else decode_base64(f"images[{place}].data", data, max_image_bytes, allow_plain=True))
    return _build_inputs(request, contents)


def parse_image_request(parameters: Mapping[str, str], data: bytes, max_image_bytes: int) -> DocumentInputs:
    """Parse the parameters of `POST /v1/documents` with the bytes of one image as its body."""
    if len(data) > max_image_bytes:
        raise RequestRejected(
            413, f"the image is larger than {max_image_bytes:,} bytes", "Send a smaller one.", code="image-too-large"
        )
    image_names = {"uri", "id"}
    image = {name: value for name, value in parameters.items() if name in image_names}
    request = {name: value for name, value in parameters.items() if name not in image_names}
    return _build_inputs(_convert_parameters({**request, "images": [image]}, DocumentsRequest), [data])


def parse_deletion(parameters: Mapping[str, str]) -> Deletion:
    """Parse the parameters of `DELETE /v1/documents`."""
    deletion: Deletion = _convert_parameters(dict(parameters), Deletion)
    if (deletion.uri is None) == (deletion.id is None):
        raise RequestRejected(422, "`uri` or `id` is required, and not both", "Send ?index=photos&uri=...", code="uri-or-id")
    return deletion


def _convert_parameters(parameters: dict[str, Any], type_: Any) -> Any:  # noqa: ANN401  an instance of the type
    try:
        return msgspec.convert(parameters, type_, strict=False)
    except msgspec.ValidationError as error:
        message = f"the parameters of the URL: {str(error)[:200]}"
        raise RequestRejected(422, message, "See /v1/openapi.json.", code="invalid-parameters") from None


def _build_inputs(request: DocumentsRequest, contents: list[bytes | None]) -> DocumentInputs:
    items = tuple(
        _build_item(f"images[{place}]", image, data, request)
        for place, (image, data) in enumerate(zip(request.images, contents, strict=True))
    )
    for names in ([item.uri for item in items], [item.document_id or make_document_id(item.uri) for item in items]):
        if len(set(names)) < len(names):
            raise RequestRejected(422, "two images have the same `uri` or `id`", "Send each once.", code="duplicate-image")
    if request.index is not None and request.thumbnail_px is not None:
        remedy = "Omit `thumbnail_px`: the documents get the thumbnails that the others of the index have."
        raise RequestRejected(422, "`thumbnail_px` is for documents without an `index`", remedy, code="thumbnail-with-index")
    thumbnail_px = None if request.thumbnail_px is None else int(request.thumbnail_px)
    return DocumentInputs(request.index, thumbnail_px, items)


def _build_item(place: str, image: DocumentImage, data: bytes | None, request: DocumentsRequest) -> SourceItem:
    if (data is None) == (image.url is None):
        raise RequestRejected(422, f"`{place}`: `data` or `url` is required, and not both", _EXAMPLE, code="data-or-url")
    source = request.source or API_URI
    uri = image.uri or (strip_credentials(image.url) if image.url else "")
    if not uri:
        remedy = 'Give the image an address that you keep, such as "uri": "nextcloud:42".'
        raise RequestRejected(422, f"`{place}`: `uri` is required with `data`", remedy, code="no-uri")
    for name, text, limit in (
        ("uri", uri, MAX_URI_BYTES),
        ("id", image.id or "", MAX_ID_BYTES),
        ("source", source, MAX_URI_BYTES),
    ):
        if len(text.encode()) > limit or "\0" in text:
            message = f"`{place}`: the `{name}` is longer than {limit:,} bytes, or has a NUL character"
            raise RequestRejected(422, message, "Shorten it.", code="invalid-address")
    locator = UrlLocator(image.url) if image.url else InlineBytes(data or b"")
    return SourceItem(uri, source, locator, fields=_check_fields(place, image.fields), document_id=image.id or "")


def _check_fields(place: str, values: Mapping[str, Any]) -> dict[str, Json]:
    try:
        check_field_names(values)
        fields = {name: make_json_safe(value) for name, value in values.items()}
    except UsageError as error:
        raise RequestRejected(422, f"`{place}.fields`: {error.message}"[:1000], "Rename the field.", code=error.code) from None
    except ReadError as error:
        raise RequestRejected(422, f"`{place}.fields`: {error.message}"[:1000], "", code=error.code) from None
    if (
        len(fields) > MAX_FIELDS
        or estimate_json_bytes(fields) > MAX_IMAGE_FIELDS_BYTES
        or any(len(name) > MAX_FIELD_NAME_CHARS for name in fields)
    ):
        raise RequestRejected(
            422,
            f"`{place}.fields`: at most {MAX_FIELDS} fields of {MAX_IMAGE_FIELDS_BYTES // 1024} KiB, with names of"
            f" {MAX_FIELD_NAME_CHARS} characters",
            "Send fewer or shorter fields.",
            code="fields-too-large",
        )
    return {name: value for name, value in fields.items() if value is not None}

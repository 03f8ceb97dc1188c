"""Read request bodies with limits, and parse them. Bytes are counted as they arrive: `Content-Length` may be missing or wrong."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import anyio
import msgspec
from starlette.requests import ClientDisconnect, Request

from stair_es.web.config import ServerLimits
from stair_es.web.errors import RequestRejected
from stair_es.web.limits import TooManyRequests

StructT = TypeVar("StructT", bound=msgspec.Struct)
_MAX_NAME_CHARS = 80
"""Length to which names of unknown fields are cut, since errors repeat them."""
_MAX_PROBLEM_CHARS = 1000
_PLACE = re.compile(r" - at (?:`key` in )?`\$\.?([\w.\[\]]*)`$")
_UNKNOWN_FIELD = "Object contains unknown field `"
_MISSING_FIELD = "Object missing required field "
_JSON_TYPES = {"str": "string", "int": "integer", "float": "number", "bool": "boolean"}


class BodyReader:
    """Reader for request bodies that limits their total memory. For one event loop."""

    def __init__(self, limits: ServerLimits) -> None:
        self._limits, self._held_bytes = limits, 0

    @asynccontextmanager
    async def __call__(self, request: Request, max_bytes: int) -> AsyncIterator[bytes]:
        """Read the whole body, which counts as held until the end of the `async with`.

        Raises:
            RequestRejected: If it is larger than `max_bytes`, takes too long, or ends early.
            TooManyRequests: If all bodies together exceed the limit.
        """
        chunks: list[bytes] = []
        held_bytes = 0
        try:
            try:
                await self._read_parts(chunks, request, max_bytes)
            finally:
                held_bytes = sum(map(len, chunks))
            yield _join_and_clear(chunks)
        finally:
            self._held_bytes -= held_bytes

    async def _read_parts(self, chunks: list[bytes], request: Request, max_bytes: int) -> None:
        too_large = RequestRejected(
            413, f"the body is larger than {max_bytes:,} bytes", "Send a smaller body.", code="body-too-large"
        )
        if _get_content_length(request) > max_bytes:
            raise too_large
        size = 0
        try:
            with anyio.fail_after(self._limits.upload_s):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > max_bytes:
                        raise too_large
                    chunks.append(chunk)
                    self._held_bytes += len(chunk)
                    if self._held_bytes > self._limits.max_held_bytes:
                        raise TooManyRequests
        except TimeoutError:
            raise RequestRejected(408, "the body took too long to arrive", "Try again.", code="body-timed-out") from None
        except ClientDisconnect:
            raise RequestRejected(400, "the body is incomplete", code="body-incomplete") from None


def _join_and_clear(chunks: list[bytes]) -> bytes:
    body = b"".join(chunks)
    chunks.clear()
    return body


def get_media_type(request: Request) -> str:
    """Return the media type of a body in lower case, without parameters; empty if the request doesn't tell it."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def check_json_type(request: Request, *, or_image: bool = False) -> None:
    """Check that the content type is plain JSON, or an image: another site can't send either without a CORS preflight."""
    media_type = get_media_type(request)
    if media_type != "application/json" and not (or_image and media_type.startswith("image/")):
        raise RequestRejected(415, "the body is not JSON", "Send it as Content-Type: application/json.", code="body-not-json")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise RequestRejected(415, "the body is compressed", "Send it without Content-Encoding.", code="body-compressed")


def parse_struct(
    body: bytes, type_: type[StructT], remedies: Mapping[str, str], decode: Callable[[bytes], Any], status: int
) -> StructT:
    """Parse a JSON object. Fields that are null have their defaults.

    Args:
        body: The body.
        type_: What the object is.
        remedies: Field -> remedy for what is wrong with it; that of `""` is for the body.
        decode: Decodes JSON.
        status: The status for JSON that is not such an object.
    """
    try:
        fields = decode(body)
    except (ValueError, RecursionError) as error:  # includes nesting that is too deep, NaN and unpaired surrogates
        raise RequestRejected(400, f"the body is not JSON: {error}", remedies[""], code="body-not-json") from None
    if isinstance(fields, dict):
        known = type_.__struct_fields__
        fields = {name[:_MAX_NAME_CHARS]: value for name, value in fields.items() if value is not None or name not in known}
    try:
        return msgspec.convert(fields, type_)
    except msgspec.ValidationError as error:
        available = f"Available: {', '.join(type_.__struct_fields__)}."
        raise RequestRejected(
            status, *_describe_problem(str(error), {**remedies, _UNKNOWN_FIELD: available}), code="invalid-body"
        ) from None


def check_wide_strings(body: bytes, max_bytes: int) -> None:
    """Check that no large string has characters beyond ASCII: one of them makes each character of the string take 4 bytes."""
    if body.isascii() and b"\\u" not in body:
        return
    strings = body.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
    wide = (each for each in strings if not each.isascii() or each.count(b"\\u") > each.count(b"\\u00"))
    if sum(map(len, wide)) > max_bytes:
        raise RequestRejected(
            413,
            f"the body has more than {max_bytes:,} bytes of strings that are not ASCII",
            "Send images in base64, and shorter texts.",
            code="body-too-complex",
        )


def _describe_problem(problem: str, remedies: Mapping[str, str]) -> tuple[str, str]:
    """Return message and remedy for what msgspec says, such as "Expected `int`, got `str` - at `$.prune.max_tokens`"."""
    if len(problem) > _MAX_PROBLEM_CHARS:  # a name or value in it can be as long as the body
        problem = f"{problem[: _MAX_PROBLEM_CHARS // 2]}...{problem[-_MAX_PROBLEM_CHARS // 2 :]}"
    found = _PLACE.search(problem)
    place = found[1] if found else ""
    problem = problem[: found.start()] if found else problem
    field = re.sub(r"\[.*?\]", "", place)
    if problem.startswith(_UNKNOWN_FIELD):
        problem = f"unknown field {problem[len(_UNKNOWN_FIELD) : -1][:_MAX_NAME_CHARS]!r}"
        field = field or _UNKNOWN_FIELD
    elif problem.startswith(_MISSING_FIELD):
        problem = f"{problem[len(_MISSING_FIELD) :]} is missing"
    elif problem.startswith("Expected"):
        problem = problem.replace("`float` that's a multiple of 1.0", "`int`")
        problem = re.sub(r"\b(str|int|float|bool)\b", lambda name: _JSON_TYPES[name[0]], problem)
    remedy = "Shorten it." if " of length <= " in problem else remedies.get(field) or remedies.get(field.partition(".")[0], "")
    problem = problem[0].lower() + problem[1:]
    if place:
        problem = f"`{place}`: {problem}"
    elif problem.startswith("expected"):
        problem = f"the body: {problem}"
    return problem, remedy


def _get_content_length(request: Request) -> int:
    header = request.headers.get("content-length", "")
    return int(header) if header.isdecimal() and len(header) < 20 else 0

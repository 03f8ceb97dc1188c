"""Faults of requests that write or search documents, for `fault_proxy`.

`list_retried_faults` make a client repeat the request, `list_harmless_faults` are unusual but complete responses, and
`list_fatal_faults` don't go away by waiting. `list_search_faults` are search responses that are marked as incomplete.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from support.servers.fault_proxy import Fault, MaybeResponse, Request, Response, Send

Items: TypeAlias = "list[dict[str, dict[str, Any]]]"
"""Items of a bulk response: `{"index": {"_id": ..., "status": ...}}`."""


def reject_request(retry_after_s: int | None = None) -> Fault:
    """Reject the whole request with 429; nothing is written."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    response = Response(status=429, body=b'{"error": {"type": "rejected", "reason": "too many requests"}}', headers=headers)
    return Fault("429" if retry_after_s is None else f"429 with Retry-After: {retry_after_s}", lambda request, send: response)


def build_gateway_error(status: int = 503) -> Fault:
    """Answer with the error page of a gateway; nothing is written."""
    return _answer_with(str(status), Response(status=status, kind="text/html", body=b"<h1>upstream gone</h1>"))


def limit_body(limit: int) -> Fault:
    """Reject bodies above `limit` bytes with 413."""
    rejection = Response(status=413, kind="text/plain", body=b"too large")
    return Fault("413", lambda request, send: rejection if len(request.body) > limit else send(request))


def drop_request() -> Fault:
    """Close the connection before the node gets the request."""
    return Fault("cut before", lambda request, send: None)


def drop_response() -> Fault:
    """Close the connection after the node has processed the request."""

    def send_only(request: Request, send: Send) -> MaybeResponse:
        send(request)
        return None

    return Fault("cut after", send_only)


def delay_response(seconds: float) -> Fault:
    """Process the request, but delay the response by `seconds`, beyond the client's timeout."""

    def send_slowly(request: Request, send: Send) -> MaybeResponse:
        response = send(request)
        threading.Event().wait(seconds)
        return response

    return Fault("slow", send_slowly)


def reject_items(
    chosen: Callable[[int, str], bool] = lambda i, _: i % 2 == 1,
    status: int = 429,
    error: Mapping[str, str] | None = None,
    *,
    denies: bool = False,
) -> Fault:
    """Reject the documents for which `chosen(position, _id)` is true; the others are written.

    Args:
        chosen: Selects the documents.
        status: Status of their items.
        error: Error of their items.
        denies: Whether the response claims `"errors": false`.
    """
    reason = dict(error or {"type": "rejected", "reason": "queue full"})

    def send_others(request: Request, send: Send) -> MaybeResponse:
        lines = list(parse_operations(request.body))
        rejected = [chosen(i, id_) for i, (_, id_, _) in enumerate(lines)]
        accepted = b"".join(line for (_, _, line), no in zip(lines, rejected, strict=True) if not no)
        response = send(replace(request, body=accepted)) if accepted else Response.json({"items": []})
        if response.status >= 300:
            return response
        items: Items = json.loads(response.body).get("items", [])
        index_of = {name: item[name] for each in items for item in each.values() for name in ("_index",) if name in item}
        written = iter(items)
        merged = [
            {kind: {**index_of, "_id": id_, "status": status, "error": reason}} if no else next(written)
            for (kind, id_, _), no in zip(lines, rejected, strict=True)
        ]
        return Response.json({"items": merged, **({"errors": False} if denies else {})})

    return Fault(f"items with {status}{' and errors: false' if denies else ''}", send_others)


def list_retried_faults(slow_s: float = 1.5) -> tuple[Fault, ...]:
    """Return the faults after which the request, or a part of it, must be sent again."""
    return (
        reject_request(),
        reject_request(retry_after_s=1),
        reject_request(retry_after_s=-5),
        build_gateway_error(),
        build_gateway_error(502),
        _answer_with("503 with a JSON string", Response.json("one moment", 503)),
        drop_request(),
        drop_response(),
        delay_response(slow_s),
        _answer_with("page with 200", Response(body=b"<html>one moment please</html>")),
        _answer_with("html with 200", Response(kind="text/html", body=b"<html>one moment please</html>")),
        _answer_with("list", Response.json([])),
        _answer_with("JSON string", Response.json("ok")),
        reject_items(),
        reject_items(denies=True),
        *(_change_items(name, change) for name, change in _INCOMPLETE.items()),
        *(_change_response(name, change) for name, change in _BROKEN.items()),
    )


def list_harmless_faults() -> tuple[Fault, ...]:
    """Return unusual responses that still give the outcome of each document."""
    return (
        *(_change_items(name, change) for name, change in _ODD.items()),
        _change_response("100 Continue first", lambda response: replace(response, continues=True)),
    )


def list_fatal_faults(elsewhere: str = "http://127.0.0.1:9/") -> tuple[Fault, ...]:
    """Return faults that don't go away by waiting; nothing is written."""
    return (
        _answer_with("307", Response(status=307, headers={"location": elsewhere})),
        _answer_with("401", Response.json({"error": "who are you?"}, 401)),
        _answer_with("403", Response.json({"error": "not you"}, 403)),
    )


def list_all_faults(slow_s: float = 1.5, limit: int = 20_000) -> tuple[Fault, ...]:
    """Return every fault that a client must recover from."""
    return (*list_retried_faults(slow_s), *list_harmless_faults(), limit_body(limit))


def list_search_faults() -> tuple[Fault, ...]:
    """Return incomplete responses to `_search` and `_count`."""
    return (
        _change_answer("search of half the shards", lambda answer: {**answer, "_shards": _HALF_OF_THE_SHARDS}),
        _change_answer("search that timed out", lambda answer: {**_halve_hits(answer), "timed_out": True}),
    )


def parse_operations(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """Yield `(kind, _id, lines)` of each operation of a bulk request."""
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        [(kind, meta)] = json.loads(line).items()
        yield kind, meta["_id"], line if kind == "delete" else line + next(lines)


def _change_each_second(items: Items, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Items:
    return [{kind: change(item_body) if i % 2 else item_body for kind, item_body in item.items()} for i, item in enumerate(items)]


def _drop_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "_id"}


# Everything is written, but these responses don't show it for every document ...
_INCOMPLETE: Mapping[str, Callable[[Items], Items]] = {
    "half mentioned": lambda items: items[: len(items) // 2],
    "a third missing": lambda items: [item for i, item in enumerate(items) if i % 3 != 2],
    "items without _id": lambda items: _change_each_second(items, _drop_id),
    "items with a foreign _id": lambda items: _change_each_second(items, lambda body: {**body, "_id": "foreign"}),
    "status as a string": lambda items: _change_each_second(items, lambda body: {**body, "status": str(body["status"])}),
}
# ... and these do.
_ODD: Mapping[str, Callable[[Items], Items]] = {
    "items in another order": lambda items: items[::-1],
    "items twice, in another order": lambda items: [*items, *items][::-1],
}
_BROKEN: Mapping[str, Callable[[Response], Response]] = {
    "reset after": lambda response: replace(response, is_reset=True),
    "half a response": lambda response: replace(response, sent=len(response.body) // 2),
    "Content-Length too large": lambda response: replace(response, body=response.body + b" " * 500, sent=len(response.body)),
    "half the JSON": lambda response: replace(response, body=response.body[: len(response.body) // 2]),
    "Content-Length too small": lambda response: replace(response, announced=len(response.body) // 2),
    "says gzip": lambda response: replace(response, headers={"content-encoding": "gzip"}),
}
_HALF_OF_THE_SHARDS = {"total": 2, "successful": 1, "skipped": 0, "failed": 1, "failures": []}


def _answer_with(name: str, response: Response) -> Fault:
    return Fault(name, lambda request, send: response)


def _change_response(name: str, change: Callable[[Response], Response]) -> Fault:
    return Fault(name, lambda request, send: change(send(request)))


def _change_items(name: str, change: Callable[[Items], Items]) -> Fault:
    return _change_answer(name, lambda answer: {**answer, "items": change(answer["items"])} if "items" in answer else answer)


def _change_answer(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    """Change JSON responses with status 200; others stay unchanged."""

    def send_and_change(request: Request, send: Send) -> MaybeResponse:
        response = send(request)
        if response.status != 200:
            return response
        return replace(response, body=json.dumps(change(json.loads(response.body))).encode())

    return Fault(name, send_and_change)


def _halve_hits(answer: dict[str, Any]) -> dict[str, Any]:
    hits: Sequence[Any] = answer.get("hits", {}).get("hits", ())
    return {**answer, "hits": {**answer["hits"], "hits": hits[: len(hits) // 2]}} if hits else answer

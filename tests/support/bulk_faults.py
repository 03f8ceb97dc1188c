"""Faults of requests that write or search documents, for `fault_proxy`.

`repeated_faults` make a client repeat the request, `harmless_faults` are unusual but complete responses, and `stopping_faults`
don't go away by waiting. `search_faults` are search responses that are marked as incomplete.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

from support.servers.fault_proxy import Answer, Fault, Reply, Request, Send

Items: TypeAlias = "list[dict[str, dict[str, Any]]]"
"""Items of a bulk response: `{"index": {"_id": ..., "status": ...}}`."""


def busy(retry_after_s: int | None = None) -> Fault:
    """Reject the whole request with 429; nothing is written."""
    headers = {} if retry_after_s is None else {"retry-after": str(retry_after_s)}
    reply = Reply(status=429, body=b'{"error": {"type": "rejected", "reason": "too many requests"}}', headers=headers)
    return Fault("429" if retry_after_s is None else f"429 with Retry-After: {retry_after_s}", lambda request, send: reply)


def unavailable(status: int = 503) -> Fault:
    """Answer with the error page of a gateway; nothing is written."""
    return _said(str(status), Reply(status=status, kind="text/html", body=b"<h1>upstream gone</h1>"))


def too_large(limit: int) -> Fault:
    """Reject bodies above `limit` bytes with 413."""
    refusal = Reply(status=413, kind="text/plain", body=b"too large")
    return Fault("413", lambda request, send: refusal if len(request.body) > limit else send(request))


def cut_before() -> Fault:
    """Close the connection before the node gets the request."""
    return Fault("cut before", lambda request, send: None)


def cut_after() -> Fault:
    """Close the connection after the node has processed the request."""

    def act(request: Request, send: Send) -> Answer:
        send(request)
        return None

    return Fault("cut after", act)


def slow(seconds: float) -> Fault:
    """Process the request, but delay the response by `seconds`, beyond the client's timeout."""

    def act(request: Request, send: Send) -> Answer:
        reply = send(request)
        threading.Event().wait(seconds)
        return reply

    return Fault("slow", act)


def items_refused(
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

    def act(request: Request, send: Send) -> Answer:
        lines = list(operations(request.body))
        rejected = [chosen(i, id_) for i, (_, id_, _) in enumerate(lines)]
        accepted = b"".join(line for (_, _, line), no in zip(lines, rejected, strict=True) if not no)
        reply = send(replace(request, body=accepted)) if accepted else Reply.json({"items": []})
        if reply.status >= 300:
            return reply
        items: Items = json.loads(reply.body).get("items", [])
        index_of = {name: item[name] for each in items for item in each.values() for name in ("_index",) if name in item}
        written = iter(items)
        merged = [
            {kind: {**index_of, "_id": id_, "status": status, "error": reason}} if no else next(written)
            for (kind, id_, _), no in zip(lines, rejected, strict=True)
        ]
        return Reply.json({"items": merged, **({"errors": False} if denies else {})})

    return Fault(f"items with {status}{' and errors: false' if denies else ''}", act)


def repeated_faults(slow_s: float = 1.5) -> tuple[Fault, ...]:
    """Return the faults after which the request, or a part of it, must be sent again."""
    return (
        busy(),
        busy(retry_after_s=1),
        busy(retry_after_s=-5),
        unavailable(),
        unavailable(502),
        _said("503 with a JSON string", Reply.json("one moment", 503)),
        cut_before(),
        cut_after(),
        slow(slow_s),
        _said("page with 200", Reply(body=b"<html>one moment please</html>")),
        _said("html with 200", Reply(kind="text/html", body=b"<html>one moment please</html>")),
        _said("list", Reply.json([])),
        _said("JSON string", Reply.json("ok")),
        items_refused(),
        items_refused(denies=True),
        *(_items_changed(name, change) for name, change in _INCOMPLETE.items()),
        *(_reply_changed(name, change) for name, change in _BROKEN.items()),
    )


def harmless_faults() -> tuple[Fault, ...]:
    """Return unusual responses that still give the outcome of each document."""
    return (
        *(_items_changed(name, change) for name, change in _ODD.items()),
        _reply_changed("100 Continue first", lambda reply: replace(reply, continues=True)),
    )


def stopping_faults(elsewhere: str = "http://127.0.0.1:9/") -> tuple[Fault, ...]:
    """Return faults that don't go away by waiting; nothing is written."""
    return (
        _said("307", Reply(status=307, headers={"location": elsewhere})),
        _said("401", Reply.json({"error": "who are you?"}, 401)),
        _said("403", Reply.json({"error": "not you"}, 403)),
    )


def every_fault(slow_s: float = 1.5, limit: int = 20_000) -> tuple[Fault, ...]:
    """Return every fault that a client must recover from."""
    return (*repeated_faults(slow_s), *harmless_faults(), too_large(limit))


def search_faults() -> tuple[Fault, ...]:
    """Return incomplete responses to `_search` and `_count`."""
    return (
        _answer_changed("search of half the shards", lambda answer: {**answer, "_shards": _HALF_OF_THE_SHARDS}),
        _answer_changed("search that timed out", lambda answer: {**_with_half_the_hits(answer), "timed_out": True}),
    )


def operations(body: bytes) -> Iterator[tuple[str, str, bytes]]:
    """`(kind, _id, lines)` of each operation of a bulk request."""
    lines = iter(body.splitlines(keepends=True))
    for line in lines:
        [(kind, meta)] = json.loads(line).items()
        yield kind, meta["_id"], line if kind == "delete" else line + next(lines)


def _of_each_second(items: Items, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Items:
    return [{kind: change(item_body) if i % 2 else item_body for kind, item_body in item.items()} for i, item in enumerate(items)]


def _without_id(body: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name != "_id"}


# Everything is written, but these responses don't show it for every document ...
_INCOMPLETE: Mapping[str, Callable[[Items], Items]] = {
    "half mentioned": lambda items: items[: len(items) // 2],
    "a third missing": lambda items: [item for i, item in enumerate(items) if i % 3 != 2],
    "items without _id": lambda items: _of_each_second(items, _without_id),
    "items with a foreign _id": lambda items: _of_each_second(items, lambda said: {**said, "_id": "foreign"}),
    "status as a string": lambda items: _of_each_second(items, lambda said: {**said, "status": str(said["status"])}),
}
# ... and these do.
_ODD: Mapping[str, Callable[[Items], Items]] = {
    "items in another order": lambda items: items[::-1],
    "items twice, in another order": lambda items: [*items, *items][::-1],
}
_BROKEN: Mapping[str, Callable[[Reply], Reply]] = {
    "reset after": lambda reply: replace(reply, is_reset=True),
    "half a response": lambda reply: replace(reply, sent=len(reply.body) // 2),
    "Content-Length too large": lambda reply: replace(reply, body=reply.body + b" " * 500, sent=len(reply.body)),
    "half the JSON": lambda reply: replace(reply, body=reply.body[: len(reply.body) // 2]),
    "Content-Length too small": lambda reply: replace(reply, announced=len(reply.body) // 2),
    "says gzip": lambda reply: replace(reply, headers={"content-encoding": "gzip"}),
}
_HALF_OF_THE_SHARDS = {"total": 2, "successful": 1, "skipped": 0, "failed": 1, "failures": []}


def _said(name: str, reply: Reply) -> Fault:
    return Fault(name, lambda request, send: reply)


def _reply_changed(name: str, change: Callable[[Reply], Reply]) -> Fault:
    return Fault(name, lambda request, send: change(send(request)))


def _items_changed(name: str, change: Callable[[Items], Items]) -> Fault:
    return _answer_changed(name, lambda answer: {**answer, "items": change(answer["items"])} if "items" in answer else answer)


def _answer_changed(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Fault:
    """Change JSON responses with status 200; others stay unchanged."""

    def act(request: Request, send: Send) -> Answer:
        reply = send(request)
        return replace(reply, body=json.dumps(change(json.loads(reply.body))).encode()) if reply.status == 200 else reply

    return Fault(name, act)


def _with_half_the_hits(answer: dict[str, Any]) -> dict[str, Any]:
    hits: Sequence[Any] = answer.get("hits", {}).get("hits", ())
    return {**answer, "hits": {**answer["hits"], "hits": hits[: len(hits) // 2]}} if hits else answer

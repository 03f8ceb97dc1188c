"""A server on loopback that answers like the saved-objects API of OpenSearch Dashboards or Kibana, for tests of a publisher.

    with DashboardsServer("kibana", version="8.15.0") as server:
        ...  # publish to server.url
    print(server.stored)

It imitates, after the products' sources and documentation: the header against forged requests, the multipart body and the end
of its file name, known query parameters, limits of size, versions that are too new, types and attributes it doesn't know,
references that lead nowhere, conflicts, spaces with `destinationId`, workspaces, tenants, logins by header, and that an import
with failures is a 200. It doesn't imitate: migrations, the check of what stands inside of the JSON strings, roles, anything
that a browser sees. What it says in words is like theirs, not theirs to the letter.
"""

from __future__ import annotations

import json
import re
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from email.parser import BytesParser
from email.policy import HTTP
from types import TracebackType
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from support.servers.fault_proxy import Answer, Reply, Request, serve

Product = Literal["opensearch-dashboards", "kibana"]
Key = tuple[str, str]
"""Type and id."""

_XSRF = {"opensearch-dashboards": "osd-xsrf", "kibana": "kbn-xsrf"}
_NAME = {"opensearch-dashboards": "osd-name", "kibana": "kbn-name"}
_CALLED = {"opensearch-dashboards": "OpenSearch Dashboards", "kibana": "Kibana"}
_QUERY = {
    "opensearch-dashboards": {"overwrite", "createNewCopies", "dataSourceId", "workspaces"},
    "kibana": {"overwrite", "createNewCopies", "compatibilityMode"},
}
_NEWEST = {
    "opensearch-dashboards": {"index-pattern": "7.6.0", "search": "7.9.3", "visualization": "7.10.0", "dashboard": "7.9.3"},
    "kibana": {"index-pattern": "8.0.0", "search": "8.0.0", "visualization": "8.5.0", "dashboard": "8.7.0"},
}
_COMMON = {"title", "description", "version", "kibanaSavedObjectMeta"}
_DASHBOARD = {"hits", "timeRestore", "timeFrom", "timeTo", "refreshInterval", "optionsJSON", "panelsJSON"}
_ATTRIBUTES = {
    "search": _COMMON | {"hits", "columns", "sort"},
    "visualization": _COMMON | {"uiStateJSON", "visState", "savedSearchRefName"},
    "dashboard": _COMMON | _DASHBOARD,
}
_MORE = {"kibana": {"dashboard": {"controlGroupInput"}, "search": {"grid", "hideChart"}}}


@dataclass
class DashboardsServer:
    """The server; use it as a context. What it was sent, and what it holds, can be looked at."""

    product: Product
    version: str = "3.6.0"
    base_path: str = ""
    authorization: str | None = None
    """What the header must be; None lets everyone in."""
    login_page: str | None = None
    """Where strangers are sent instead of a 401."""
    spaces: frozenset[str] = frozenset()
    workspaces: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    """Besides `global` and `__user__`; of a server with the security plugin."""
    max_bytes: int = 25 * 1024 * 1024
    refuse: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    """Says why an object fails, as an index of the product might; None for those that don't."""
    planned: list[Reply | None] = field(default_factory=list)
    """Answers to the next requests, before it works again; None cuts the connection."""
    says_name: bool = True
    stored: dict[str, dict[Key, dict[str, Any]]] = field(default_factory=dict)
    """Space, workspace or tenant -> what it holds."""
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> DashboardsServer:
        self._server = serve(self._answer)
        self.url = self._server.__enter__() + self.base_path
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        return self._server.__exit__(kind, error, traceback)

    def held(self, scope: str = "default") -> dict[Key, dict[str, Any]]:
        """The objects of a space, a workspace or a tenant."""
        return self.stored.setdefault(scope, {})

    def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        if self.planned:
            return self.planned.pop(0)
        reply = self._route(request)
        named = {_NAME[self.product]: "a-name"} if self.says_name else {}
        return Reply(status=reply.status, kind=reply.kind, body=reply.body, headers={**reply.headers, **named})

    def _route(self, request: Request) -> Reply:
        parts = urlsplit(request.path)
        if not parts.path.startswith(self.base_path):
            return Reply(status=404, kind="text/html", body=b"<h1>not here</h1>")
        path, scope = self._scope(unquote(parts.path.removeprefix(self.base_path)), request)
        if path is None:
            return _error(404, "Not Found")
        if self.authorization is not None and request.headers.get("authorization") != self.authorization:
            return self._stranger()
        if self.tenants and scope not in {*self.tenants, "global", "__user__"}:
            return _error(403, f"No tenant {scope}")
        if path == "/api/status" and request.method == "GET":
            return Reply.json({"name": "a-name", "uuid": "u", "version": {"number": self.version}, "status": {}})
        if path != "/api/saved_objects/_import" or request.method != "POST":
            return _error(404, "Not Found")
        return self._import(request, parse_qs(parts.query, keep_blank_values=True), scope)

    def _scope(self, path: str, request: Request) -> tuple[str | None, str]:
        """The path without its space or workspace, None where that isn't there; and whose objects it is about."""
        found = re.match(r"/([sw])/([^/]+)(/.*)", path)
        if found:
            known = self.spaces if found[1] == "s" else self.workspaces
            mine = found[1] == ("s" if self.product == "kibana" else "w")
            return (found[3], found[2]) if mine and found[2] in known else (None, "")
        return path, request.headers.get("securitytenant", "global") if self.tenants else "default"

    def _stranger(self) -> Reply:
        if self.login_page is not None:
            return Reply(status=302, kind="text/html", headers={"location": self.login_page})
        return _error(401, "Unauthorized")

    def _import(self, request: Request, query: Mapping[str, Sequence[str]], scope: str) -> Reply:
        refused = self._refusal(request, query)
        if refused is not None:
            return refused
        name, data = _file(request)
        if name is None:
            return _error(400, "[request body.file]: expected value of type [Stream] but got [undefined]")
        if not name.lower().endswith(".ndjson"):
            return _error(400, f"Invalid file extension .{name.rpartition('.')[2]}")
        try:
            objects = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
        except ValueError as error:
            return _error(400, f"Unexpected token in JSON: {error}")
        objects = [made for made in objects if "exportedCount" not in made]
        twice = [key for key, times in Counter((made["type"], made["id"]) for made in objects).items() if times > 1]
        if twice:
            return _error(400, f"Non-unique import objects detected: {twice}")
        newer = next((made for made in objects if self._newer(made)), None)
        if newer is not None:
            known = _NEWEST[self.product][newer["type"]]
            called = _CALLED[self.product]
            return _error(
                422,
                f'Document "{newer["id"]}" has property "{newer["type"]}" which belongs to a more recent version of {called} '
                f"[{newer['migrationVersion'][newer['type']]}]. The last known version is [{known}]",
            )
        return Reply.json(self._create(objects, query.get("overwrite") == ["true"], scope))

    def _refusal(self, request: Request, query: Mapping[str, Sequence[str]]) -> Reply | None:
        if _XSRF[self.product] not in request.headers:
            return _error(400, f"Request must contain a {_XSRF[self.product]} header.")
        strange = sorted(set(query) - _QUERY[self.product])
        if strange:
            return _error(400, f"[request query.{strange[0]}]: definition for this key is missing")
        if query.get("overwrite") == ["true"] and query.get("createNewCopies") == ["true"]:
            return _error(400, "cannot use [overwrite] with [createNewCopies]")
        if len(request.body) > self.max_bytes:
            return _error(413, f"Payload content length greater than maximum allowed: {self.max_bytes}")
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return _error(415, "Unsupported Media Type")
        return None

    def _newer(self, made: Mapping[str, Any]) -> bool:
        known = _NEWEST[self.product].get(made["type"])
        asked = made.get("migrationVersion", {}).get(made["type"])
        return known is not None and asked is not None and _numbers(asked) > _numbers(known)

    def _create(self, objects: Sequence[dict[str, Any]], overwrite: bool, scope: str) -> dict[str, Any]:
        held = self.held(scope)
        errors = [_failed(made, {"type": "unsupported_type"}) for made in objects if made["type"] not in _NEWEST[self.product]]
        known = [made for made in objects if made["type"] in _NEWEST[self.product]]
        ids = {(made["type"], made["id"]): self._destination(made, scope) for made in known}
        errors += self._missing(known, held)
        errors += [
            _failed(made, {"type": "conflict"})
            for made in known
            if not overwrite and (made["type"], ids[made["type"], made["id"]]) in held
        ]
        done = list[dict[str, Any]]()
        if not any(each["error"]["type"] in ("conflict", "missing_references") for each in errors):
            for made in known:
                said = self._objection(made)
                if said is not None:
                    told = {"type": "unknown", "statusCode": 400, "error": "Bad Request", "message": said}
                    errors.append(_failed(made, told))
                else:
                    done.append(self._store(made, ids, held))
        return {
            "successCount": len(done),
            "success": not errors,
            **({"successResults": done} if done else {}),
            **({"errors": errors} if errors else {}),
        }

    def _destination(self, made: Mapping[str, Any], scope: str) -> str:
        """The id that an object gets: another one in Kibana, if its own is taken in another space."""
        key = made["type"], made["id"]
        if self.product != "kibana" or key in self.held(scope):
            return str(made["id"])
        copies = [id_ for (type_, id_), kept in self.held(scope).items() if (type_, kept.get("originId")) == key]
        if copies:
            return copies[0]
        return str(uuid.uuid4()) if any(key in held for held in self.stored.values()) else str(made["id"])

    def _store(self, made: dict[str, Any], ids: Mapping[Key, str], held: dict[Key, dict[str, Any]]) -> dict[str, Any]:
        type_, id_ = made["type"], ids[made["type"], made["id"]]
        result = {"type": type_, "id": made["id"], "meta": {"title": made["attributes"]["title"], "icon": "an icon"}}
        if (type_, id_) in held:
            result["overwrite"] = True
        if id_ != made["id"]:
            result["destinationId"] = id_
        references = [{**each, "id": ids.get((each["type"], each["id"]), each["id"])} for each in made.get("references", ())]
        held[type_, id_] = {**made, "id": id_, "references": references, "originId": made["id"]}
        return result

    def _missing(self, objects: Sequence[Mapping[str, Any]], held: Mapping[Key, object]) -> list[dict[str, Any]]:
        there = {(made["type"], made["id"]) for made in objects} | set(held)
        failed = list[dict[str, Any]]()
        for made in objects:
            wanted = [each for each in made.get("references", ()) if each["type"] in ("index-pattern", "search")]
            gone = [{"type": each["type"], "id": each["id"]} for each in wanted if (each["type"], each["id"]) not in there]
            if gone:
                failed.append(_failed(made, {"type": "missing_references", "references": gone}))
        return failed

    def _objection(self, made: Mapping[str, Any]) -> str | None:
        type_ = made["type"]
        if type_ in _ATTRIBUTES:
            allowed = _ATTRIBUTES[type_] | _MORE.get(self.product, {}).get(type_, set())
            strange = sorted(set(made["attributes"]) - allowed)
            if strange and self.product == "kibana":
                return f"[attributes.{strange[0]}]: definition for this key is missing"
            if strange:
                return f"mapping set to strict, dynamic introduction of [{strange[0]}] within [{type_}] is not allowed"
        return self.refuse(made)


def _file(request: Request) -> tuple[str | None, bytes]:
    """Name and content of the part called `file`."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        if part.get_param("name", header="content-disposition") == "file" and isinstance(content, bytes):
            return part.get_filename() or "", content
    return None, b""


def _error(status: int, message: str) -> Reply:
    return Reply.json({"statusCode": status, "error": "Refused", "message": message}, status=status)


def _failed(made: Mapping[str, Any], error: Mapping[str, Any]) -> dict[str, Any]:
    title = made.get("attributes", {}).get("title")
    return {"type": made["type"], "id": made["id"], "title": title, "meta": {"title": title}, "error": dict(error)}


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

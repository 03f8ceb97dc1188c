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
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from support.servers.fault_proxy import MaybeResponse, Request, Response, start_server

Product = Literal["opensearch-dashboards", "kibana"]
Key = tuple[str, str]
"""Type and id."""

_XSRF_HEADERS = {"opensearch-dashboards": "osd-xsrf", "kibana": "kbn-xsrf"}
_NAME_HEADERS = {"opensearch-dashboards": "osd-name", "kibana": "kbn-name"}
_PRODUCT_NAMES = {"opensearch-dashboards": "OpenSearch Dashboards", "kibana": "Kibana"}
_QUERY_PARAMETERS = {
    "opensearch-dashboards": {"overwrite", "createNewCopies", "dataSourceId", "workspaces"},
    "kibana": {"overwrite", "createNewCopies", "compatibilityMode"},
}
_NEWEST_VERSIONS = {
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
_PRODUCT_ATTRIBUTES = {"kibana": {"dashboard": {"controlGroupInput"}, "search": {"grid", "hideChart", "rowHeight"}}}


@dataclass
class DashboardsServer:
    """The server; use it as a context. What it was sent, and what it holds, can be looked at."""

    product: Product
    version: str = "3.6.0"
    base_path: str = ""
    authorization: str | None = None
    """What the header must be; None lets everyone in."""
    login_page: str | None = None
    """Where requests without a login are redirected, instead of a 401."""
    spaces: frozenset[str] = frozenset()
    """What the spaces API knows; imports take any, as those of Kibana 8.12.2 do."""
    may_read_spaces: bool = True
    workspaces: frozenset[str] = frozenset()
    tenants: frozenset[str] = frozenset()
    """Besides `global` and `__user__`; of a server with the security plugin."""
    max_bytes: int = 25 * 1024 * 1024
    refuse: Callable[[Mapping[str, Any]], str | None] = lambda _: None
    """Says why an object fails, as an index of the product might; None for those that don't."""
    planned_responses: list[Response | None] = field(default_factory=list)
    """Answers to the next requests, before it works again; None cuts the connection."""
    sends_name: bool = True
    plugins: tuple[str, ...] = ()
    """Ids that the status lists."""
    stored: dict[str, dict[Key, dict[str, Any]]] = field(default_factory=dict)
    """Space, workspace or tenant -> what it holds."""
    requests: list[Request] = field(default_factory=list)
    url: str = ""

    def __enter__(self) -> DashboardsServer:
        self._server = start_server(self._serve_request)
        self.url = self._server.__enter__() + self.base_path
        return self

    def __exit__(self, *_error: object) -> None:
        self._server.__exit__(None, None, None)

    def get_objects(self, scope: str = "default") -> dict[Key, dict[str, Any]]:
        """Return objects of a space, workspace or tenant."""
        return self.stored.setdefault(scope, {})

    def _serve_request(self, request: Request) -> MaybeResponse:
        self.requests.append(request)
        if self.planned_responses:
            return self.planned_responses.pop(0)
        reply = self._route_request(request)
        named = {_NAME_HEADERS[self.product]: "a-name"} if self.sends_name else {}
        return Response(status=reply.status, kind=reply.kind, body=reply.body, headers={**reply.headers, **named})

    def _route_request(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        if not parts.path.startswith(self.base_path):
            return Response(status=404, kind="text/html", body=b"<h1>not here</h1>")
        path, scope = self._resolve_scope(unquote(parts.path.removeprefix(self.base_path)), request)
        if path is None:
            return _build_error(404, "Not Found")
        if self.authorization is not None and request.headers.get("authorization") != self.authorization:
            return self._reject_login()
        if self.tenants and scope not in {*self.tenants, "global", "__user__"}:
            return _build_error(403, f"No tenant {scope}")
        if path == "/api/status" and request.method == "GET":
            statuses = [{"id": f"plugin:{id_}@{self.version}", "state": "green"} for id_ in self.plugins]
            status = {"overall": {"state": "green"}, **({"statuses": statuses} if statuses else {})}
            return Response.json({"name": "a-name", "uuid": "u", "version": {"number": self.version}, "status": status})
        if self.product == "kibana" and request.method == "GET" and path.startswith("/api/spaces/space/"):
            space = path.removeprefix("/api/spaces/space/")
            if not self.may_read_spaces:
                return _build_error(403, "Forbidden")
            return Response.json({"id": space}) if space in {*self.spaces, "default"} else _build_error(404, "Not Found")
        if path != "/api/saved_objects/_import" or request.method != "POST":
            return _build_error(404, "Not Found")
        return self._import_objects(request, parse_qs(parts.query, keep_blank_values=True), scope)

    def _resolve_scope(self, path: str, request: Request) -> tuple[str | None, str]:
        """The path without its space or workspace, None where that isn't there; and whose objects it is about."""
        match = re.match(r"/([sw])/([^/]+)(/.*)", path)
        if match:
            exists = self.product == "kibana" if match[1] == "s" else match[2] in self.workspaces
            return (match[3], match[2]) if exists else (None, "")
        return path, request.headers.get("securitytenant", "global") if self.tenants else "default"

    def _reject_login(self) -> Response:
        if self.login_page is not None:
            return Response(status=302, kind="text/html", headers={"location": self.login_page})
        return _build_error(401, "Unauthorized")

    def _import_objects(self, request: Request, query: Mapping[str, Sequence[str]], scope: str) -> Response:
        rejection = self._find_import_error(request, query)
        if rejection is not None:
            return rejection
        name, data = _read_uploaded_file(request)
        if name is None:
            return _build_error(400, "[request body.file]: expected value of type [Stream] but got [undefined]")
        if not name.lower().endswith(".ndjson"):
            return _build_error(400, f"Invalid file extension .{name.rpartition('.')[2]}")
        try:
            objects = [json.loads(line) for line in data.decode().splitlines() if line.strip()]
        except ValueError as error:
            return _build_error(400, f"Unexpected token in JSON: {error}")
        objects = [obj for obj in objects if "exportedCount" not in obj]
        duplicates = [key for key, times in Counter((obj["type"], obj["id"]) for obj in objects).items() if times > 1]
        if duplicates:
            return _build_error(400, f"Non-unique import objects detected: {duplicates}")
        newer = next((obj for obj in objects if self._is_newer(obj)), None)
        if newer is not None:
            newest = _NEWEST_VERSIONS[self.product][newer["type"]]
            product = _PRODUCT_NAMES[self.product]
            return _build_error(
                422,
                f'Document "{newer["id"]}" has property "{newer["type"]}" which belongs to a more recent version of {product} '
                f"[{newer['migrationVersion'][newer['type']]}]. The last known version is [{newest}]",
            )
        return Response.json(self._create_objects(objects, query.get("overwrite") == ["true"], scope))

    def _find_import_error(self, request: Request, query: Mapping[str, Sequence[str]]) -> Response | None:
        if _XSRF_HEADERS[self.product] not in request.headers:
            return _build_error(400, f"Request must contain a {_XSRF_HEADERS[self.product]} header.")
        unknown = sorted(set(query) - _QUERY_PARAMETERS[self.product])
        if unknown:
            return _build_error(400, f"[request query.{unknown[0]}]: definition for this key is missing")
        if query.get("overwrite") == ["true"] and query.get("createNewCopies") == ["true"]:
            return _build_error(400, "cannot use [overwrite] with [createNewCopies]")
        if len(request.body) > self.max_bytes:
            return _build_error(413, f"Payload content length greater than maximum allowed: {self.max_bytes}")
        if not request.headers.get("content-type", "").startswith("multipart/form-data"):
            return _build_error(415, "Unsupported Media Type")
        return None

    def _is_newer(self, obj: Mapping[str, Any]) -> bool:
        newest = _NEWEST_VERSIONS[self.product].get(obj["type"])
        version = obj.get("migrationVersion", {}).get(obj["type"])
        return newest is not None and version is not None and _parse_version(version) > _parse_version(newest)

    def _create_objects(self, objects: Sequence[dict[str, Any]], overwrite: bool, scope: str) -> dict[str, Any]:
        held = self.get_objects(scope)
        errors = [
            _build_failure(obj, {"type": "unsupported_type"})
            for obj in objects
            if obj["type"] not in _NEWEST_VERSIONS[self.product]
        ]
        supported = [obj for obj in objects if obj["type"] in _NEWEST_VERSIONS[self.product]]
        ids = {(obj["type"], obj["id"]): self._choose_id(obj, scope) for obj in supported}
        errors += self._list_missing_references(supported, held)
        errors += [
            _build_failure(obj, {"type": "conflict"})
            for obj in supported
            if not overwrite and (obj["type"], ids[obj["type"], obj["id"]]) in held
        ]
        results = list[dict[str, Any]]()
        if not any(each["error"]["type"] in ("conflict", "missing_references") for each in errors):
            for obj in supported:
                reason = self._find_object_error(obj)
                if reason is not None:
                    failure = {"type": "unknown", "statusCode": 400, "error": "Bad Request", "message": reason}
                    errors.append(_build_failure(obj, failure))
                else:
                    results.append(self._store_object(obj, ids, held))
        return {
            "successCount": len(results),
            "success": not errors,
            **({"successResults": results} if results else {}),
            **({"errors": errors} if errors else {}),
        }

    def _choose_id(self, obj: Mapping[str, Any], scope: str) -> str:
        """The id that an object gets: another one in Kibana, if its own is taken in another space."""
        key = obj["type"], obj["id"]
        if self.product != "kibana" or key in self.get_objects(scope):
            return str(obj["id"])
        copies = [id_ for (type_, id_), kept in self.get_objects(scope).items() if (type_, kept.get("originId")) == key]
        if copies:
            return copies[0]
        return str(uuid.uuid4()) if any(key in held for held in self.stored.values()) else str(obj["id"])

    def _store_object(self, obj: dict[str, Any], ids: Mapping[Key, str], held: dict[Key, dict[str, Any]]) -> dict[str, Any]:
        type_, id_ = obj["type"], ids[obj["type"], obj["id"]]
        result = {"type": type_, "id": obj["id"], "meta": {"title": obj["attributes"]["title"], "icon": "an icon"}}
        if (type_, id_) in held:
            result["overwrite"] = True
        if id_ != obj["id"]:
            result["destinationId"] = id_
        references = [{**each, "id": ids.get((each["type"], each["id"]), each["id"])} for each in obj.get("references", ())]
        held[type_, id_] = {**obj, "id": id_, "references": references, "originId": obj["id"]}
        return result

    def _list_missing_references(self, objects: Sequence[Mapping[str, Any]], held: Mapping[Key, object]) -> list[dict[str, Any]]:
        keys = {(obj["type"], obj["id"]) for obj in objects} | set(held)
        failed = list[dict[str, Any]]()
        for obj in objects:
            references = [each for each in obj.get("references", ()) if each["type"] in ("index-pattern", "search")]
            missing = [{"type": each["type"], "id": each["id"]} for each in references if (each["type"], each["id"]) not in keys]
            if missing:
                failed.append(_build_failure(obj, {"type": "missing_references", "references": missing}))
        return failed

    def _find_object_error(self, obj: Mapping[str, Any]) -> str | None:
        type_ = obj["type"]
        if type_ in _ATTRIBUTES:
            allowed = _ATTRIBUTES[type_] | _PRODUCT_ATTRIBUTES.get(self.product, {}).get(type_, set())
            unknown = sorted(set(obj["attributes"]) - allowed)
            if unknown and self.product == "kibana":
                return f"[attributes.{unknown[0]}]: definition for this key is missing"
            if unknown:
                return f"mapping set to strict, dynamic introduction of [{unknown[0]}] within [{type_}] is not allowed"
        return self.refuse(obj)


def _read_uploaded_file(request: Request) -> tuple[str | None, bytes]:
    """Name and content of the part called `file`."""
    head = f"content-type: {request.headers['content-type']}\r\n\r\n".encode()
    message = BytesParser(policy=HTTP).parsebytes(head + request.body)
    for part in message.iter_parts():
        content = part.get_payload(decode=True)
        if part.get_param("name", header="content-disposition") == "file" and isinstance(content, bytes):
            return part.get_filename() or "", content
    return None, b""


def _build_error(status: int, message: str) -> Response:
    return Response.json({"statusCode": status, "error": "Refused", "message": message}, status=status)


def _build_failure(obj: Mapping[str, Any], error: Mapping[str, Any]) -> dict[str, Any]:
    title = obj.get("attributes", {}).get("title")
    return {"type": obj["type"], "id": obj["id"], "title": title, "meta": {"title": title}, "error": dict(error)}


def _parse_version(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))

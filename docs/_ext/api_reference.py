"""Reference of the encoder's HTTP API as Markdown, made from its OpenAPI document."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stair_es.web.encoding.openapi import build_openapi_document


def build_reference() -> str:
    """Return the reference: each route with its fields, an example and its errors, and the error types."""
    document = build_openapi_document()
    schemas = document["components"]["schemas"]
    lines = [*_write_contents(document)]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            lines += _write_operation(f"{method.upper()} {path}", operation, schemas)
    lines += ["## Errors\n", "The body of every error is JSON:\n", *_write_fields(schemas["ErrorBody"], schemas)]
    lines += ["| status | meaning |", "|---|---|"]
    lines += [f"| {status} | {description} |" for status, description in sorted(_collect_errors(document).items())]
    return "\n".join(lines).rstrip()


def _write_contents(document: Mapping[str, Any]) -> Iterator[str]:
    yield from ("| route | |", "|---|---|")
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            title = f"{method.upper()} {path}"
            yield f"| [`{title}`](#{_make_anchor(title)}) | {operation['summary']} |"
    yield "| [Errors](#errors) | Status codes and error types. |\n"


def _make_anchor(title: str) -> str:
    return re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-")


def _write_operation(title: str, operation: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}\n"
    yield " ".join(filter(None, (operation["summary"], operation.get("description")))) + "\n"
    if "requestBody" in operation:
        yield from _write_content("Request", operation["requestBody"], schemas)
    yield from _write_content("Response", operation["responses"]["200"], schemas)
    errors = [status for status in operation["responses"] if status != "200"]
    yield f"Errors: {', '.join(sorted(errors))}.\n"


def _write_content(title: str, content: Mapping[str, Any], schemas: Mapping[str, Any]) -> Iterator[str]:
    yield f"**{title}**: {content['description'][0].lower()}{content['description'][1:]}\n"
    for media_type, body in content["content"].items():
        if "example" in body:
            is_json = media_type == "application/json"
            text = json.dumps(body["example"]) if is_json else body["example"].rstrip()
            yield f"```{'json' if is_json else 'text'}\n{text}\n```\n"
        yield from _write_fields(_resolve(body["schema"], schemas), schemas)


def _write_fields(schema: Mapping[str, Any], schemas: Mapping[str, Any], parent: str = "") -> list[str]:
    """Return the table of the fields of an object, with those of the objects in it."""
    rows = list(_list_rows(schema, schemas, parent))
    return ["| field | type | description |", "|---|---|---|", *rows, ""] if rows else []


def _list_rows(schema: Mapping[str, Any], schemas: Mapping[str, Any], parent: str) -> Iterator[str]:
    while schema.get("type") == "array":
        schema, parent = _resolve(schema["items"], schemas), f"{parent}[]"
    for name, field in schema.get("properties", {}).items():
        path = f"{parent}.{name}".lstrip(".")
        optional = "" if name in schema.get("required", ()) else ", optional"
        default = f" {json.dumps(field['default'])} by default." if field.get("default") is not None else ""
        yield f"| `{path}` | {_describe_type(field, schemas)}{optional} | {field.get('description', '')}{default} |"
        inner = _resolve(field, schemas)
        if inner is not field or inner.get("type") == "array":
            yield from _list_rows(inner, schemas, path)


def _describe_type(field: Mapping[str, Any], schemas: Mapping[str, Any]) -> str:
    if "anyOf" in field:
        return " or ".join(_describe_type(choice, schemas) for choice in field["anyOf"])
    field = _resolve(field, schemas)
    if "enum" in field:
        return ", ".join(f"`{value}`" for value in field["enum"])
    if field["type"] == "array":  # whose items are false if each has a type of its own
        return f"list of {_describe_type(field['items'], schemas)}s" if field.get("items") else "list"
    return "integer" if field.get("multipleOf") == 1 else str(field["type"])


def _resolve(schema: Mapping[str, Any], schemas: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the schema that a schema refers to, perhaps as one of its choices; otherwise the schema itself."""
    references = [choice["$ref"] for choice in schema.get("anyOf", [schema]) if "$ref" in choice]
    return schemas[references[0].rpartition("/")[2]] if references else schema


def _collect_errors(document: Mapping[str, Any]) -> dict[str, str]:
    """Return the description of each status; that of most routes, if they differ."""
    responses = [operation["responses"] for methods in document["paths"].values() for operation in methods.values()]
    return {
        status: response["description"] for each in reversed(responses) for status, response in each.items() if status != "200"
    }

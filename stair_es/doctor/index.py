"""One index: whether it is ours, leftovers of killed runs, and related indices. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich import filesize

from stair_es.cluster.metadata.index_metadata import get_index_meta, get_token_index_meta
from stair_es.cluster.metadata.names import list_other_aliases, make_build_alias_prefix
from stair_es.cluster.token_index.index import make_token_alias, make_token_index_name
from stair_es.config.defaults import DEFAULT_RETAINED_INDICES
from stair_es.doctor.facts import IndexFacts
from stair_es.doctor.result import CheckResult, format_curl

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
    operation = (get_index_meta(index).get("policy") or {}).get("pending_operation")
    if operation:
        command = f"stair-es policy {operation}{' FILE' if operation == 'apply' else ''} --index {alias}"
        yield CheckResult.warn("policy", f"{operation} of the token policy of {name} is running or was interrupted", command)


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
    retired.sort(key=lambda name: int(facts.indices[name]["settings"].get("index.creation_date", 0)))
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

"""One index: whether it is ours, leftovers of killed runs, and related indices. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from stair_es.cluster.identity import build_prefix, other_aliases, ours, words_of
from stair_es.cluster.words_index import words_alias, words_name
from stair_es.config import KEEP
from stair_es.doctor.finding import Finding, curl, fail, ok, size, warn
from stair_es.doctor.look import IndexFacts

_FULL = 0.9
_PRIVILEGES = {"indices:admin/get": "view_index_metadata on {alias}*", "indices:monitor/stats": "monitor on {alias}*"}
"""Elasticsearch privileges that grant these actions; all others need `monitor` on the cluster."""


def index(facts: IndexFacts, url: str) -> Iterator[Finding]:
    """Evaluate the facts of an existing index of ours.

    Args:
        facts: From the cluster.
        url: For suggested commands.
    """
    for name in facts.live:
        yield from settings(name, facts.indices[name], url)
        yield from fields(name, facts.indices[name], url)
        yield from policy(facts.name, name, facts.indices[name])
    yield from words(facts)
    yield from builds(facts, url)
    yield from retired(facts, url)


def found(facts: IndexFacts, model: str) -> Finding:
    """Report what the name points to, as far as this user may see it."""
    if not facts.live:
        return ok("index", f"{facts.name} holds vectors of {model}")
    count = f"{sum(facts.sizes[name][0] for name in facts.live):,} " if facts.sizes.keys() >= {*facts.live} else ""
    return ok("index", f"{facts.name} points to {', '.join(facts.live)}: {count}documents of {model}")


def unseen(forbidden: Sequence[str], alias: str, distribution: str) -> Iterator[Finding]:
    """Report the rights that this user lacks for some checks, as this distribution names them.

    Args:
        forbidden: Rights that were denied.
        alias: The index alias.
        distribution: OpenSearch or Elasticsearch.
    """
    if not forbidden:
        return
    said = "this user lacks rights for some checks: "
    if distribution == "elasticsearch":
        lacking = dict.fromkeys(_PRIVILEGES.get(right, "monitor on the cluster").format(alias=alias) for right in forbidden)
        yield warn("checks", said + ", ".join(lacking), "For all checks, grant that (docs/howto/secure.md#elasticsearch).")
    else:
        grant = f"For all checks of {alias}, grant the role photos_doctor of docs/howto/secure.md#roles."
        yield warn("checks", said + ", ".join(forbidden), f"{grant} Nothing else needs these rights.")


def _extent(facts: IndexFacts, name: str) -> str:
    documents, bytes_ = facts.sizes.get(name, (None, 0))
    return "size unknown" if documents is None else f"{documents:,} documents, {size(bytes_)}"


def settings(name: str, told: Mapping[str, Any], url: str) -> Iterator[Finding]:
    """Evaluate blocks, and settings that a killed load has left behind."""
    own = told.get("settings", {})
    if str(own.get("index.verified_before_close", "false")) == "true":
        yield fail("index", f"{name} is closed: it can't be searched or written", curl(url, "POST", f"/{name}/_open"))
    for block in ("read_only_allow_delete", "read_only", "write", "read"):
        if str(own.get(f"index.blocks.{block}", "false")) == "true":
            why = " (the disk was too full: make room first)" if block == "read_only_allow_delete" else ""
            barred = "searched" if block == "read" else "written"
            lift = curl(url, "PUT", f"/{name}/_settings", {f"index.blocks.{block}": None})
            yield fail("index", f"{name} has index.blocks.{block}: it can't be {barred}{why}", lift)
    relaxed = ours(told).get("relaxed")
    changed = {key: value for key, value in relaxed.items() if own.get(f"index.{key}") != value} if relaxed else {}
    if changed:
        now = ", ".join(f"{key} {own.get(f'index.{key}')}" for key in changed)
        yield warn(
            "index",
            f"{name} is set for loading ({now}): an ingest is running or was killed",
            "Run the ingest again, which restores it; or: " + curl(url, "PUT", f"/{name}/_settings", {"index": changed}),
        )
    elif own.get("index.refresh_interval", "1s").startswith("-"):
        yield warn(
            "index",
            f"{name} has refresh_interval -1: new documents are not searchable",
            curl(url, "PUT", f"/{name}/_settings", {"index": {"refresh_interval": None}}),
        )


def fields(name: str, told: Mapping[str, Any], url: str) -> Iterator[Finding]:
    """Evaluate how many more fields the mapping may get."""
    most = int(told.get("settings", {}).get("index.mapping.total_fields.limit", 1000))
    there = _count(told.get("mappings", {}).get("properties", {}))
    if there >= _FULL * most:
        body = {"index.mapping.total_fields.limit": 2 * most}
        more = curl(url, "PUT", f"/{name}/_settings", body)
        yield warn("index", f"{name} has {there} of {most} fields: documents with further columns fail", more)


def _count(properties: Mapping[str, Any]) -> int:
    return sum(1 + _count(spec.get("properties", {})) + len(spec.get("fields", {})) for spec in properties.values())


def policy(alias: str, name: str, told: Mapping[str, Any]) -> Iterator[Finding]:
    """Report an unfinished change of the token policy."""
    under_way = (ours(told).get("policy") or {}).get("under_way")
    if under_way:
        again = f"stair-es policy {under_way}{' FILE' if under_way == 'apply' else ''} --index {alias}"
        yield warn("policy", f"{under_way} of the token policy of {name} is running or was interrupted", again)


def words(facts: IndexFacts) -> Iterator[Finding]:
    """Evaluate the token index."""
    companions = {name: words_of(told) for name, told in facts.indices.items() if words_of(told).get("alias") == facts.name}
    if not companions or len(facts.live) != 1:
        return
    [live] = facts.live
    own, alias = words_name(live), words_alias(facts.name)
    again = f"Run the ingest of {facts.name} again, which reconciles it."
    if own not in companions:
        yield warn("words index", f"{live} has none, but an earlier index has one", again)
    elif alias not in facts.indices[own].get("aliases", {}):
        yield warn("words index", f"the alias {alias} does not point to {own} yet", again)
    elif facts.sizes.get(live, (0, 0))[0] and not facts.sizes.get(own, (1, 0))[0]:
        yield warn("words index", f"{own} is empty", again)
    else:
        yield ok("words index", f"{own}: {_extent(facts, own)}")


def builds(facts: IndexFacts, url: str) -> Iterator[Finding]:
    """Report unfinished builds: indices that the alias does not point to yet."""
    for name in sorted(facts.indices):
        alias = facts.alias_of(name, build_prefix(facts.name))
        if alias and name not in facts.live:
            yield warn(
                "builds",
                f"{name} is an unfinished build: {_extent(facts, name)}",
                "Run the same ingest again, which resumes it; or delete it: " + curl(url, "DELETE", f"/{name}"),
            )


def retired(facts: IndexFacts, url: str) -> Iterator[Finding]:
    """Report indices of earlier builds that no alias points to."""
    left = [
        name
        for name, told in facts.indices.items()
        if not other_aliases(name, told) and ours(told).get("alias") == facts.name and name != facts.name
    ]
    left.sort(key=lambda name: int(facts.indices[name]["settings"].get("index.creation_date", 0)))
    listed = ", ".join(f"{name} ({_extent(facts, name)})" for name in left)
    if len(left) > KEEP:
        gone = curl(url, "DELETE", f"/{','.join(left[:-KEEP])}")
        yield warn("retired", f"no alias points to {listed}", f"If more than --keep allows: {gone}")
    elif left:
        yield ok("retired", f"kept: {listed}")


def rights(told: Mapping[str, bool] | None, alias: str) -> Iterator[Finding]:
    """Evaluate the user's rights (Elasticsearch)."""
    if told is None:
        return
    lacking = [name for name, granted in told.items() if not granted]
    search = {"read", "view_index_metadata"}
    grant = f"Grant {', '.join(lacking)} on {alias}* to the user (docs/howto/secure.md#elasticsearch)."
    if search & set(lacking):
        yield fail("rights", f"the user may not search {alias}: {', '.join(sorted(search & set(lacking)))}", grant)
    elif lacking:
        yield warn("rights", f"the user may search {alias}, but not ingest: {', '.join(lacking)}", grant)
    else:
        yield ok("rights", f"the user may search {alias} and ingest into it")

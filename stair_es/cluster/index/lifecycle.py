"""Index life cycle: timestamped indices with an alias; the next one is built before the alias is swapped to it.

Here an index is found or created; `aliases` and `load_settings` have the rest of its life.
"""

from __future__ import annotations

import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from stair_es.cluster.client.capabilities import get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.exceptions import get_copies_multiple
from stair_es.cluster.client.opensearch import OpenSearch, exceptions
from stair_es.cluster.client.products import SERVERLESS, ManagedProduct
from stair_es.cluster.metadata.index_metadata import (
    INDEX_ID,
    IndexSpec,
    WriteTarget,
    add_index_meta,
    build_index_meta,
    check_index_format,
    compare_mappings,
    get_content_type,
    get_index_identity,
    get_index_meta,
    get_index_settings,
    get_token_index_meta,
    is_ingest_index,
)
from stair_es.cluster.metadata.names import (
    WRITE_ALIAS_OPTIONS,
    check_alias_name,
    ensure_write_alias,
    make_build_alias_prefix,
    make_index_name,
    make_write_alias,
)
from stair_es.cluster.metadata.policy_state import (
    add_policy_to_body,
    check_policy_matches,
    fetch_index_policy,
    parse_policy_state,
)
from stair_es.errors import ClusterError, IndexMismatch, IndexNotFound
from stair_es.taught_words import check_word_model
from stair_es.token_policy import TokenPolicy

logger = logging.getLogger(__name__)

_MAX_NAMED_WORDS = 8
_OTHER_NAME = "Choose another name with --index / STAIR_ES_INDEX."
_NODE_SETTINGS = re.compile(r"(index\.)?(number_of_shards|number_of_replicas|auto_expand_replicas)")
_OTHER_SETTINGS: Mapping[ManagedProduct, re.Pattern[str]] = {
    # AWS doesn't document that -1 is ignored: it could hide documents forever.
    "opensearch-serverless": re.compile(r"(index\.)?refresh_interval"),
    "elasticsearch-serverless": re.compile(r"(index\.)?mapping\.exclude_source_vectors"),
}


def open_index(
    cluster: Cluster, alias: str, body: Mapping[str, Any], index_spec: IndexSpec, policy: TokenPolicy | None = None
) -> WriteTarget:
    """Open the index to write to: the target of `alias`, a new one, or the build of the next one (see `swap_alias`).

    Runs that start together get the same index, and an interrupted build is resumed. A missing write alias is restored.

    Args:
        cluster: The cluster.
        alias: The search alias.
        body: Body of a new index, without the metadata of stair-es.
        index_spec: Index spec of this run.
        policy: Policy of a new index; None for the policy of the alias target, which a build inherits.

    Raises:
        UsageError: If the alias name is invalid, or a word of the policy was taught from vectors of another model.
        IndexMismatch: If the name is used by something that stair-es didn't make, an unfinished build has another mapping, or the
            index has another policy than the requested one, contains texts instead of images or the reverse, or is closed.
    """
    check_alias_name(alias)
    for word in policy.teach.values() if policy else ():
        check_word_model(word, index_spec.model_id)
    full_body = fit_index_body(add_index_meta(body, build_index_meta(index_spec, alias)), get_product(cluster))
    target, reason = cluster.call(_try_open, cluster.client, alias, full_body, policy)
    if reason is not None:
        action = "building" if target.created else "resuming"
        _warn_words_left_out(cluster, target, index_spec.model_id)
        logger.info("%s %s: %s %s; the alias is swapped when it is complete", target.replaces, reason, action, target.name)
    if not target.created:
        ensure_write_alias(cluster, target.name)
    return target


def _warn_words_left_out(cluster: Cluster, target: WriteTarget, model_id: str) -> None:
    """Warn that a build of another model doesn't inherit taught words."""
    live_policy = fetch_index_policy(cluster, target.replaces) if target.replaces else None
    words = set(live_policy.teach) - set(live_policy.select_words(model_id).teach) if live_policy else set()
    if words:
        logger.warning(
            "%s doesn't get the taught words of %s, which were taught from vectors of another model: %s. "
            "Export them before the alias is swapped (stair-es teach --export words.json), and teach them again from their "
            "marks when it is complete (stair-es teach --refit words.json)",
            target.name,
            target.replaces,
            ", ".join(sorted(words)[:_MAX_NAMED_WORDS]),
        )


def find_index(
    cluster: Cluster, alias: str, body: Mapping[str, Any], index_spec: IndexSpec, policy: TokenPolicy | None = None
) -> WriteTarget | None:
    """Find the index that `open_index` would open, if it exists; creates nothing."""
    check_alias_name(alias)
    full_body = add_index_meta(body, build_index_meta(index_spec, alias))
    return cluster.call(_try_find, cluster.client, alias, full_body, policy)


def open_live_index(cluster: Cluster, alias: str) -> tuple[WriteTarget, Mapping[str, Any]]:
    """Open the index that `alias` points to, whatever it was made with; also returns its `_meta.stair_es`.

    Raises:
        IndexNotFound: If there is no such alias.
        IndexMismatch: If the name is used by something that stair-es didn't make, or the index is closed.
    """
    check_alias_name(alias)
    try:
        name, index = cluster.call(_get_single_index, cluster.client, alias)
    except ClusterError as error:
        if error.status != 404:
            raise
        raise IndexNotFound(f"there is no alias {alias!r} at {cluster.connection.safe_url}", "Check --index.") from None
    return _build_target(name, index), get_index_meta(index)


def _try_open(
    client: OpenSearch, alias: str, body: Mapping[str, Any], policy: TokenPolicy | None
) -> tuple[WriteTarget, str | None]:
    """Try once to open the index; also returns why it is a build, if it is one.

    An index that was created by an earlier attempt is found again.
    """
    created = (
        None if client.indices.exists(index=alias) else _create_with_alias(client, alias, alias, add_policy_to_body(body, policy))
    )
    live, reason = _inspect_live_index(client, alias, body, policy)
    if reason is None or live.name == created:
        return replace(live, created=live.name == created), None
    build = _open_build(client, alias, add_policy_to_body(body, live.policy), live)
    if build.created:
        current, current_reason = _inspect_live_index(client, alias, body, policy)
        if current_reason is None:  # a parallel run has finished the same build in between
            client.indices.delete(index=build.name)
            return current, None
    return build, reason


def _try_find(client: OpenSearch, alias: str, body: Mapping[str, Any], policy: TokenPolicy | None) -> WriteTarget | None:
    if not client.indices.exists(index=alias):
        return None
    live, reason = _inspect_live_index(client, alias, body, policy)
    return live if reason is None else _find_build(client, alias, body, live)


def _create_with_alias(client: OpenSearch, alias: str, claimed_alias: str, body: Mapping[str, Any]) -> str | None:
    """Create an index and return its name; None if another run was first: the engine lets only one claim the alias."""
    name = make_index_name(alias, body["mappings"]["_meta"]["stair_es"]["model"], datetime.now(UTC))
    aliases = {**body.get("aliases", {}), claimed_alias: WRITE_ALIAS_OPTIONS, make_write_alias(name): WRITE_ALIAS_OPTIONS}
    try:
        create_index(client, name, {**body, "aliases": aliases})
    except exceptions.TransportError:
        if client.indices.exists(index=claimed_alias):
            return None
        raise
    return name


def _get_single_index(client: OpenSearch, alias: str) -> tuple[str, Mapping[str, Any]]:
    """Return the single target of an alias."""
    found = client.indices.get(index=alias)
    if len(found) > 1:
        raise IndexMismatch(
            f"alias {alias!r} points to several indices: {', '.join(sorted(found))}", _OTHER_NAME, code="alias-of-several-indices"
        )
    [(name, index)] = found.items()
    if name == alias:
        raise IndexMismatch(f"{alias!r} is an index, not an alias made by stair-es", _OTHER_NAME, code="index-not-an-alias")
    if get_token_index_meta(index):
        raise IndexMismatch(
            f"alias {alias!r} points to {name}, the token index of another index", _OTHER_NAME, code="alias-of-token-index"
        )
    if not is_ingest_index(index):
        raise IndexMismatch(
            f"index {name!r} (alias {alias!r}) was not made by stair-es ingest", _OTHER_NAME, code="foreign-index"
        )
    check_index_format(name, index)
    if get_index_settings(index).get("verified_before_close") == "true":
        raise IndexMismatch(
            f"index {name!r} (alias {alias!r}) is closed",
            f"Open it and run the command again: POST /{name}/_open",
            code="index-closed",
        )
    return name, index


def _inspect_live_index(
    client: OpenSearch, alias: str, body: Mapping[str, Any], policy: TokenPolicy | None
) -> tuple[WriteTarget, str | None]:
    """Return the alias target, and why it can't be written to (None if it can)."""
    name, index = _get_single_index(client, alias)
    check_policy_matches(policy, parse_policy_state(index, name), name, alias)
    live = _build_target(name, index)
    live_meta, own_meta = get_index_meta(index), body["mappings"]["_meta"]["stair_es"]
    holds, content = get_content_type(live_meta), get_content_type(own_meta)
    if holds != content:
        raise IndexMismatch(
            f"{alias!r} points to {name}, an index of {holds}",
            f"Specify another one for {content}: --index NAME",
            code="index-of-other-content",
        )
    if live_meta.get("model") != own_meta["model"]:
        return live, f"was made with model {live_meta.get('model')!r}, not with {own_meta['model']!r}"
    if live_meta.get("digest") != own_meta["digest"]:
        return live, "was made with other settings"
    differences = compare_mappings(body["mappings"], index["mappings"])
    return live, f"has another mapping ({'; '.join(differences)})" if differences else None


def _make_build_alias(alias: str, body: Mapping[str, Any]) -> str:
    return make_build_alias_prefix(alias) + str(body["mappings"]["_meta"]["stair_es"]["digest"])


def _find_build(client: OpenSearch, alias: str, body: Mapping[str, Any], live: WriteTarget) -> WriteTarget | None:
    build_alias = _make_build_alias(alias, body)
    if not client.indices.exists(index=build_alias):
        return None
    name, index = _get_single_index(client, build_alias)
    differences = compare_mappings(body["mappings"], index["mappings"])
    if differences:
        raise IndexMismatch(
            f"the unfinished index {name!r} was created with another mapping: {'; '.join(differences)}",
            f"Delete the index {name} to start again, or use the mapping that it was created with.",
            code="build-with-other-mapping",
        )
    return _build_target(name, index, replaces=live.name)


def _open_build(client: OpenSearch, alias: str, body: Mapping[str, Any], live: WriteTarget) -> WriteTarget:
    found = _find_build(client, alias, body, live)
    if found:
        return found
    build_alias = _make_build_alias(alias, body)
    created = _create_with_alias(client, alias, build_alias, body)
    name, index = _get_single_index(client, build_alias)
    return replace(_build_target(name, index, replaces=live.name), created=name == created)


def _build_target(name: str, index: Mapping[str, Any], replaces: str | None = None) -> WriteTarget:
    state = parse_policy_state(index, name)
    return WriteTarget(
        name=name,
        identities={name: get_index_identity(index)},
        created=False,
        replaces=replaces,
        policy=state.policy,
        pending_operation=state.pending_operation,
    )


def fit_index_body(body: Mapping[str, Any], product: ManagedProduct) -> dict[str, Any]:
    """Fit the body of a new index to a product: a serverless one manages shards and replicas, and may not tell a UUID.

    An index that reports no UUID is recognized by a random id in its `_meta.stair_es`. Pure, except for that.
    """
    if product not in SERVERLESS:
        return dict(body)
    mappings = body.get("mappings", {})
    meta = mappings.get("_meta", {})
    own_meta = {**meta.get("stair_es", {}), INDEX_ID: uuid.uuid4().hex}
    return {
        **body,
        "settings": _drop_settings(body.get("settings", {}), product),
        "mappings": {**mappings, "_meta": {**meta, "stair_es": own_meta}},
    }


def _drop_settings(settings: Mapping[str, Any], product: ManagedProduct, prefix: str = "") -> dict[str, Any]:
    """Drop the settings that a product manages, however they are nested, and objects that lose all of theirs."""
    kept: dict[str, Any] = {}
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if _NODE_SETTINGS.fullmatch(path) or _OTHER_SETTINGS[product].fullmatch(path):
            continue
        rest = _drop_settings(value, product, f"{path}.") if isinstance(value, dict) else value
        if rest != {} or value == {}:
            kept[name] = rest
    return kept


def create_index(client: OpenSearch, name: str, body: Mapping[str, Any]) -> None:
    """Create an index in one attempt, with more replicas if the cluster requires them in each zone; raises client errors."""
    try:
        client.indices.create(index=name, body=dict(body))
    except exceptions.TransportError as error:
        copies, settings = get_copies_multiple(error.info), body.get("settings", {})
        if not copies or "auto_expand_replicas" not in settings.get("index", {}):
            raise
        logger.info("%s gets %s copies of its documents: the cluster requires a multiple of its zones", name, copies)
        index = {**settings["index"], "auto_expand_replicas": f"0-{copies - 1}"}
        client.indices.create(index=name, body={**body, "settings": {**settings, "index": index}})

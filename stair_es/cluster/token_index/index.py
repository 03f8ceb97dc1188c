"""The token index of an alias: `A-tokens` points to `X.tokens` if A points to X. Find, create, publish and delete it.

Each is written through a separate write alias, `X.tokens.write`, as the image index is: see `make_write_alias`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stair_es import resources
from stair_es.cluster.client.capabilities import get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.opensearch import OpenSearch, exceptions
from stair_es.cluster.client.products import ManagedProduct
from stair_es.cluster.index.lifecycle import create_index, fit_index_body
from stair_es.cluster.metadata.index_metadata import (
    IDENTITY_PATHS,
    add_index_meta,
    build_token_index_meta,
    get_index_identity,
    get_index_settings,
    get_token_index_meta,
)
from stair_es.cluster.metadata.names import MAX_INDEX_NAME_BYTES, TOKEN_INDEX_SUFFIX, WRITE_ALIAS_OPTIONS, make_write_alias
from stair_es.cluster.token_index.documents import check_pageable_mapping
from stair_es.errors import IndexMismatch


def make_token_alias(alias: str) -> str:
    """Make the alias of the token index for a search alias."""
    return f"{alias}-tokens"


def make_token_index_name(index: str) -> str:
    """Make the name of the token index of an index."""
    return f"{index}{TOKEN_INDEX_SUFFIX}"


@dataclass(frozen=True, kw_only=True)
class TokenIndexState:
    """The token indices of one alias."""

    alias: str
    indices: Mapping[str, str]
    """Our token indices of this alias -> the index that each belongs to, which may be deleted."""
    identities: Mapping[str, str]
    """Our token indices -> their identities; see `get_index_identity`."""
    alias_targets: frozenset[str]

    @property
    def is_enabled(self) -> bool:
        """Whether the alias has token indices: then each new build gets one, too."""
        return bool(self.indices)

    def check_alias_available(self) -> None:
        """Raise IndexMismatch if the name of the token alias belongs to someone else."""
        foreign = sorted(self.alias_targets - set(self.indices))
        if foreign:
            name = make_token_alias(self.alias)
            problem = "another index has that name" if name in foreign else f"that alias points to {', '.join(foreign)}"
            raise IndexMismatch(
                f"the token index of {self.alias!r} can't be named {name!r}: {problem}",
                "Rename that, ingest under another name (--index), or use --no-token-index.",
                code="token-index-name-taken",
            )


def get_token_index_state(cluster: Cluster, alias: str) -> TokenIndexState:
    """Get the state of the token indices."""
    return cluster.call(read_token_index_state, cluster.client, alias)


def read_token_index_state(client: OpenSearch, alias: str) -> TokenIndexState:
    """Read the state in one attempt; raises the client's own errors."""
    token_alias = make_token_alias(alias)
    parts = f"*.aliases,*.mappings._meta,{IDENTITY_PATHS}"
    params = {"ignore_unavailable": "true", "expand_wildcards": "all", "filter_path": parts}
    found = client.indices.get(index=f"{token_alias},{alias}-*{TOKEN_INDEX_SUFFIX}", params=params)
    indices = {name: index for name, described in found.items() if (index := _get_source_index(name, described, alias))}
    return TokenIndexState(
        alias=alias,
        indices=indices,
        identities={name: get_index_identity(found[name]) for name in indices},
        alias_targets=frozenset(
            name for name, described in found.items() if name == token_alias or token_alias in described.get("aliases", {})
        ),
    )


def _get_source_index(name: str, described: Mapping[str, Any], alias: str) -> str:
    meta = get_token_index_meta(described)
    index = str(meta.get("token_index_of", ""))
    return index if meta.get("alias") == alias and name == make_token_index_name(index) else ""


def create_token_index(cluster: Cluster, alias: str, index: str) -> bool:
    """Create the token index of `index`, empty; returns False if it exists.

    Raises:
        IndexMismatch: If its name belongs to someone else or is too long, or the images can't be read page by page.
    """
    name = make_token_index_name(index)
    if len(make_write_alias(name).encode()) > MAX_INDEX_NAME_BYTES:
        raise IndexMismatch(
            f"the name of the token index {name!r} would be too long",
            "Ingest under a shorter name: --index.",
            code="token-index-name-too-long",
        )
    return cluster.call(_try_create, cluster.client, alias, index, get_product(cluster))


def _try_create(client: OpenSearch, alias: str, index: str, product: ManagedProduct) -> bool:
    name = make_token_index_name(index)
    try:
        create_index(client, name, fit_index_body(_build_body(client, alias, index), product))
    except exceptions.TransportError:
        if not client.indices.exists(index=name):
            raise
        if not _get_source_index(name, client.indices.get(index=name).get(name, {}), alias):
            raise IndexMismatch(
                f"the token index of {index!r} can't be named {name!r}: another index has that name",
                "Rename that index, or delete it.",
                code="token-index-name-taken",
            ) from None
        return False
    return True


def _build_body(client: OpenSearch, alias: str, index: str) -> dict[str, Any]:
    """Build the body, with as many shards as the image index: if images need several, so do their tokens."""
    described = client.indices.get(index=index)[index]
    check_pageable_mapping(described["mappings"].get("properties", {}), f"index {index!r}")
    body = add_index_meta(resources.load_json_resource("mappings", "token-index"), build_token_index_meta(index, alias))
    settings = {**body["settings"]["index"], **_select_shards(get_index_settings(described))}
    return {
        **body,
        "settings": {"index": settings},
        "aliases": {make_write_alias(make_token_index_name(index)): WRITE_ALIAS_OPTIONS},
    }


def _select_shards(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name == "number_of_shards"}


def swap_token_alias(cluster: Cluster, alias: str, index: str) -> bool:
    """Swap the token alias to the token index of `index`, if `alias` points to `index`; returns whether it does."""
    return cluster.call(_try_swap_token_alias, cluster.client, alias, index)


def _try_swap_token_alias(client: OpenSearch, alias: str, index: str) -> bool:
    if not client.indices.exists_alias(name=alias, index=index):
        return False
    actions = build_alias_actions(read_token_index_state(client, alias), index)
    if actions:
        client.indices.update_aliases(body={"actions": actions})
    return True


def build_alias_actions(state: TokenIndexState, index: str) -> list[dict[str, Any]]:
    """Build the alias actions that point the token alias to the token index of `index`; empty if it has none. Pure."""
    name, token_alias = make_token_index_name(index), make_token_alias(state.alias)
    if name not in state.indices:
        return []
    state.check_alias_available()
    if state.alias_targets == {name}:
        return []
    removals = [{"remove": {"index": other, "alias": token_alias}} for other in sorted(state.alias_targets - {name})]
    return [*removals, {"add": {"index": name, "alias": token_alias}}]


def delete_token_indices(cluster: Cluster, alias: str) -> list[str]:
    """Delete all token indices of an alias, with their aliases; returns their names."""
    return _delete_indices(cluster, sorted(get_token_index_state(cluster, alias).indices))


def delete_orphan_token_indices(cluster: Cluster, alias: str) -> list[str]:
    """Delete the token indices whose index was deleted; returns their names."""
    state = get_token_index_state(cluster, alias)
    exists = {index: cluster.call(cluster.client.indices.exists, index=index) for index in state.indices.values()}
    return _delete_indices(cluster, sorted(name for name, index in state.indices.items() if not exists[index]))


def _delete_indices(cluster: Cluster, names: list[str]) -> list[str]:
    for name in names:
        cluster.call(cluster.client.indices.delete, index=name, ignore=[404])
    return names

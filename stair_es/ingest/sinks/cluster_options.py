"""Options of the built-in sink, and the changes to the token index that follow from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal, get_args

from stair_es.cluster.bulk.throttle import BulkPolicy
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.cluster.token_index.documents import check_pageable_mapping
from stair_es.cluster.token_index.index import (
    TokenIndexState,
    create_token_index,
    delete_token_indices,
    get_token_index_state,
    make_token_index_name,
)
from stair_es.config.defaults import DEFAULT_RETAINED_INDICES
from stair_es.config.settings import Settings
from stair_es.errors import UsageError
from stair_es.ingest.sinks.base import SinkPlan, TokenIndexPlan

logger = logging.getLogger(__name__)

SwapMode = Literal["auto", "always", "never"]
_YES_NO = {"yes": True, "no": False}


@dataclass(frozen=True, kw_only=True)
class ClusterSinkOptions:
    """Options of the built-in sink; see `sinks.cluster`."""

    retain_indices: int = DEFAULT_RETAINED_INDICES
    swap: SwapMode = "auto"
    no_replicas_while_building: bool = False
    mapping: Path | None = None
    token_index: bool | None = None
    """None to keep what the index has."""

    def override(self, options: Mapping[str, str]) -> ClusterSinkOptions:
        """Return these options, replaced by those of `--sink cluster:KEY=VALUE,...`."""
        unknown = sorted(set(options) - {field.name for field in fields(self)})
        if unknown:
            raise UsageError(
                f"the sink 'cluster' has no option {', '.join(unknown)}", "See docs/plugins.md.", code="unknown-sink-option"
            )
        values: dict[str, Any] = {}
        for name, text in options.items():
            if name == "mapping":
                values[name] = Path(text) if text else None
            elif name == "retain_indices" and text.isdecimal():
                values[name] = int(text)
            elif name == "swap" and text in get_args(SwapMode):
                values[name] = text
            elif name in ("no_replicas_while_building", "token_index") and text in _YES_NO:
                values[name] = _YES_NO[text]
            else:
                raise UsageError(
                    f"invalid option of the sink 'cluster': {name}={text}",
                    f"retain_indices must be a number, swap one of {', '.join(get_args(SwapMode))}, no_replicas_while_building"
                    " and token_index yes or no.",
                    code="invalid-sink-option",
                )
        return replace(self, **values)


@dataclass(frozen=True, kw_only=True)
class ClusterPlan(SinkPlan):
    """The plan of a run for the built-in sink."""

    options: ClusterSinkOptions
    index_spec: IndexSpec
    document: DocumentSettings
    field_types: Mapping[str, str | Mapping[str, Any]]
    """Field of an enricher -> its type in a new index."""
    bulk: BulkPolicy
    settings: Settings | None
    """Data folder and trusted models of this machine; None for those of the environment."""


@dataclass(frozen=True)
class TokenIndexRequest:
    """The requested and the present state of the token index."""

    requested: bool | None
    state: TokenIndexState

    @property
    def is_enabled(self) -> bool:
        """Whether there is a token index after the run."""
        return self.state.is_enabled if self.requested is None else self.requested

    def plan_changes(self, index: str | None) -> TokenIndexPlan | None:
        """Return the change to the token index of `index`, which is None if the index doesn't exist yet."""
        name = make_token_index_name(index) if index else None
        exists = name in self.state.indices
        if self.is_enabled:
            return TokenIndexPlan(index=name, action="update" if exists else "create")
        return TokenIndexPlan(index=name if exists else None, action="delete") if self.state.is_enabled else None


def resolve_token_index(cluster: Cluster, alias: str, requested: bool | None, properties: Mapping[str, Any]) -> TokenIndexRequest:
    """Compare the requested with the present state of the token index, without changing anything.

    `requested` is None to keep what the index has.

    Raises:
        IndexMismatch: If the name of the token index is taken, or the fields conflict with its mapping.
    """
    request = TokenIndexRequest(requested, get_token_index_state(cluster, alias))
    if request.is_enabled:
        request.state.check_alias_available()
        check_pageable_mapping(properties, "the mapping")
    return request


def prepare_token_index(cluster: Cluster, index: str, request: TokenIndexRequest) -> None:
    """Create the missing token index, or delete all token indices of the alias if none is requested."""
    alias = request.state.alias
    if request.is_enabled:
        if make_token_index_name(index) not in request.state.indices and create_token_index(cluster, alias, index):
            logger.info("new token index: %s", make_token_index_name(index))
    elif request.state.is_enabled:
        logger.info("token index deleted: %s", ", ".join(delete_token_indices(cluster, alias)))

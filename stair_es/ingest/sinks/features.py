"""Optional features of a sink that is a search index: token policy and token index. Other sinks don't need them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

from stair_es.ingest.sinks.base import SinkPlan, SinkResult

if TYPE_CHECKING:
    from stair_es.cluster.token_index.sync import TokenIndexReport
    from stair_es.token_policy import TokenPolicy


@runtime_checkable
class HasPolicy(Protocol):
    """A session whose sink has a token policy, which is applied to the documents."""

    policy: TokenPolicy | None


@dataclass(frozen=True, kw_only=True)
class IndexSinkResult(SinkResult):
    """Result of completing a run in a sink that may have a token index."""

    token_index: TokenIndexReport | None = None
    """Changes to the token index; None if there is none."""


@dataclass(frozen=True, kw_only=True)
class TokenIndexPlan:
    """What a run would do to a token index."""

    index: str | None
    """None for an index without a name yet."""
    action: Literal["create", "update", "delete"]


@runtime_checkable
class HasTokenIndex(Protocol):
    """A sink kind whose sinks may keep a token index next to the images."""

    def plan_token_index(self, plan: SinkPlan) -> TokenIndexPlan | None:
        """Return what a run would do to the token index, without changes; None if there is none before and after."""

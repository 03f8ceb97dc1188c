"""The built-in sink: an index behind an alias, in OpenSearch or Elasticsearch.

Options: `keep` (how many retired indices stay, 1), `swap` (auto, always, never), `relax_replicas` (yes or no),
`mapping` (a file with the user's own index body).
"""

from __future__ import annotations

import atexit
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast, get_args

from stair_es.cluster import index as indices
from stair_es.cluster import ledger
from stair_es.cluster.bulk import BulkPolicy, BulkWriter, Written
from stair_es.cluster.connect import Connection, Target, probe
from stair_es.cluster.index import OpenIndex
from stair_es.cluster.ledger import Entry, Stored
from stair_es.cluster.mapping import index_body
from stair_es.cluster.policy_state import policy_of
from stair_es.cluster.retry import RetryPolicy
from stair_es.errors import ClusterError, UsageError
from stair_es.ingest.parts import in_parts
from stair_es.ingest.sink import Completion, Coverage, Documents, Say, SinkPlan
from stair_es.policy import WordPolicy

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_PART = 256
Swap = Literal["auto", "always", "never"]


@lru_cache(maxsize=4)
def _client(connection: Connection) -> OpenSearch:
    """One client a process: workers build their own, clients don't travel."""
    client = connection.client()
    atexit.register(client.close)
    return client


@dataclass(frozen=True, kw_only=True)
class ClusterWriter:
    """See `Writer`."""

    connection: Connection
    index: str
    alias: str
    write_alias: str
    """`alias`, or the build alias of an index that isn't in use yet."""
    policy: BulkPolicy

    def stored_by_id(self, ids: Sequence[str]) -> dict[str, Stored]:
        """See `Writer`."""
        return ledger.by_id(_client(self.connection), self.connection, self.index, ids)

    def stored_by_uri(self, uris: Sequence[str]) -> dict[str, Stored]:
        """See `Writer`."""
        return ledger.by_uri(_client(self.connection), self.connection, self.index, uris)

    def write(self, documents: Documents, chunk_bytes: int) -> Written:
        """See `Writer`."""
        return self._through(lambda bulk: bulk.write(documents, chunk_bytes))

    def update(self, documents: Documents) -> Written:
        """See `Writer`."""
        return self._through(lambda bulk: bulk.update(documents))

    def delete(self, ids: Sequence[str]) -> Written:
        """See `Writer`."""
        return self._through(lambda bulk: bulk.delete(ids))

    def _through(self, call: Callable[[BulkWriter], Written]) -> Written:
        """Through the build alias; once a run beside this one has finished the same build, through the alias itself."""
        try:
            return call(self._bulk(self.write_alias))
        except ClusterError:
            if self.write_alias == self.alias or not self._is_live():
                raise
        return call(self._bulk(self.alias))

    def _is_live(self) -> bool:
        try:
            return indices.stands_for(_client(self.connection), self.connection, self.alias, RetryPolicy(attempts=1)) == [
                self.index
            ]
        except ClusterError:  # the first error says more
            return False

    def _bulk(self, alias: str) -> BulkWriter:
        return BulkWriter(client=_client(self.connection), connection=self.connection, alias=alias, policy=self.policy)


@dataclass(frozen=True, kw_only=True)
class _Options:
    keep: int = 1
    swap: Swap = "auto"
    relax_replicas: bool = False
    mapping: Path | None = None

    @classmethod
    def of(cls, given: Mapping[str, str]) -> _Options:
        unknown = set(given) - {"keep", "swap", "relax_replicas", "mapping"}
        if unknown:
            raise UsageError(f"the sink 'cluster' has no option {', '.join(sorted(unknown))}", "See docs/plugins.md.")
        keep, swap, relax = given.get("keep", "1"), given.get("swap", "auto"), given.get("relax_replicas", "no")
        if not keep.isdecimal() or swap not in get_args(Swap) or relax not in ("yes", "no"):
            raise UsageError(
                f"the sink 'cluster' can't have keep={keep}, swap={swap}, relax_replicas={relax}",
                f"keep is a number, swap one of {', '.join(get_args(Swap))}, relax_replicas yes or no.",
            )
        return cls(
            keep=int(keep),
            swap=cast(Swap, swap),
            relax_replicas=relax == "yes",
            mapping=Path(given["mapping"]) if given.get("mapping") else None,
        )


@dataclass(kw_only=True)
class ClusterSession:
    """See `Session`."""

    writer: ClusterWriter
    index: str
    fresh: bool
    label: str
    alias: str
    opened: OpenIndex
    options: _Options
    began: str
    say: Say
    policy: WordPolicy | None
    """That of the index when the run began."""

    @property
    def _connection(self) -> Connection:
        return self.writer.connection

    @contextmanager
    def load(self) -> Iterator[None]:
        """See `Session`: refreshes, and replicas if asked, are relaxed. A load that fails tells of the policy, too."""
        client = _client(self._connection)
        with indices.relaxed(client, self._connection, self.opened, replicas=self.options.relax_replicas, say=self.say):
            try:
                yield
            except BaseException:
                with suppress(ClusterError):  # the first error says more
                    self._compare_policy(client)
                raise

    def entries(self, sources: Sequence[str]) -> Iterator[Entry]:
        """See `Session`."""
        return ledger.entries(_client(self._connection), self._connection, self.index, sources=sources, before=self.began)

    def complete(self, coverage: Coverage) -> Completion:
        """See `Session`: the alias is swapped if the new index has all that the old one has and that still exists."""
        client = _client(self._connection)
        indices.refresh(client, self._connection, self.index)
        self._compare_policy(client)
        live = self.opened.live
        if live is None or self.index in indices.stands_for(client, self._connection, self.alias):
            return Completion()  # by a run beside this one, perhaps
        reason = self._another_policy(client, live)
        if not reason and self.options.swap != "always":
            reason = self._unfinished(live, coverage)
        if reason:
            return Completion(unfinished=reason)
        indices.swap(client, self._connection, self.alias, self.opened)
        return Completion(swapped=True, pruned=tuple(indices.prune(client, self._connection, self.alias, self.options.keep)))

    def _compare_policy(self, client: OpenSearch) -> None:
        now = policy_of(client, self._connection, self.index)
        if (now and now.digest) != (self.policy and self.policy.digest):
            self.say(
                "the index was given another word policy during this run: for what it wrote, say"
                f" stair-es policy {'apply' if now else 'rollback'} --index {self.alias}"
            )

    def _another_policy(self, client: OpenSearch, live: str) -> str:
        """Why the build must not take the place of the index that is searched: that one was steered, and this one was missed."""
        theirs, own = (policy_of(client, self._connection, name) for name in (live, self.index))
        if (theirs and theirs.digest) == (own and own.digest):
            return ""
        has = f"has the word policy {theirs.label}" if theirs else "has no word policy"
        return (
            f"alias {self.alias} still stands for {live}: it {has}, this build {own.label if own else 'none'}. Say stair-es"
            f" policy {'apply' if theirs else 'rollback'} --index {self.alias}, and run again"
        )

    def _unfinished(self, live: str, coverage: Coverage) -> str:
        if self.options.swap == "never":
            return f"--swap never: alias {self.alias} still stands for {live}"
        others, dead = self._missing(live, coverage)
        if others:
            some = ", ".join(f"{source} ({count:,})" for source, count in others.most_common(3))
            return (
                f"alias {self.alias} still stands for {live}: it has {others.total():,} images of sources that this build has not"
                f" seen, among them {some}. Ingest them with the same settings (the build goes on), or say --swap always"
            )
        if dead:
            return (
                f"alias {self.alias} still stands for {live}: {dead:,} of its images are dead in this build. Mend them and"
                " run again (the build goes on; see the dead letters), or say --swap always"
            )
        return ""

    def _missing(self, live: str, coverage: Coverage) -> tuple[Counter[str], int]:
        """Of the images of the old index that the new one lacks: those of sources not seen, and how many died in this run."""
        client, others, dead = _client(self._connection), Counter[str](), 0
        for part in in_parts(ledger.entries(client, self._connection, live), _PART):
            there = ledger.by_uri(client, self._connection, self.index, [entry.uri for entry in part])
            for entry in part:
                fate = coverage.fate(entry.uri)
                if entry.uri in there or fate == "taken":
                    continue
                if fate == "dead":
                    dead += 1
                elif entry.source not in coverage.sources:
                    others[entry.source] += 1
        return others, dead


class Kind:
    """See `SinkKind`."""

    name = "cluster"
    description = "an index behind an alias in OpenSearch or Elasticsearch"

    def open(self, plan: SinkPlan, say: Say) -> ClusterSession:
        """See `SinkKind`."""
        options, connection, target = self._begin(plan)
        client = _client(connection)
        body = index_body(target, plan.document, override=options.mapping)
        opened = indices.open_index(client, connection, plan.alias, body, plan.identity, say, plan.policy)
        if plan.document.id == "content" and not opened.created:
            indices.refresh(client, connection, opened.name)  # looking up by URI sees only what was refreshed
        if opened.under_way:
            say(
                f"{opened.name}: a policy {opened.under_way} is under way there, or was interrupted: unless it still runs, say"
                f" stair-es policy {opened.under_way} --index {plan.alias}"
            )
        return self._session(plan, options, connection, target, opened, say)

    def peek(self, plan: SinkPlan) -> ClusterSession | None:
        """See `SinkKind`."""
        options, connection, target = self._begin(plan)
        body = index_body(target, plan.document, override=options.mapping)
        opened = indices.find_index(_client(connection), connection, plan.alias, body, plan.identity, plan.policy)
        return self._session(plan, options, connection, target, opened, lambda _: None) if opened else None

    def _begin(self, plan: SinkPlan) -> tuple[_Options, Connection, Target]:
        if plan.connection is None:
            raise UsageError("the sink 'cluster' needs a connection", "Give --url.")
        return _Options.of(plan.options), plan.connection, probe(_client(plan.connection), plan.connection)

    def _session(
        self, plan: SinkPlan, options: _Options, connection: Connection, target: Target, opened: OpenIndex, say: Say
    ) -> ClusterSession:
        writer = ClusterWriter(
            connection=connection, index=opened.name, alias=plan.alias, write_alias=opened.write_alias, policy=plan.bulk
        )
        return ClusterSession(
            writer=writer,
            index=opened.name,
            fresh=opened.created,
            label=target.label,
            alias=plan.alias,
            opened=opened,
            options=options,
            began=plan.began,
            say=say,
            policy=opened.policy,
        )


KIND = Kind()

"""The built-in sink: an index behind an alias, in OpenSearch or Elasticsearch.

Options: `keep` (number of retired indices to retain, 1), `swap` (auto, always, never), `relax_replicas` (yes or no),
`mapping` (file with a custom index body), `words_index` (yes or no; by default what the index has).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from stair_es.cluster import index as indices
from stair_es.cluster import ledger
from stair_es.cluster.connect import Connection, Target, probe
from stair_es.cluster.index import OpenIndex
from stair_es.cluster.ledger import Entry
from stair_es.cluster.mapping import index_body
from stair_es.cluster.policy_state import policy_of
from stair_es.cluster.retry import RetryPolicy
from stair_es.cluster.target import check_neural_search
from stair_es.cluster.token_ids import TokenIds, read_token_ids
from stair_es.cluster.words_sync import WordsReport, reconcile
from stair_es.errors import ClusterError, UsageError
from stair_es.ingest.cluster_options import ClusterOptions, Wish, begin, wish
from stair_es.ingest.cluster_writer import ClusterWriter, client_of
from stair_es.ingest.parts import in_parts
from stair_es.ingest.sink import Completion, Coverage, Say, SinkPlan, WordsPlan
from stair_es.model.used_folders import remember_folder
from stair_es.policy import WordPolicy

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

_PART = 256


@dataclass(kw_only=True)
class ClusterSession:
    """The `SinkSession` of one run into an index."""

    writer: ClusterWriter
    index: str
    fresh: bool
    label: str
    alias: str
    opened: OpenIndex
    options: ClusterOptions
    began: str
    say: Say
    policy: WordPolicy | None
    """Token policy of the index at the start of the run."""
    token_ids: TokenIds | None
    """Token ids of the index under that policy; None if the index has none."""
    words: bool
    """Whether the index has a token index."""

    @property
    def _connection(self) -> Connection:
        return self.writer.connection

    @contextmanager
    def load(self) -> Iterator[None]:
        """Relax refreshes, and replicas if requested, during the load. A failed load also reports a changed policy."""
        client = client_of(self._connection)
        with indices.relaxed(client, self._connection, self.opened, replicas=self.options.relax_replicas, say=self.say):
            try:
                yield
            except BaseException:
                with suppress(ClusterError):  # the first error says more
                    self._compare_policy(client)
                raise

    def entries(self, sources: Sequence[str]) -> Iterator[Entry]:
        """Iterate over the documents of these sources that were stored before the run began."""
        return ledger.entries(client_of(self._connection), self._connection, self.index, sources=sources, before=self.began)

    def complete(self, coverage: Coverage) -> Completion:
        """Swap the alias if the new index has every image of the old one that still exists.

        The token index is synchronized first, so that both aliases move at once.

        Raises:
            IndexMismatch: If the alias points to another index by now, of another run or another program.
        """
        client = client_of(self._connection)
        indices.refresh(client, self._connection, self.index)
        self._compare_policy(client)
        words = self._words(client)
        completion = self._take_over(client, coverage)
        self._check_alias(client, self.opened.live if completion.unfinished else None)
        return replace(completion, words_index=words)

    def _words(self, client: OpenSearch) -> WordsReport | None:
        if not self.words:
            return None
        return reconcile(client, self._connection, self.alias, self.index, self.say, self.writer.policy)

    def _take_over(self, client: OpenSearch, coverage: Coverage) -> Completion:
        live = self.opened.live
        if live is None:
            return Completion()
        behind = self._check_alias(client, live)
        if behind == self.index:
            return Completion()  # swapped by a concurrent run
        if reason := self._explain_unfinished(client, coverage, behind):
            return Completion(unfinished=reason)
        indices.swap(client, self._connection, self.alias, self.opened)
        return Completion(swapped=True, pruned=tuple(indices.prune(client, self._connection, self.alias, self.options.keep)))

    def _explain_unfinished(self, client: OpenSearch, coverage: Coverage, behind: str) -> str:
        """Return why the alias must not be swapped to the new index; "" if it may be.

        Args:
            client: Client of the cluster.
            coverage: What this run has seen.
            behind: The alias target; "" if it was removed during the run. Then no searchable index is lost.
        """
        swap = self.options.swap
        if not behind:
            how = f"To point it to this one: PUT /{self.index}/_alias/{self.alias}"
            return f"--swap never: alias {self.alias} points to no index any more. {how}" if swap == "never" else ""
        reason = self._another_policy(client, behind)
        if reason or swap == "always":
            return reason
        if swap == "never":
            return f"--swap never: alias {self.alias} still points to {behind}"
        return self._explain_missing(behind, coverage)

    def _check_alias(self, client: OpenSearch, live: str | None) -> str:
        return indices.check_stands_for(client, self._connection, self.alias, self.index, live)

    def _compare_policy(self, client: OpenSearch) -> None:
        now = policy_of(client, self._connection, self.index)
        if (now and now.digest) != (self.policy and self.policy.digest):
            self.say(
                "the token policy of the index changed during this run: to update the documents that it wrote, run"
                f" stair-es policy {'apply' if now else 'rollback'} --index {self.alias}"
            )

    def _another_policy(self, client: OpenSearch, live: str) -> str:
        """Return why the policies forbid the swap: the searchable index has another token policy than the new one."""
        theirs, own = (policy_of(client, self._connection, name) for name in (live, self.index))
        if (theirs and theirs.digest) == (own and own.digest):
            return ""
        has = f"has the token policy {theirs.label}" if theirs else "has no token policy"
        return (
            f"alias {self.alias} still points to {live}: it {has}, this build {own.label if own else 'none'}. Run stair-es"
            f" policy {'apply' if theirs else 'rollback'} --index {self.alias}, and ingest again"
        )

    def _explain_missing(self, live: str, coverage: Coverage) -> str:
        others, dead = self._missing(live, coverage)
        if others:
            some = ", ".join(f"{source} ({count:,})" for source, count in others.most_common(3))
            return (
                f"alias {self.alias} still points to {live}: it has {others.total():,} images of sources that this build has not"
                f" seen, among them {some}. Ingest them with the same settings (it resumes), or use --swap always"
            )
        if dead:
            return (
                f"alias {self.alias} still points to {live}: {dead:,} of its images failed in this build. Fix them and"
                " ingest again (the build resumes; see the dead letters), or use --swap always"
            )
        return ""

    def _missing(self, live: str, coverage: Coverage) -> tuple[Counter[str], int]:
        """Count the images of the old index that the new one lacks: those of unseen sources, and those that failed now."""
        client, others, dead = client_of(self._connection), Counter[str](), 0
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
    """The sink kind `cluster`."""

    name = "cluster"
    description = "an index behind an alias in OpenSearch or Elasticsearch"

    def open(self, plan: SinkPlan, say: Say) -> ClusterSession:
        """Prepare an index for a run: create it, or resume the one that fits the plan."""
        asked = self._begin(plan)
        client, connection = client_of(asked.connection), asked.connection
        opened = indices.open_index(client, connection, plan.alias, asked.body, plan.identity, say, plan.policy)
        begin(client, connection, opened.name, asked.words, say)
        if plan.document.id == "content" and not opened.created:
            indices.refresh(client, connection, opened.name)  # lookups by URI only see refreshed documents
        if opened.under_way:
            say(
                f"{opened.name}: a policy {opened.under_way} is in progress there, or was interrupted: unless it still runs, run"
                f" stair-es policy {opened.under_way} --index {plan.alias}"
            )
        remember_folder(plan.identity.model_name)  # searches of this index find the model without --model
        return _session(plan, asked, opened, say)

    def peek(self, plan: SinkPlan) -> ClusterSession | None:
        """Return a session on the index that a run would write into, without changing it; None if the run would create one."""
        asked = self._begin(plan)
        opened = self._find(plan, asked)
        return _session(plan, asked, opened, lambda _: None) if opened else None

    def words(self, plan: SinkPlan) -> WordsPlan | None:
        """Return what a run would do to the token index; None if nothing."""
        asked = self._begin(plan)
        opened = self._find(plan, asked)
        return asked.words.plan(opened.name if opened else None)

    def _find(self, plan: SinkPlan, asked: _Asked) -> OpenIndex | None:
        client = client_of(asked.connection)
        return indices.find_index(client, asked.connection, plan.alias, asked.body, plan.identity, plan.policy)

    def _begin(self, plan: SinkPlan) -> _Asked:
        """Check everything that can be checked before the index is created or changed."""
        if plan.connection is None:
            raise UsageError("the sink 'cluster' needs a connection", "Give --url.")
        options, client = ClusterOptions.of(plan.options), client_of(plan.connection)
        target = probe(client, plan.connection, RetryPolicy())
        indices.check_alias(plan.alias)
        body = index_body(target, plan.document, override=options.mapping, largest_weight=plan.largest_weight)
        if plan.document.vector == "seismic":
            check_neural_search(client, plan.connection, target)
        fields = body.get("mappings", {}).get("properties", {})
        words = wish(client, plan.connection, plan.alias, options.words_index, fields)
        return _Asked(options=options, connection=plan.connection, target=target, body=body, words=words)


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """A plan resolved against the cluster."""

    options: ClusterOptions
    connection: Connection
    target: Target
    body: Mapping[str, Any]
    words: Wish


def _session(plan: SinkPlan, asked: _Asked, opened: OpenIndex, say: Say) -> ClusterSession:
    writer = ClusterWriter(connection=asked.connection, index=opened.name, policy=plan.bulk)
    token_ids = None
    if plan.document.vector == "seismic":
        token_ids = read_token_ids(client_of(asked.connection), asked.connection, opened.name).under(opened.policy)
    return ClusterSession(
        writer=writer,
        index=opened.name,
        fresh=opened.created,
        label=asked.target.label,
        alias=plan.alias,
        opened=opened,
        options=asked.options,
        began=plan.began,
        say=say,
        policy=opened.policy,
        token_ids=token_ids,
        words=asked.words.on,
    )


KIND = Kind()

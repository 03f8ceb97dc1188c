"""Another word policy for the documents that are in an index already, or none; each step can be repeated.

`_meta` says what is under way before the first document changes, and that it is done after the last one: whoever comes in
between, an ingest or a second run, finds there what is wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.connect import Connection, probe
from stair_es.cluster.identity import build_prefix, check_alias, ours
from stair_es.cluster.pages import count_of
from stair_es.cluster.policy_state import PolicyState, foreign_field, missing_fields, state_of
from stair_es.cluster.retry import persistently
from stair_es.cluster.steer_body import affected, script
from stair_es.cluster.steer_task import Pass, Speed, Task, check_scripts
from stair_es.cluster.swap import stands_for
from stair_es.cluster.token_ids import IDS_FIELD, Layout, no_table
from stair_es.cluster.words_index import look
from stair_es.cluster.words_sync import WordsReport, reconcile
from stair_es.errors import ClusterError, IndexMismatch, UsageError

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

    from stair_es.policy import WordPolicy

_IN_VAIN = 8
"""Passes in a row that may change nothing because others write the same documents."""
_MOST_FAILED = 10_000
_META_ATTEMPTS = 5


@dataclass(frozen=True, kw_only=True)
class Counts:
    """What became of the documents that a policy could have changed: examined = changed + unchanged + failed."""

    changed: int = 0
    unchanged: int = 0
    failed: Mapping[str, str] = field(default_factory=dict)
    """Id and reason."""
    words: WordsReport | None = None
    """What followed in the words index, where there is one."""

    @property
    def examined(self) -> int:
        """All of them."""
        return self.changed + self.unchanged + len(self.failed)


@dataclass(frozen=True, kw_only=True)
class Place:
    """An index behind an alias, as it was found."""

    name: str
    state: PolicyState
    layout: Layout
    properties: Mapping[str, Any]


class Steering:
    """The policies of the index behind one alias, and of the builds that are to replace it."""

    def __init__(self, client: OpenSearch, connection: Connection, alias: str) -> None:
        """Nothing is asked yet.

        Args:
            client: Of the cluster.
            connection: Of that client.
            alias: What people search.
        """
        self.client, self.connection, self.alias = client, connection, alias

    def places(self) -> list[Place]:
        """The index behind the alias first, then unfinished builds: they are to take its place with the same policy.

        Raises:
            IndexMismatch: There is no such alias, or it stands for something that isn't ours.
        """
        check_alias(self.alias)
        target = probe(self.client, self.connection)
        live = stands_for(self.client, self.connection, self.alias)
        if len(live) != 1:
            what = f"stands for several indices: {', '.join(live)}" if live else "is no alias on this cluster"
            raise IndexMismatch(f"{self.alias!r} {what}", "Name what `stair-es ingest --index NAME` made.")
        builds = stands_for(self.client, self.connection, build_prefix(self.alias) + "*")
        found = persistently(partial(self.client.indices.get, index=",".join([*live, *builds])), self.connection)
        if not ours(found[live[0]]):
            raise IndexMismatch(
                f"index {live[0]!r} behind alias {self.alias!r} was not made by stair-es", "Name what `stair-es ingest` made."
            )
        return [_place(name, found[name], target.max_clauses) for name in [*live, *builds] if ours(found[name])]

    def apply(
        self, policy: WordPolicy | None, speed: Speed, say: Callable[[str], None], progress: Callable[[Pass], None]
    ) -> dict[str, Counts]:
        """Give every document `policy`, or what the index says its policy is; returns the counts of each index.

        Raises:
            UsageError: No policy is given, and the index has none.
            IndexMismatch: Documents have columns that are called like the fields of a policy. Nothing was changed.
            UnsupportedTarget: The cluster can't run the script. Nothing was changed.
            ClusterError: It failed, or the documents change faster than they can be steered. Run it again.
        """
        places = self.places()
        policy = policy or places[0].state.policy
        if policy is None:
            raise UsageError(f"{self.alias!r} has no policy", "Name one: stair-es policy apply FILE")
        return self._steer_all(places, policy, speed, say, progress)

    def rollback(self, speed: Speed, say: Callable[[str], None], progress: Callable[[Pass], None]) -> dict[str, Counts]:
        """Give every document its original vector back, exactly; returns the counts of each index.

        Raises:
            IndexMismatch: Documents have columns that are called like the fields of a policy. Nothing was changed.
            UnsupportedTarget: The cluster can't run the script. Nothing was changed.
            ClusterError: It failed, or the documents change faster than they can be steered. Run it again.
        """
        return self._steer_all(self.places(), None, speed, say, progress)

    def carrying(self, place: Place) -> dict[str, int]:
        """Documents by the digest of the policy that changed them."""
        if foreign_field(place.properties):
            return {}
        body = {"size": 0, "aggs": {"policies": {"terms": {"field": "policy", "size": 100}}}}
        answer = persistently(partial(self.client.search, index=place.name, body=body), self.connection)
        return {bucket["key"]: bucket["doc_count"] for bucket in answer["aggregations"]["policies"]["buckets"]}

    def emptied(self, place: Place) -> int:
        """Documents that their policy has left no word."""
        if foreign_field(place.properties):
            return 0
        query = {"bool": {"filter": [{"exists": {"field": "policy"}}], "must_not": [{"exists": {"field": "top_tokens"}}]}}
        return count_of(self.client, self.connection, place.name, query)

    def _steer_all(
        self,
        places: list[Place],
        policy: WordPolicy | None,
        speed: Speed,
        say: Callable[[str], None],
        progress: Callable[[Pass], None],
    ) -> dict[str, Counts]:
        """Looks again at the end: a build may have begun before `_meta` named the policy that it was to inherit."""
        check_scripts(self.client, self.connection)
        done: dict[str, Counts] = {}
        while places:
            for place in places:
                missing_fields(place.properties, f"index {place.name!r}")
                if IDS_FIELD in place.properties and place.layout.token_ids is None:
                    raise no_table(place.name)  # the field would go on saying what `tokens` doesn't any more
            done |= {place.name: self._steer(place, policy, speed, say, progress) for place in places}
            places = [place for place in self.places() if place.name not in done]
        return self._followed(done, say)

    def _followed(self, done: dict[str, Counts], say: Callable[[str], None]) -> dict[str, Counts]:
        """The words indices come last: a run that ends before them leaves what the next one, or an ingest, finds and mends."""
        if not look(self.client, self.connection, self.alias).on:
            return done
        return {
            name: replace(counts, words=reconcile(self.client, self.connection, self.alias, name, say))
            for name, counts in done.items()
        }

    def _steer(
        self,
        place: Place,
        policy: WordPolicy | None,
        speed: Speed,
        say: Callable[[str], None],
        progress: Callable[[Pass], None],
    ) -> Counts:
        if place.state.under_way:
            say(f"{place.name}: an earlier {place.state.under_way} has not ended; this run does it all")
        fields = missing_fields(place.properties, f"index {place.name!r}") if policy else {}
        task = Task(client=self.client, connection=self.connection, index=place.name, speed=speed, progress=progress, say=say)
        task.call_off()
        task.check(script(policy, place.layout))
        self._note(place.name, PolicyState(policy=policy, under_way="apply" if policy else "rollback"), fields)
        counts = self._passes(task, policy, place.layout)
        persistently(partial(self.client.indices.refresh, index=place.name), self.connection)
        if not counts.failed:
            self._note(place.name, PolicyState(policy=policy), {})
        return counts

    @staticmethod
    def _passes(task: Task, policy: WordPolicy | None, layout: Layout) -> Counts:
        """Again and again until a pass went through without a conflict: then every document has been seen as it is."""
        changed, vain, failed, steers = 0, 0, dict[str, str](), script(policy, layout)
        while True:
            done = task.run({"query": affected(policy, layout, failed), "script": steers})
            changed += done.changed
            failed.update(done.failed)
            if done.complete and not done.conflicts:
                return Counts(changed=changed, unchanged=done.unchanged, failed=failed)
            vain = 0 if done.changed or done.failed else vain + 1
            if vain == _IN_VAIN:
                why = f"{done.conflicts:,} documents of {task.index} are written by someone else all the time"
                raise ClusterError(
                    why if done.conflicts else f"the cluster ends the updates of {task.index} before they are complete",
                    "Wait until what else works on it has ended, and run it again: it goes on from there.",
                )
            if len(failed) > _MOST_FAILED:
                raise ClusterError(
                    f"more than {_MOST_FAILED:,} documents fail, one with: {next(iter(failed.values()))}",
                    "Mend what that says, and run it again: it goes on from there.",
                )
            if vain:
                task.sleep(0.1 * 2**vain)

    def _note(self, name: str, state: PolicyState, fields: Mapping[str, Any]) -> None:
        """Write the state down. All of `_meta` goes with each change of it, so another's write may have taken ours back."""
        for _ in range(_META_ATTEMPTS):
            found = persistently(partial(self.client.indices.get_mapping, index=name), self.connection)[name]
            if not fields and state_of(found, name) == state:
                return
            meta = found["mappings"].get("_meta", {})
            about = {key: value for key, value in meta.get("stair_es", {}).items() if key != "policy"}
            about |= {"policy": state.to_json()} if state.to_json() else {}
            body = {"_meta": {**meta, "stair_es": about}, **({"properties": dict(fields)} if fields else {})}
            persistently(partial(self.client.indices.put_mapping, index=name, body=body), self.connection)
            fields = {}
        raise ClusterError(f"someone else changes the _meta of {name} all the time", "Run it again.")


def _place(name: str, index: Mapping[str, Any], max_clauses: int) -> Place:
    return Place(
        name=name,
        state=state_of(index, name),
        layout=Layout.of(index, max_clauses),
        properties=index["mappings"].get("properties", {}),
    )

"""The common parts of the kinds of rounds: the testbed, and the result of a round."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from support.nodes.node_process import SearchNode
from support.servers.fault_proxy import FaultProxy, Plan, Response

from stair_es.errors import StairError
from stair_es.ingest.accounting.report import IngestReport

from .cluster_state import Cluster, Counts, count_errors
from .command import Command, CommandResult, run_in_process
from .corpus import MODEL_ID, Corpus
from .disk import Disk
from .ray_cluster import RayCluster, start_ray_cluster
from .trigger import Moment, Trigger

FOREIGN = "someone-else"
"""Prefix of the index of another program, before the name of the run's alias."""


@dataclass
class Testbed:
    """Where rounds run."""

    corpus: Corpus
    scratch: Path
    """Folder for other files of a round."""
    random: random.Random
    cluster: Cluster
    nodes: list[SearchNode] = field(default_factory=list)
    """Nodes that may be killed; empty for a cluster of the user."""
    disk: Disk | None = None
    """The small disk with the data of the node, if there is one."""
    stack: ExitStack = field(default_factory=ExitStack)
    """Resources to close at the end of the rounds."""
    requests: int = 0
    """Number of requests of an undisturbed run."""
    bulks: int = 0
    """Number of requests that write documents."""

    @cached_property
    def ray(self) -> RayCluster:
        """A Ray cluster, started for the first round that needs it."""
        return self.stack.enter_context(start_ray_cluster(self.corpus.environment))

    def draw_number(self, highest: int) -> int:
        """Draw a number from 1 to `highest`."""
        return self.random.randint(1, max(1, highest))

    def draw_moment(self) -> Moment:
        """Draw `before` or `after`."""
        return self.random.choice(("before", "after"))

    @contextmanager
    def start_proxies(self, plan: Plan) -> Iterator[str]:
        """Start a proxy in front of each node, with one plan for all; yield their URLs. A node that is down resets all."""
        urls = [node.url for node in self.nodes] or [self.cluster.url]
        with ExitStack() as stack:
            proxies = [stack.enter_context(FaultProxy(url, plan, away=Response(is_reset=True))) for url in urls]
            yield ",".join(proxy.url for proxy in proxies)

    def trigger_at_request(self, act: Callable[[], None]) -> Trigger:
        """Return a plan that calls `act` at a random request of the run."""
        return Trigger(self.draw_number(self.requests), act, self.draw_moment())

    def trigger_at_bulk(self, act: Callable[[], None]) -> Trigger:
        """Return a plan that calls `act` before a random bulk request, while all others wait."""
        return Trigger(self.draw_number(self.bulks), act, is_counted=lambda request: request.is_bulk)

    def start_run(self, url: str, index: str) -> Command:
        """Start the command, with the URL of a proxy."""
        return Command(self.corpus, url, index)

    def rerun(self, index: str, *more: Path) -> IngestReport:
        """Repeat the run in this process and without a proxy.

        Raises:
            StairError: If it failed.
        """
        url = ",".join(node.url for node in self.nodes) or self.cluster.url
        return run_in_process([self.corpus.images, *more], url, index, self.scratch / f"{index}.jsonl")


@dataclass
class Round:
    """The result of one round."""

    first: CommandResult
    """The disturbed run."""
    counts: Counts = field(default_factory=Counts)
    wrong: list[str] = field(default_factory=list)
    """Failed checks other than those in `counts`."""
    seconds: float = 0.0

    @property
    def is_completed(self) -> bool:
        """Whether the disturbed run completed without a rerun."""
        return self.first.code == 0


@dataclass(frozen=True)
class Disturbance:
    """The effects of a disturbance, for the checks."""

    ended: CommandResult
    wrong: tuple[str, ...] = ()
    repair: Callable[[], None] = lambda: None
    """Repair to do before the rerun, as a user would."""
    foreign: str = ""
    """An index of another program with one document."""
    more: tuple[Path, ...] = ()
    """Additional sources with broken files."""


Disturb: TypeAlias = Callable[[Testbed, str, int], Disturbance]
"""Called with a testbed, an index and the number of the round."""


def run_round(disturb: Disturb, testbed: Testbed, index: str, number: int) -> Round:
    """Disturb a run, check, repair, run again, check again, and clean up."""
    done = disturb(testbed, index, number)
    found = Round(done.ended, wrong=[*done.ended.wrong, *done.wrong])
    found.counts += _check_disturbed(testbed, index, done)
    done.repair()
    _check_rerun(testbed, index, done, found)
    testbed.cluster.delete([*testbed.cluster.list_indices(index), *filter(None, [done.foreign])])
    return found


def _count_errors(testbed: Testbed, index: str) -> Counts:
    return count_errors(testbed.cluster.read_documents(index), testbed.corpus.uris, testbed.cluster.get_model(index))


def _check_disturbed(testbed: Testbed, index: str, done: Disturbance) -> Counts:
    """Check right after the disturbed run that the reported documents are there, and no others."""
    report, stored, counts = done.ended.report, set[str](), Counts()
    if done.foreign:
        counts += Counts(unexpected=len(testbed.cluster.read_documents(done.foreign)) - 1)
    for name in testbed.cluster.list_indices(index):
        model, documents = testbed.cluster.get_model(name), testbed.cluster.read_documents(name)
        counts += Counts(unexpected=sum(each.get("model") != model for each in documents))
        if model == MODEL_ID:
            stored |= {str(each["uri"]) for each in documents}
    if done.ended.code == 0:
        return counts + Counts(lost=_count_errors(testbed, str(report["index"])).lost)
    claimed = int(report.get("written", 0)) + int(report.get("unchanged", 0))
    return counts + Counts(lost=max(0, claimed - len(stored)))


def _check_rerun(testbed: Testbed, index: str, done: Disturbance, found: Round) -> None:
    images, broken = len(testbed.corpus.uris), sum(1 for folder in done.more for _ in folder.iterdir())
    try:
        report = testbed.rerun(index, *done.more)
        again = testbed.rerun(index)
    except StairError as error:
        found.wrong.append(f"the rerun failed: {error}")
        found.counts += Counts(lost=images)
        return
    if (report.seen, report.written + report.unchanged, report.failed) != (images + broken, images, broken):
        found.wrong.append(f"the rerun counts {report.written} written, {report.unchanged} unchanged, {report.failed} failed")
    if again.unchanged != images:
        found.wrong.append(f"a second rerun wrote {again.written} again")
    targets = list(testbed.cluster.get_alias_targets(index))
    if targets != [again.index]:
        found.wrong.append(f"the alias points to {targets}, the run wrote {again.index}")
    settings = testbed.cluster.request_json("GET", f"/{again.index}/_settings?flat_settings=true")[again.index]["settings"]
    if settings.get("index.refresh_interval") == "-1":
        found.wrong.append("refresh_interval was left at -1")
    found.counts += _count_errors(testbed, again.index)

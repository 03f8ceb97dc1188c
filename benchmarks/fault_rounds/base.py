"""What the kinds of rounds have in common: where they run, and what a round comes to."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

from support.nodes.node_process import SearchNode
from support.servers.fault_proxy import FaultProxy, Plan, Reply

from stair_es.errors import StairError
from stair_es.ingest.accounting.report import IngestReport

from .command import Command, Ended, run_within
from .corpus import MODEL_ID, Corpus
from .disk import Disk
from .ray_cluster import RayCluster, ray_cluster
from .trigger import At, Moment
from .truth import Cluster, Counts, compare

FOREIGN = "someone-else"
"""What somebody else's index is called: behind the name of the run's alias."""


@dataclass
class Place:
    """Where the rounds of a lane run."""

    corpus: Corpus
    scratch: Path
    """A folder for what a round needs besides."""
    random: random.Random
    cluster: Cluster
    nodes: list[SearchNode] = field(default_factory=list)
    """Those that may be killed; none where the cluster isn't ours."""
    disk: Disk | None = None
    """What the node's data lie on, if that is small."""
    stack: ExitStack = field(default_factory=ExitStack)
    """What ends with the lane."""
    requests: int = 0
    """How many an undisturbed run makes."""
    bulks: int = 0
    """How many of them write documents."""

    @cached_property
    def ray(self) -> RayCluster:
        """A Ray cluster, started for the first round that wants it."""
        return self.stack.enter_context(ray_cluster(self.corpus.environment))

    def pick(self, highest: int) -> int:
        """A number from 1."""
        return self.random.randint(1, max(1, highest))

    def moment(self) -> Moment:
        """Before or after."""
        return self.random.choice(("before", "after"))

    @contextmanager
    def between(self, plan: Plan) -> Iterator[str]:
        """A proxy in front of each node, with one plan for all; gives their URLs. A node that is away resets connections."""
        urls = [node.url for node in self.nodes] or [self.cluster.url]
        with ExitStack() as stack:
            proxies = [stack.enter_context(FaultProxy(url, plan, away=Reply(is_reset=True))) for url in urls]
            yield ",".join(proxy.url for proxy in proxies)

    def at_any_request(self, act: Callable[[], None]) -> At:
        """`act` at a request of the run that is drawn by lot."""
        return At(self.pick(self.requests), act, self.moment())

    def at_any_bulk(self, act: Callable[[], None]) -> At:
        """`act` before a bulk request that is drawn by lot, while all others wait."""
        return At(self.pick(self.bulks), act, is_counted=lambda request: request.is_bulk)

    def start(self, url: str, index: str) -> Command:
        """The command, through a proxy."""
        return Command(self.corpus, url, index)

    def rerun(self, index: str, *more: Path) -> IngestReport:
        """The same run again, in this process and straight to the cluster.

        Raises:
            StairError: It failed.
        """
        url = ",".join(node.url for node in self.nodes) or self.cluster.url
        return run_within([self.corpus.images, *more], url, index, self.scratch / f"{index}.jsonl")


@dataclass
class Round:
    """What one round came to."""

    first: Ended
    """The disturbed run."""
    counts: Counts = field(default_factory=Counts)
    wrong: list[str] = field(default_factory=list)
    """Failed checks; whatever is in `counts` is not in here."""
    seconds: float = 0.0

    @property
    def went_on(self) -> bool:
        """Whether the disturbed run did all by itself."""
        return self.first.code == 0


@dataclass(frozen=True)
class Disturbed:
    """What an act leaves behind, for the checks."""

    ended: Ended
    wrong: tuple[str, ...] = ()
    repair: Callable[[], None] = lambda: None
    """What a person would do before the rerun."""
    foreign: str = ""
    """An index of somebody else's that holds one document."""
    more: tuple[Path, ...] = ()
    """Further sources, of files that are broken."""


Act: TypeAlias = Callable[[Place, str, int], Disturbed]
"""Of a place, an index and the number of the round."""


def play(act: Act, place: Place, index: str, turn: int) -> Round:
    """Disturb a run, look, repair, run again, look again, and clean up."""
    done = act(place, index, turn)
    found = Round(done.ended, wrong=[*done.ended.wrong, *done.wrong])
    found.counts += _look(place, index, done)
    done.repair()
    _check_rerun(place, index, done, found)
    place.cluster.delete([*place.cluster.indices_of(index), *filter(None, [done.foreign])])
    return found


def _stored(place: Place, index: str) -> Counts:
    return compare(place.cluster.documents(index), place.corpus.wanted, place.cluster.model_of(index))


def _look(place: Place, index: str, done: Disturbed) -> Counts:
    """Right after the disturbed run: is there what it said, and nothing where it doesn't belong?"""
    report, stored, counts = done.ended.report, set[str](), Counts()
    if done.foreign:
        counts += Counts(foreign=len(place.cluster.documents(done.foreign)) - 1)
    for name in place.cluster.indices_of(index):
        model, documents = place.cluster.model_of(name), place.cluster.documents(name)
        counts += Counts(foreign=sum(each.get("model") != model for each in documents))
        if model == MODEL_ID:
            stored |= {str(each["uri"]) for each in documents}
    if done.ended.code == 0:
        return counts + Counts(lost=_stored(place, str(report["index"])).lost)
    claimed = int(report.get("written", 0)) + int(report.get("unchanged", 0))
    return counts + Counts(lost=max(0, claimed - len(stored)))


def _check_rerun(place: Place, index: str, done: Disturbed, found: Round) -> None:
    images, broken = len(place.corpus.wanted), sum(1 for folder in done.more for _ in folder.iterdir())
    try:
        report = place.rerun(index, *done.more)
        again = place.rerun(index)
    except StairError as error:
        found.wrong.append(f"the rerun failed: {error}")
        found.counts += Counts(lost=images)
        return
    if (report.seen, report.written + report.unchanged, report.failed) != (images + broken, images, broken):
        found.wrong.append(f"the rerun counts {report.written} written, {report.unchanged} unchanged, {report.failed} dead")
    if again.unchanged != images:
        found.wrong.append(f"a second rerun wrote {again.written} again")
    behind = list(place.cluster.behind(index))
    if behind != [again.index]:
        found.wrong.append(f"the alias stands for {behind}, the run wrote {again.index}")
    settings = place.cluster.ask("GET", f"/{again.index}/_settings?flat_settings=true")[again.index]["settings"]
    if settings.get("index.refresh_interval") == "-1":
        found.wrong.append("refresh_interval was left at -1")
    found.counts += _stored(place, again.index)

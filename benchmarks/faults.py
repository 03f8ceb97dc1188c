"""Kill -9 at random moments of an ingest, then a rerun: is every image in the index exactly once, do the counts add up?

    python benchmarks/faults.py                            # 5 rounds of 600 images
    python benchmarks/faults.py --rounds 100 --images 3000 # the long form: hours
    python benchmarks/faults.py --only driver,worker --seed 7

`driver`: the `stair-es ingest` process. `worker`: a process of Ray's that runs a stage. `node`: the only node, started again
two seconds later. `one of three`: a node of a cluster of three with one replica, started again after the run. `proxy`: nobody
is killed, but a proxy in front of the node answers with 429, 503, 413, half answers, cut connections and pages; its overhead
is printed.

After each round a rerun must find nothing to write, and each document must be there once, behind a valid alias. A failed
check is counted and shown, and makes the exit code 1.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from common import corpus, options, publish
from faults_check import check, finish, ingest
from result import Ratio, Result, Table

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))

from fault_proxy import FaultProxy, Storm
from search_nodes import Cluster, SearchNode, opensearch_cluster

SCENARIOS = ("driver", "worker", "node", "one of three", "proxy")
_RESTART_AFTER_S = 2.0
_DONE = (0,)
_STAGES = ("ray::_RayEncoder", "ray::prepare_batch", "ray::check_batch", "ray::_write")


@dataclass
class Tally:
    """What the rounds of one scenario came to."""

    rounds: int = 0
    interrupted: int = 0
    """Rounds in which the first run ended without success: the rerun had to finish it."""
    went_on: int = 0
    """Rounds in which the run went through by itself."""
    repeated: int = 0
    """Bulk requests that were repeated."""
    wrong: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class World:
    """What all rounds share."""

    photos: Path
    images: int
    clean_s: float
    """How long an undisturbed run takes."""
    random: random.Random


def _moment(world: World, start_s: float = 0.0) -> float:
    return start_s + world.random.uniform(0.05, 1.0) * world.clean_s


def driver(world: World, url: str, index: str, tally: Tally) -> None:
    """Kill the command."""
    process = ingest(url, index, world.photos, "--runner", "local")
    time.sleep(_moment(world))
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        tally.interrupted += 1
    else:
        process.communicate()
        tally.went_on += 1


def worker(world: World, url: str, index: str, tally: Tally) -> None:
    """Kill one of Ray's workers that has a stage of ours in hand; the run must go on by itself."""
    process = ingest(url, index, world.photos, "--runner", "ray")
    wait_s, start = _moment(world), None
    while process.poll() is None:
        ours = _stage_workers(process.pid)
        start = start or (time.monotonic() if ours else None)
        if ours and start and time.monotonic() - start > wait_s / 2:
            world.random.choice(ours).kill()
            break
        time.sleep(0.05)
    code, report = finish(process)
    _went(code, report, tally)


def _stage_workers(pid: int) -> list[psutil.Process]:
    """Ray names a worker after the task or actor that it runs."""
    try:
        children = psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in children:
        try:
            title = " ".join(child.cmdline())
        except psutil.Error:
            continue
        if title.startswith(_STAGES):
            found.append(child)
    return found


def _went(code: int, report: dict[str, Any], tally: Tally) -> None:
    if code in _DONE:
        tally.went_on += 1
        tally.repeated += report["bulk_busy"]
    else:
        tally.interrupted += 1


def node(world: World, single: SearchNode, index: str, tally: Tally) -> None:
    """Kill the node, and start it again."""
    process = ingest(single.url, index, world.photos, "--runner", "local")
    time.sleep(_moment(world, 1.0))
    single.kill()
    time.sleep(_RESTART_AFTER_S)
    single.start()
    _went(*finish(process), tally)


def one_of_three(world: World, three: Cluster, index: str, tally: Tally) -> None:
    """Kill a node of three."""
    process = ingest(three.url, index, world.photos, "--runner", "local")
    time.sleep(_moment(world, 1.0))
    world.random.choice(three.nodes).kill()
    _went(*finish(process), tally)
    three.start()


def proxy(world: World, url: str, index: str, tally: Tally) -> None:
    """A bad network between the command and the node."""
    with FaultProxy(url, Storm(seed=world.random.randrange(1 << 30))) as between:
        process = ingest(between.url, index, world.photos, "--runner", "local")
        _went(*finish(process), tally)
        print(f"    faults: {dict(between.counts)}", file=sys.stderr)


@contextmanager
def single_node() -> Iterator[SearchNode]:
    """A node of its own, that may be killed."""
    with tempfile.TemporaryDirectory(prefix="stair-es-faults-") as base:
        cluster = opensearch_cluster(Path(base), size=1, heap="512m")
        with cluster:
            yield cluster.nodes[0]


def main() -> None:
    """Run and print."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=600)
    parser.add_argument("--only", default=",".join(SCENARIOS), help=f"some of: {', '.join(SCENARIOS)}")
    parser.add_argument("--seed", type=int, default=None)
    arguments = parser.parse_args()
    seed = arguments.seed if arguments.seed is not None else random.randrange(1 << 30)
    wanted = [name.strip() for name in arguments.only.split(",")]
    if set(wanted) - set(SCENARIOS):
        parser.error(f"--only takes some of: {', '.join(SCENARIOS)}")

    tallies: dict[str, Tally] = {name: Tally() for name in SCENARIOS if name in wanted}
    with ExitStack() as stack:
        photos = stack.enter_context(corpus(arguments.images))
        single = stack.enter_context(single_node())
        start = time.perf_counter()
        code, report = finish(ingest(single.url, "clean", photos, "--runner", "local"))
        if code:
            raise SystemExit(f"an undisturbed run failed: {report}")
        world = World(photos, arguments.images, time.perf_counter() - start, random.Random(seed))
        three: Cluster | None = None
        if "one of three" in tallies:
            base = stack.enter_context(tempfile.TemporaryDirectory(prefix="stair-es-faults-"))
            three = stack.enter_context(opensearch_cluster(Path(base)))
        acts: dict[str, Callable[[str, Tally], None]] = {
            "driver": lambda index, tally: driver(world, single.url, index, tally),
            "worker": lambda index, tally: worker(world, single.url, index, tally),
            "node": lambda index, tally: node(world, single, index, tally),
            "one of three": lambda index, tally: one_of_three(world, three, index, tally),  # type: ignore[arg-type]
            "proxy": lambda index, tally: proxy(world, single.url, index, tally),
        }
        for turn in range(arguments.rounds):
            for name, tally in tallies.items():
                url = three.url if name == "one of three" and three else single.url
                index = f"{name.replace(' ', '-')}-{turn}"
                start = time.perf_counter()
                acts[name](index, tally)
                tally.seconds.append(time.perf_counter() - start)
                wrong = check(url, index, photos)
                tally.wrong += wrong
                tally.rounds += 1
                print(f"round {turn + 1}, {name}: {'; '.join(wrong) or 'every image once'}", file=sys.stderr)
    publish(result(tallies, world, seed), arguments.json)
    if any(tally.wrong for tally in tallies.values()):
        raise SystemExit(1)


def result(tallies: dict[str, Tally], world: World, seed: int) -> Result:
    """A line a kind of death."""
    rows = []
    for name, tally in tallies.items():
        times = sum(tally.seconds) / len(tally.seconds) / world.clean_s
        counts = (tally.rounds, tally.went_on, tally.interrupted, tally.repeated)
        rows.append((name, *map(str, counts), f"{times:.2f}", str(len(tally.wrong))))
    wrong, rounds = (sum(counts) for counts in zip(*((len(t.wrong), t.rounds) for t in tallies.values()), strict=True))
    return Result(
        about=f"{world.images} images a round, {world.clean_s:.1f} s undisturbed, seed {seed}",
        tables=(Table(head=("killed", "rounds", "went on", "by rerun", "repeated", "time x", "wrong"), rows=tuple(rows)),),
        ratios=(
            Ratio(what=f"checks that failed after a death, in {rounds} rounds", against="", value=wrong, goal=0, at_most=True),
        ),
        remarks=(
            "went on: the run finished by itself; by rerun: it was cut off, the next run finished it; wrong: checks that failed",
            *(f"{name}: {what}" for name, tally in tallies.items() for what in tally.wrong),
        ),
        figures={
            "images": world.images,
            "seed": seed,
            "clean_s": world.clean_s,
            "rows": {name: vars(tally) for name, tally in tallies.items()},
        },
    )


if __name__ == "__main__":
    main()

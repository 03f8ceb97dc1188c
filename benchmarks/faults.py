"""Deaths, bad networks, moved aliases and full disks in the middle of an ingest: is anything lost, doubled, foreign?

    python benchmarks/faults.py                                            # a round of each kind: about a minute
    python benchmarks/faults.py --rounds 100 --page docs/faults.md         # the long form
    python benchmarks/faults.py --rounds 10 --kinds driver,swap --seed 7
    python benchmarks/faults.py --rounds 100 --minutes 30                  # as many rounds as begin within half an hour

A round disturbs a `stair-es ingest` at a moment that is drawn by lot from the requests that it makes, counts what is in each
index by its own name, runs the ingest again, and counts again. `docs/faults.md` says what the kinds are and what is checked.
Anything lost, doubled, foreign or else wrong makes the exit code 1. Ctrl-C ends it after the rounds that are under way.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path

from common import add_url, options, publish

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_rounds.base import Round
from fault_rounds.corpus import make_corpus
from fault_rounds.disk import can_mount
from fault_rounds.kinds import KINDS
from fault_rounds.lanes import Plan, play_all
from fault_rounds.page import write_page
from fault_rounds.tally import Tally, is_clean, make_result
from fault_rounds.truth import Counts
from page.machine import facts, load

ROOT = Path(__file__).parents[1]
_UNMOUNTABLE = "node-disk was left out: it needs a small disk, and this process may not mount one"


class Progress:
    """Tallies, and a line a round."""

    def __init__(self, kinds: list[str], rounds: int) -> None:
        self.tallies = {kind: Tally() for kind in kinds}
        self._all, self._start, self._lock = len(kinds) * rounds, time.monotonic(), threading.Lock()

    def report(self, kind: str, turn: int, played: Round) -> None:
        """Take in one, and say so."""
        with self._lock:
            self.tallies[kind].add(played)
            done = sum(tally.rounds for tally in self.tallies.values())
            left_s = (time.monotonic() - self._start) / done * (self._all - done)
            bad = [f"{n} {what}" for what, n in vars(played.counts).items() if n] if played.counts != Counts() else []
            how = "went on" if played.went_on else f"finished by the rerun; first {played.first.code} {played.first.error}"
            said = "; ".join([*bad, *played.wrong]) or how
            print(
                f"{done}/{self._all} {kind} {turn}: {said} ({played.seconds:.1f} s; {left_s / 60:.0f} min left)", file=sys.stderr
            )


def main() -> None:
    """Run and print."""
    parser = options(__doc__)
    add_url(parser)
    parser.add_argument("--rounds", type=int, default=1, help="of each kind (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of: %(default)s")
    parser.add_argument("--images", type=int, default=120, help="of a run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="begin no round after so long")
    parser.add_argument("--page", type=Path, metavar="FILE", help="write the table into this page of the docs too")
    given = parser.parse_args()
    wanted = [name.strip() for name in given.kinds.split(",")]
    if set(wanted) - set(KINDS):
        parser.error(f"--kinds takes some of: {', '.join(KINDS)}")
    if given.page and not given.page.is_file():
        parser.error(f"there is no {given.page}")
    kinds = [name for name in KINDS if name in wanted and (can_mount() or not KINDS[name].small_disk)]
    seed = given.seed if given.seed is not None else random.randrange(1 << 30)
    is_over = _end(given.minutes)
    machine, before, began = facts(ROOT), load(), _now()
    progress = Progress(kinds, given.rounds)
    with tempfile.TemporaryDirectory(prefix="stair-es-faults-") as folder:
        corpus = make_corpus(Path(folder), given.images)
        play_all(Plan(kinds, given.rounds, seed, given.url, is_over), corpus, Path(folder), progress.report)
    remarks = [_UNMOUNTABLE] if set(wanted) - set(kinds) else []
    about = f"{given.images} images a run; seed {seed}"
    result = make_result(progress.tallies, about, remarks, {"seed": seed, "began": began, "ended": _now()})
    publish(result, given.json)
    if given.page:
        write_page(given.page, result, _describe_command(given, kinds, seed), machine, (before, load()))
    if not is_clean(progress.tallies):
        raise SystemExit(1)


def _end(minutes: float | None) -> Callable[[], bool]:
    """After so long, or after SIGINT or SIGTERM; a second one ends the program at once."""
    stopped, start = threading.Event(), time.monotonic()

    def stop(number: int, _: object) -> None:
        stopped.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return lambda: stopped.is_set() or (minutes is not None and time.monotonic() > start + 60 * minutes)


def _describe_command(given: argparse.Namespace, kinds: list[str], seed: int) -> str:
    """What gives the same rounds again, without the files of this machine."""
    minutes = "" if given.minutes is None else f" --minutes {given.minutes:g}"
    some = "" if kinds == list(KINDS) else f" --kinds {','.join(kinds)}"
    return f"benchmarks/faults.py --rounds {given.rounds}{minutes}{some} --images {given.images} --seed {seed}"


def _now() -> str:
    return datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    main()

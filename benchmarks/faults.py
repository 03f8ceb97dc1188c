"""Kill, disconnect and redirect ingests, and fill their disks, and check that nothing is lost, duplicated or unexpected.

    python benchmarks/faults.py                                            # one round of each kind: about a minute
    python benchmarks/faults.py --rounds 100 --page docs/faults.md         # the long run
    python benchmarks/faults.py --rounds 10 --kinds driver,swap --seed 7
    python benchmarks/faults.py --rounds 100 --minutes 30                  # as many rounds as begin within half an hour

A round disturbs a `stair-es ingest` at a random request, counts the documents of each index by its own name, runs the ingest
again, and counts again. `docs/faults.md` describes the kinds and the checks. The exit status is 1 if anything was lost,
duplicated or unexpected, or if another check failed. Ctrl-C ends the program after the current rounds.
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
from datetime import UTC, datetime
from pathlib import Path

from harness.program import add_url_option, build_parser, publish_result

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from fault_rounds.base import Round
from fault_rounds.cluster_state import Counts
from fault_rounds.corpus import make_corpus
from fault_rounds.disk import can_mount
from fault_rounds.kinds import KINDS
from fault_rounds.report import Tally, build_result, is_clean, write_page
from fault_rounds.runner import Plan, run_rounds
from page.machine import read_load, read_machine

ROOT = Path(__file__).parents[1]
_UNMOUNTABLE = "node-disk was skipped: it needs a small disk, and this process may not mount one"


class Progress:
    """Tallies of the rounds, with a printed line for each round."""

    def __init__(self, kinds: list[str], rounds: int) -> None:
        self.tallies = {kind: Tally() for kind in kinds}
        self._all, self._start, self._lock = len(kinds) * rounds, time.monotonic(), threading.Lock()

    def report(self, kind: str, number: int, result: Round) -> None:
        """Add a round, and print a line."""
        with self._lock:
            self.tallies[kind].add(result)
            done = sum(tally.rounds for tally in self.tallies.values())
            left_s = (time.monotonic() - self._start) / done * (self._all - done)
            bad = [f"{n} {what}" for what, n in vars(result.counts).items() if n] if result.counts != Counts() else []
            how = "completed" if result.is_completed else f"finished by the rerun; first {result.first.code} {result.first.error}"
            text = "; ".join([*bad, *result.wrong]) or how
            print(
                f"{done}/{self._all} {kind} {number}: {text} ({result.seconds:.1f} s; {left_s / 60:.0f} min left)",
                file=sys.stderr,
            )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--rounds", type=int, default=1, help="of each kind (default: %(default)s)")
    parser.add_argument("--kinds", default=",".join(KINDS), help="some of: %(default)s")
    parser.add_argument("--images", type=int, default=120, help="of a run (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--minutes", type=float, default=None, help="don't begin a round after this time")
    parser.add_argument("--page", type=Path, metavar="FILE", help="also write the table into this page of the docs")
    args = parser.parse_args()
    names = [name.strip() for name in args.kinds.split(",")]
    if set(names) - set(KINDS):
        parser.error(f"--kinds must be a list of: {', '.join(KINDS)}")
    if args.page and not args.page.is_file():
        parser.error(f"{args.page} doesn't exist")
    kinds = [name for name in KINDS if name in names and (can_mount() or not KINDS[name].small_disk)]
    seed = args.seed if args.seed is not None else random.randrange(1 << 30)
    is_over = _watch_end(args.minutes)
    machine, before, began = read_machine(ROOT), read_load(), _format_now()
    progress = Progress(kinds, args.rounds)
    with tempfile.TemporaryDirectory(prefix="stair-es-faults-") as folder:
        corpus = make_corpus(Path(folder), args.images)
        run_rounds(Plan(kinds, args.rounds, seed, args.url, is_over), corpus, Path(folder), progress.report)
    remarks = [_UNMOUNTABLE] if set(names) - set(kinds) else []
    about = f"{args.images} images per run; seed {seed}"
    result = build_result(progress.tallies, about, remarks, {"seed": seed, "began": began, "ended": _format_now()})
    publish_result(result, args.json)
    if args.page:
        write_page(args.page, result, _describe_command(args, kinds, seed), machine, (before, read_load()))
    if not is_clean(progress.tallies):
        raise SystemExit(1)


def _watch_end(minutes: float | None) -> Callable[[], bool]:
    """Return whether to stop: after the given minutes, or after SIGINT or SIGTERM. A second signal ends the program at once."""
    stopped, start = threading.Event(), time.monotonic()

    def stop(number: int, _: object) -> None:
        stopped.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    return lambda: stopped.is_set() or (minutes is not None and time.monotonic() > start + 60 * minutes)


def _describe_command(args: argparse.Namespace, kinds: list[str], seed: int) -> str:
    """Return the command that repeats the same rounds, without paths of this machine."""
    minutes = "" if args.minutes is None else f" --minutes {args.minutes:g}"
    some = "" if kinds == list(KINDS) else f" --kinds {','.join(kinds)}"
    return f"benchmarks/faults.py --rounds {args.rounds}{minutes}{some} --images {args.images} --seed {seed}"


def _format_now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M")


if __name__ == "__main__":
    main()

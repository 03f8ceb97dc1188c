"""Run all benchmarks one after the other, and write `docs/benchmarks.md` and `docs/reference/benchmarks.md`.

    python benchmarks/bench.py                       # short runs: an hour on two cores
    python benchmarks/bench.py --form long           # long runs: hours, on a dedicated machine
    python benchmarks/bench.py --only ingest sink    # keep the other sections, if their records exist
    python benchmarks/bench.py --render              # only write the pages, from the records

Each benchmark runs in a separate process with `--json`. Its record and its output are kept in `build/bench`. If a benchmark
fails, the page says so and the exit status is 1. If the inputs of a benchmark can't be fetched, the page shows it as not run,
with the reason. Package files are first looked up in `build/bench/packages`.

The runs ignore STAIR_ES_URL, STAIR_ES_INDEX and STAIR_ES_MODEL. They start separate nodes or use the embedded node, which is
stopped at the end if it wasn't running before.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import get_args

from harness.result import Result
from page.inputs import InputUnavailable, fetch_inputs
from page.machine import read_load, read_machine, wait_until_idle
from page.plan import FOLDER, RUNS, Form, Run
from page.record import Record, Status
from page.render import render_details, render_summary

from stair_es.config.defaults import ENV_INDEX, ENV_MODEL, ENV_URL

ROOT = Path(__file__).parents[1]
PAGE = "benchmarks.md"
STAIR_ES = str(Path(sys.executable).with_name("stair-es"))


def main() -> int:
    """Run benchmarks, write the page, and return the exit status: 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=get_args(Form), default="short")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[run.name for run in RUNS], help="some of the runs")
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="the folder of the pages (default: %(default)s)")
    parser.add_argument("--records", type=Path, default=ROOT / FOLDER, help="where records are kept (default: %(default)s)")
    args = parser.parse_args()
    selected = [] if args.render else [run for run in RUNS if not args.only or run.name in args.only]
    folder = args.records / args.form
    missing = [run.name for run in RUNS if run not in selected and not (folder / f"{run.name}.json").is_file()]
    summary, details = args.out / PAGE, args.out / "reference" / PAGE
    if missing and details.is_file():
        parser.error(
            f"{details} would lose the sections of {', '.join(missing)}: there is no record of them in {folder}. "
            "Run these, too, or choose another folder with --out"
        )
    with restore_node(needed=bool(selected)):
        if selected:
            print("waiting until the machine is idle (at most 3 min)", file=sys.stderr, flush=True)
            wait_until_idle(os.cpu_count() or 1)
        done = run_benchmarks(selected, args.form, folder)
    records = {run.name: Record.read(file) for run in RUNS if (file := folder / f"{run.name}.json").is_file()}
    details.parent.mkdir(parents=True, exist_ok=True)
    for page, render in ((summary, render_summary), (details, render_details)):
        page.write_text(render(records, RUNS, args.form), encoding="utf-8")
        print(f"wrote {page}", file=sys.stderr)
    return int(any(record.status == "failed" for record in done))


def run_benchmarks(runs: Sequence[Run], form: Form, folder: Path) -> list[Record]:
    """Run one benchmark after the other; each record is written when its run has ended."""
    machine, done = read_machine(ROOT), []
    for number, run in enumerate(runs, 1):
        print(f"{number}/{len(runs)} {run.name}: {run.build_command(form)}", file=sys.stderr, flush=True)
        record = run_benchmark(run, form, machine, folder)
        record.write(folder / f"{run.name}.json")
        print(f"  {record.status}, {record.seconds:.0f} s {record.reason}", file=sys.stderr, flush=True)
        done.append(record)
    return done


def run_benchmark(run: Run, form: Form, machine: Mapping[str, object], folder: Path) -> Record:
    """Fetch what a benchmark needs, run it, and read its result."""
    command = run.build_command(form)
    try:
        fetch_inputs(command, ROOT)
    except InputUnavailable as error:
        return Record(name=run.name, command=command, status="not run", reason=strip_paths(str(error)), machine=machine)
    folder.mkdir(parents=True, exist_ok=True)
    output, log = folder / f"{run.name}.result.json", folder / f"{run.name}.log"
    output.unlink(missing_ok=True)
    before, began = read_load(), datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        program = [sys.executable, *shlex.split(command), "--json", str(output)]
        code = subprocess.run(
            program, cwd=ROOT, env=build_environment(), stdout=file, stderr=subprocess.STDOUT, check=False
        ).returncode
    seconds = time.perf_counter() - start
    result = Result.read(output) if output.is_file() else None
    status: Status = "failed" if code or result is None else "done"
    return Record(
        name=run.name,
        command=command,
        status=status,
        reason=describe_failure(code, log) if status == "failed" else "",
        began=began,
        seconds=seconds,
        load=(before, read_load()),
        machine=machine,
        result=result,
    )


def describe_failure(code: int, log: Path) -> str:
    """Return the exit status and the last line of the log."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return strip_paths(f"exit status {code}: {lines[-1] if lines else 'no output'}")


def strip_paths(text: str) -> str:
    """Return a text on one line, without paths of this machine."""
    text = text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    return " ".join(re.sub(rf"{re.escape(tempfile.gettempdir())}/\S+", "a temporary file", text).split())[:500]


def build_environment() -> dict[str, str]:
    """Return the environment without the user's cluster, index and model."""
    return {name: value for name, value in os.environ.items() if name not in (ENV_URL, ENV_INDEX, ENV_MODEL)}


@contextmanager
def restore_node(*, needed: bool) -> Iterator[None]:
    """Stop the embedded node afterwards, if it wasn't running before."""
    was_running = not needed or _run_node_command("status") == 0
    try:
        yield
    finally:
        if not was_running:
            _run_node_command("down")


def _run_node_command(action: str) -> int:
    return subprocess.run([STAIR_ES, "node", action], env=build_environment(), check=False, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main())

"""All benchmarks one after the other, and the page `docs/benchmarks.md` of what they found.

    python benchmarks/bench.py                       # the short form: minutes on two cores
    python benchmarks/bench.py --form long           # hours: for a machine of one's own
    python benchmarks/bench.py --only ingest sink    # the others' sections stay, if their records are here
    python benchmarks/bench.py --render              # the page alone, of what is kept

Each benchmark is a process of its own with `--json`; what it found is kept below `build/bench`, with its output. One that fails
is on the page as failed, and makes the exit status 1; one whose pictures can't be fetched is there as not run, with the reason
(files of packages are looked for in `build/bench/packages` first).
Whatever STAIR_ES_URL and the like say, the runs have nodes of their own or the embedded one, which is stopped at the end if it
wasn't running before.
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
from datetime import datetime, timezone
from pathlib import Path
from typing import get_args

from page.machine import facts, load
from page.needs import Unmet, provide
from page.plan import FOLDER, RUNS, Form, Run
from page.record import Record, Status
from page.render import page
from result import Result

from stair_es.config.defaults import ENV_INDEX, ENV_MODEL, ENV_URL

ROOT = Path(__file__).parents[1]
STAIR_ES = str(Path(sys.executable).with_name("stair-es"))


def main() -> int:
    """The exit status: 1 if a benchmark failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--form", choices=get_args(Form), default="short")
    parser.add_argument("--only", nargs="+", metavar="NAME", choices=[run.name for run in RUNS], help="some of the runs")
    parser.add_argument("--render", action="store_true", help="run nothing")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page (default: %(default)s)")
    parser.add_argument("--kept", type=Path, default=ROOT / FOLDER, help="where records are kept (default: %(default)s)")
    given = parser.parse_args()
    wanted = [] if given.render else [run for run in RUNS if not given.only or run.name in given.only]
    kept = given.kept / given.form
    unknown = [run.name for run in RUNS if run not in wanted and not (kept / f"{run.name}.json").is_file()]
    if unknown and given.out.is_file():
        parser.error(
            f"{given.out} would lose the sections of {', '.join(unknown)}: there is no record of them in {kept}. "
            "Run these too, or name another page: --out FILE"
        )
    with own_node(needed=bool(wanted)):
        done = run_all(wanted, given.form, kept)
    records = {run.name: Record.read(file) for run in RUNS if (file := kept / f"{run.name}.json").is_file()}
    given.out.write_text(page(records, RUNS, given.form), encoding="utf-8")
    print(f"{given.out} is written", file=sys.stderr)
    return int(any(record.status == "failed" for record in done))


def run_all(runs: Sequence[Run], form: Form, kept: Path) -> list[Record]:
    """One after the other; each is kept as soon as it has ended."""
    machine, done = facts(ROOT), []
    for number, run in enumerate(runs, 1):
        print(f"{number}/{len(runs)} {run.name}: {run.command(form)}", file=sys.stderr, flush=True)
        record = one(run, form, machine, kept)
        record.write(kept / f"{run.name}.json")
        print(f"  {record.status}, {record.seconds:.0f} s {record.reason}", file=sys.stderr, flush=True)
        done.append(record)
    return done


def one(run: Run, form: Form, machine: Mapping[str, object], kept: Path) -> Record:
    """Fetch what it needs, run it, read what it found."""
    command = run.command(form)
    try:
        provide(command, ROOT)
    except Unmet as unmet:
        return Record(name=run.name, command=command, status="not run", reason=plain(str(unmet)), machine=machine)
    kept.mkdir(parents=True, exist_ok=True)
    found, log = kept / f"{run.name}.found.json", kept / f"{run.name}.log"
    found.unlink(missing_ok=True)
    before, began = load(), datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M")
    start = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        asked = [sys.executable, *shlex.split(command), "--json", str(found)]
        code = subprocess.run(asked, cwd=ROOT, env=environment(), stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    seconds = time.perf_counter() - start
    result = Result.read(found) if found.is_file() else None
    status: Status = "failed" if code or result is None else "done"
    return Record(
        name=run.name,
        command=command,
        status=status,
        reason=why(code, log) if status == "failed" else "",
        began=began,
        seconds=seconds,
        load=(before, load()),
        machine=machine,
        result=result,
    )


def why(code: int, log: Path) -> str:
    """Exit status and the last line that it said."""
    lines = [line for line in log.read_text(encoding="utf-8").splitlines() if line.strip()]
    return plain(f"exit status {code}: {lines[-1] if lines else 'it said nothing'}")


def plain(text: str) -> str:
    """On one line, without the folders of this machine."""
    text = text.replace(f"{ROOT}/", "").replace(str(ROOT), ".")
    return " ".join(re.sub(rf"{re.escape(tempfile.gettempdir())}/\S+", "a temporary file", text).split())[:500]


def environment() -> dict[str, str]:
    """Without a cluster, an index or a model of the user's."""
    return {name: value for name, value in os.environ.items() if name not in (ENV_URL, ENV_INDEX, ENV_MODEL)}


@contextmanager
def own_node(*, needed: bool) -> Iterator[None]:
    """The embedded node is stopped afterwards, if it wasn't there before."""
    was_there = not needed or _node("status") == 0
    try:
        yield
    finally:
        if not was_there:
            _node("down")


def _node(asked: str) -> int:
    return subprocess.run([STAIR_ES, "node", asked], env=environment(), check=False, capture_output=True).returncode


if __name__ == "__main__":
    sys.exit(main())

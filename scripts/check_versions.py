"""Run the installed `stair-es` on every version of the search engines, and write `docs/reference/compatibility.md`.

    python scripts/check_versions.py                       # all, one node at a time
    python scripts/check_versions.py --only 8.17.0 2.19.1  # the other columns are kept if their records exist
    python scripts/check_versions.py --json                # print the records as JSON on stdout

The record of each version is kept in `build/compatibility`. `tests/support/versions/nodes.py` lists the known gaps: the exit
code is 1 if anything else fails, or if a known gap works. A version that fails doesn't end the run. The engines are
fetched once per machine (about 1 GB).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path

from stair_es import __version__
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.versions.bench import Bench, WrongOutput
from support.versions.checks import CHECKS, NEEDS
from support.versions.commands import CommandError, CommandRunner
from support.versions.nodes import VERSIONS, KnownFailure, RunningNode, Version
from support.versions.page import Outcome, Record, write_page

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Check the versions and write the page; return 1 if a check had an unexpected outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = [version.number for version in VERSIONS]
    parser.add_argument("--only", nargs="+", metavar="VERSION", choices=numbers, help=f"of {', '.join(numbers)}")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "docs" / "reference" / "compatibility.md", help="the page (default: %(default)s)"
    )
    parser.add_argument("--kept", type=Path, default=ROOT / "build" / "compatibility", help="the records (default: %(default)s)")
    args = parser.parse_args()
    files = {version.number: args.kept / f"{version.number}.json" for version in VERSIONS}
    chosen = [version for version in VERSIONS if not args.only or version.number in args.only]
    unknown = [number for number in numbers if number not in {v.number for v in chosen} and not files[number].is_file()]
    if unknown and args.out.is_file():
        parser.error(f"{args.out} would lose {', '.join(unknown)}: run these, too, or choose another page with --out FILE")
    records = []
    for version in chosen:
        record = check_version(version)
        record.write(files[version.number])
        records.append(record)
    kept = [Record.read(file) for file in files.values() if file.is_file()]
    args.out.write_text(write_page(kept, CHECKS), encoding="utf-8")
    print(f"wrote {args.out}", file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(record) for record in records]))
    return int(any(record.failed for record in records))


def check_version(version: Version) -> Record:
    """Start a node of a version, run all checks on it, and stop it."""
    began, start_s = datetime.now(UTC), time.monotonic()
    print(f"{version.label}: {version.origin}", file=sys.stderr, flush=True)
    record = Record(
        label=version.label,
        origin=version.origin,
        java="",
        missing_modules=(),
        began=began.strftime("%Y-%m-%dT%H:%M"),
        seconds=0.0,
        stair_es=__version__,
        outcomes=(),
    )
    try:
        with tempfile.TemporaryDirectory() as base, version.run(Path(base) / "node") as served:
            java, missing_modules = inspect_node(served, version)
            record = replace(record, java=java, missing_modules=missing_modules)
            commands = CommandRunner(served.url, Path(base), served.environ)
            record = replace(record, outcomes=tuple(run_checks(Bench(commands, main=version.main), version)))
    except Exception as error:  # noqa: BLE001  the other versions are checked in any case
        record = replace(record, failure=f"{type(error).__name__}: {error}"[:500])
        print(f"  {record.failure}", file=sys.stderr, flush=True)
    return replace(record, seconds=time.monotonic() - start_s)


def inspect_node(served: RunningNode, version: Version) -> tuple[str, tuple[str, ...]]:
    """Return the Java version of the node, and the modules that it lacks.

    Raises:
        LookupError: If the node has another version.
    """
    paths = ",".join(f"nodes.*.{name}" for name in ("version", "jvm.version", "jvm.vm_vendor", "modules.name"))
    with Cluster(Connection.from_env(served.url, environ=served.environ)) as cluster:
        answer = cluster.client.transport.perform_request("GET", "/_nodes/_local", params={"filter_path": paths})
    (node,) = answer["nodes"].values()
    if node["version"] != version.number:
        raise LookupError(f"the node reports version {node['version']}")
    modules = {module["name"] for module in node.get("modules", ())}
    return f"{node['jvm']['version']} ({node['jvm']['vm_vendor']})", tuple(sorted(version.modules - modules))


def run_checks(bench: Bench, version: Version, checks: Mapping[str, Callable[[Bench], None]] = CHECKS) -> Iterator[Outcome]:
    """Run the checks in order, and yield the outcome of each."""
    done: dict[str, Outcome] = {}
    for name, check in checks.items():
        needed = NEEDS.get(name)
        if needed in done and done[needed].status not in ("ok", "stand-in"):
            outcome = Outcome(check=name, status="not tried")
        else:
            outcome = judge(name, version.gaps.get(name), run_check(check, bench))
            if outcome.status == "ok" and name in version.stand_in:
                outcome = replace(outcome, status="stand-in")
        first_line = outcome.message.partition("\n")[0]
        print(f"  {outcome.status:<9} {name}  {first_line}", file=sys.stderr, flush=True)
        done[name] = outcome
        yield outcome


def run_check(check: Callable[[Bench], None], bench: Bench) -> Exception | None:
    """Run a check and return its exception: `CommandError` with the message to the user, or any other."""
    try:
        check(bench)
    except Exception as error:  # noqa: BLE001  errors in reading an answer count, too
        return error
    return None


def judge(name: str, gap: KnownFailure | None, problem: Exception | None) -> Outcome:
    """Return the outcome: a check may only fail because of a known gap, and a known gap must fail with its message."""
    if problem is None:
        unexpected = f"The check succeeded, but should fail with: {gap.message}" if gap else ""
        return Outcome(check=name, status="failed" if gap else "ok", message=unexpected)
    message = str(problem) if isinstance(problem, CommandError | WrongOutput) else f"{type(problem).__name__}: {problem}"
    known = gap is not None and isinstance(problem, CommandError) and gap.message in message
    return Outcome(check=name, status=gap.cause if gap and known else "failed", message=message)


if __name__ == "__main__":
    sys.exit(main())

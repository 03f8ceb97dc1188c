"""Run the installed `stair-es` on every version of the search engines, and write `docs/compatibility.md`.

    python scripts/check_versions.py                       # all, one node at a time
    python scripts/check_versions.py --only 8.17.0 2.19.1  # the others' columns stay, if their records are here
    python scripts/check_versions.py --json                # the records, as JSON, on stdout

Each version's record is kept below `build/compatibility`. `tests/support/versions/nodes.py` says what is known to be missing:
anything else that fails, or works though it is said to be missing, makes the exit status 1. A version that fails doesn't end
the run. The engines' jars are fetched once a machine (about 0.5 GB).
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from datetime import datetime, timezone
from pathlib import Path

from stair_es import __version__
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from support.versions.bench import Bench, Wrong
from support.versions.checks import CHECKS, NEEDS
from support.versions.commands import Commands, Refused
from support.versions.nodes import VERSIONS, Gap, Served, Version
from support.versions.page import Outcome, Record, write_page

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Return the exit status: 1 if something unexpected happened."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    numbers = [version.number for version in VERSIONS]
    parser.add_argument("--only", nargs="+", metavar="VERSION", choices=numbers, help=f"of {', '.join(numbers)}")
    parser.add_argument("--json", action="store_true", help="print the records as JSON")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "compatibility.md", help="the page (default: %(default)s)")
    parser.add_argument("--kept", type=Path, default=ROOT / "build" / "compatibility", help="the records (default: %(default)s)")
    args = parser.parse_args()
    files = {version.number: args.kept / f"{version.number}.json" for version in VERSIONS}
    chosen = [version for version in VERSIONS if not args.only or version.number in args.only]
    unknown = [number for number in numbers if number not in {v.number for v in chosen} and not files[number].is_file()]
    if unknown and args.out.is_file():
        parser.error(f"{args.out} would lose {', '.join(unknown)}: run these too, or name another page: --out FILE")
    records = []
    for version in chosen:
        record = check_version(version)
        record.write(files[version.number])
        records.append(record)
    kept = [Record.read(file) for file in files.values() if file.is_file()]
    args.out.write_text(write_page(kept, CHECKS), encoding="utf-8")
    print(f"{args.out} is written", file=sys.stderr)
    if args.json:
        print(json.dumps([asdict(record) for record in records]))
    return int(any(record.failed for record in records))


def check_version(version: Version) -> Record:
    """Start the node, run all checks, and stop it."""
    began, start_s = datetime.now(timezone.utc), time.monotonic()
    print(f"{version.label}: {version.made}", file=sys.stderr, flush=True)
    record = Record(
        label=version.label,
        made=version.made,
        java="",
        lacks=(),
        began=began.strftime("%Y-%m-%dT%H:%M"),
        seconds=0.0,
        stair_es=__version__,
        outcomes=(),
    )
    try:
        with tempfile.TemporaryDirectory() as base, version.run(Path(base) / "node") as served:
            java, lacks = describe_node(served, version)
            record = replace(record, java=java, lacks=lacks)
            commands = Commands(served.url, Path(base), served.environ)
            record = replace(record, outcomes=tuple(run_checks(Bench(commands), version.gaps)))
    except Exception as error:  # noqa: BLE001  whatever one version does, the others are run
        record = replace(record, failure=f"{type(error).__name__}: {error}"[:500])
        print(f"  {record.failure}", file=sys.stderr, flush=True)
    return replace(record, seconds=time.monotonic() - start_s)


def describe_node(served: Served, version: Version) -> tuple[str, tuple[str, ...]]:
    """Return the Java that the node runs on, and the modules that it lacks.

    Raises:
        LookupError: If it has another version.
    """
    paths = ",".join(f"nodes.*.{name}" for name in ("version", "jvm.version", "jvm.vm_vendor", "modules.name"))
    with Cluster(Connection.from_env(served.url, environ=served.environ)) as cluster:
        response = cluster.client.transport.perform_request("GET", "/_nodes/_local", params={"filter_path": paths})
    (node,) = response["nodes"].values()
    if node["version"] != version.number:
        raise LookupError(f"the node says that it is {node['version']}")
    modules = {module["name"] for module in node.get("modules", ())}
    lacks = tuple(sorted(version.modules - modules)) if version.lacks is None else version.lacks
    return f"{node['jvm']['version']} ({node['jvm']['vm_vendor']})", lacks


def run_checks(
    bench: Bench, gaps: Mapping[str, Gap], checks: Mapping[str, Callable[[Bench], None]] = CHECKS
) -> Iterator[Outcome]:
    """Run the checks in order, and yield the outcome of each."""
    done: dict[str, Outcome] = {}
    for name, check in checks.items():
        needed = NEEDS.get(name)
        if needed in done and done[needed].status != "ok":
            outcome = Outcome(check=name, status="not tried")
        else:
            outcome = classify_outcome(name, gaps.get(name), run_check(check, bench))
        first_line = outcome.says.partition("\n")[0]
        print(f"  {outcome.status:<9} {name}  {first_line}", file=sys.stderr, flush=True)
        done[name] = outcome
        yield outcome


def run_check(check: Callable[[Bench], None], bench: Bench) -> Exception | None:
    """Run a check, and return what went wrong: `RequestRejected`, with what the user reads, or anything else."""
    try:
        check(bench)
    except Exception as error:  # noqa: BLE001  also what our reading of an answer stumbles over
        return error
    return None


def classify_outcome(name: str, gap: Gap | None, problem: Exception | None) -> Outcome:
    """Return the outcome: what is missing must be known, and what is known must be missing and say so."""
    if problem is None:
        unexpected = f"It works, and is expected to say: {gap.says}" if gap else ""
        return Outcome(check=name, status="failed" if gap else "ok", says=unexpected)
    says = str(problem) if isinstance(problem, Refused | Wrong) else f"{type(problem).__name__}: {problem}"
    known = gap is not None and isinstance(problem, Refused) and gap.says in says
    return Outcome(check=name, status=gap.cause if gap and known else "failed", says=says)


if __name__ == "__main__":
    sys.exit(main())

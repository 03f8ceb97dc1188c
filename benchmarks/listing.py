"""Measure entries per second and peak memory of listing: JSON Lines, Parquet with URLs, a tar, a local tree.

    python benchmarks/listing.py [--entries 10000 1000000] [--tree-entries 100000]

Each listing runs in a separate process to measure its own peak. `start` is the peak of a process that lists a single entry.
Without arguments it lists 1,000 and 10,000 entries, which takes seconds.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result

KINDS = ("jsonl", "parquet", "tar", "tree")


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--entries", type=int, nargs="+", default=[1_000, 10_000])
    parser.add_argument("--tree-entries", type=int, default=100_000, help="maximum files in the tree (default: %(default)s)")
    parser.add_argument("--list", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.list:
        print(json.dumps(_list_source(args.list)))
        return
    rows, figures = [], []
    for kind in KINDS:
        start = _measure_listing(kind, 1)["peak_mib"]
        sizes = (min(entries, args.tree_entries) if kind == "tree" else entries for entries in args.entries)
        for entries in dict.fromkeys(sizes):
            row = _measure_listing(kind, entries)
            figures.append({"kind": kind, "entries": entries, "start_mib": start, **row})
            rows.append((kind, f"{entries:,}", f"{entries / row['seconds']:,.0f}", f"{row['peak_mib']:.0f}", f"{start:.0f}"))
    head = ("listing", "entries", "entries/s", "peak MiB", "start MiB")
    result = Result(
        about="each listing runs in a separate process; `start` is the peak of a process that lists a single entry",
        tables=(ReportTable(head=head, rows=tuple(rows)),),
        figures={"rows": figures},
    )
    publish_result(result, args.json)


def _measure_listing(kind: str, entries: int) -> dict[str, float]:
    makers: dict[str, Callable[[Path, int], Path]] = {
        "jsonl": _write_jsonl,
        "parquet": _write_parquet,
        "tar": _write_tar,
        "tree": _write_tree,
    }
    with tempfile.TemporaryDirectory(prefix="stair-es-bench-") as folder:
        made = makers[kind](Path(folder), entries)
        done = subprocess.run([sys.executable, __file__, "--list", str(made)], check=True, capture_output=True, text=True)
    row: dict[str, float] = json.loads(done.stdout)
    if row["items"] != entries:
        raise SystemExit(f"{kind}: {row['items']} of {entries} entries were listed")
    return row


def _list_source(argument: str) -> dict[str, float]:
    from stair_es.sources.base import SourceItem
    from stair_es.sources.registry import open_source

    source = open_source(argument)
    start = time.perf_counter()
    items = sum(isinstance(each, SourceItem) for each in source.list_items())
    seconds = time.perf_counter() - start
    return {"items": items, "seconds": seconds, "peak_mib": _read_peak_mib()}


def _read_peak_mib() -> float:
    """Return the peak of this process alone. `ru_maxrss` would include the memory of the parent when it forked."""
    status = Path("/proc/self/status")
    if status.exists():
        return next(int(line.split()[1]) for line in status.read_text().splitlines() if line.startswith("VmHWM")) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _write_jsonl(folder: Path, entries: int) -> Path:
    path = folder / "t.jsonl"
    with path.open("w") as file:
        file.writelines(f'{{"url": "https://example.com/{i:09}.jpg", "caption": "picture {i}"}}\n' for i in range(entries))
    return path


def _write_parquet(folder: Path, entries: int) -> Path:
    import pyarrow as pa  # type: ignore[import-untyped]
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    path = folder / "t.parquet"
    schema = pa.schema({"url": pa.string(), "caption": pa.string()})
    with pq.ParquetWriter(path, schema) as writer:
        for first in range(0, entries, 100_000):
            numbers = range(first, min(entries, first + 100_000))
            columns = {"url": [f"https://example.com/{i:09}.jpg" for i in numbers], "caption": [f"picture {i}" for i in numbers]}
            writer.write_table(pa.table(columns, schema))
    return path


def _write_tar(folder: Path, entries: int) -> Path:
    path = folder / "t.tar"
    with path.open("wb") as file:
        for i in range(entries):
            info = tarfile.TarInfo(f"{i:09}.jpg")
            info.size = 512
            file.write(info.tobuf() + bytes(512))
        file.write(bytes(1024))
    return path


def _write_tree(folder: Path, entries: int) -> Path:
    for i in range(entries):
        if i % 5_000 == 0:
            (folder / f"{i:09}").mkdir()
        (folder / f"{i - i % 5_000:09}" / f"{i:09}.jpg").touch()
    return folder


if __name__ == "__main__":
    main()

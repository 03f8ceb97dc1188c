"""Download checkpoints from the Hugging Face hub: only the files that are needed, and code only from models trusted by name."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path
from typing import Any

from stair_es.errors import ModelError, ModelNotFetched
from stair_es.model.checkpoint import CheckpointFormat
from stair_es.model.hub_integrity import find_weight_faults
from stair_es.model.hub_models import HUB_EXTRA
from stair_es.optional import import_optional

_METADATA_PATTERNS = ("*.json", "*.txt", "*.model", "README.md")
_may_fetch: ContextVar[bool] = ContextVar("may_fetch", default=True)


@contextmanager
def disable_downloads() -> Iterator[None]:
    """Make `download_snapshot` use the cache only, and not the network, within this context."""
    token = _may_fetch.set(False)
    try:
        yield
    finally:
        _may_fetch.reset(token)


def is_repository_cached(name: str, detect_format: Callable[[Path], CheckpointFormat]) -> bool:
    """Return whether the cache holds all files of a repository that a model needs. Doesn't access the network.

    Args:
        name: Id of the repository.
        detect_format: Returns the format of a folder, or raises ModelError.
    """
    try:
        with disable_downloads():
            download_snapshot(name, detect_format)
    except ModelError:
        return False
    return True


def get_cache_folder(name: str) -> Path:
    """Return the cache folder of a repository. If it is deleted, the next run downloads the repository again."""
    constants: Any = import_optional("huggingface_hub.constants", HUB_EXTRA)
    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


@lru_cache
def download_snapshot(name: str, detect_format: Callable[[Path], CheckpointFormat], *, with_code: bool = False) -> Path:
    """Return the folder of a repository in the hub's cache; download missing files first.

    Pickled weights are downloaded only if the format allows them and the repository has no safetensors file.

    Args:
        name: Id of the repository.
        detect_format: Returns the format of a folder, or raises ModelError.
        with_code: Whether to download the model's own Python code, too.

    Raises:
        ModelNotFetched: If it isn't cached, within `disable_downloads`.
        ModelError: If the repository doesn't exist or can't be reached, has an unknown format, or one of its files is broken.
        MissingExtra: If `huggingface_hub` isn't installed.
    """
    code = ("*.py",) if with_code else ()
    folder = _fetch_files(name, (*_METADATA_PATTERNS, *code))
    try:
        checkpoint_format = detect_format(folder)
    except ModelError as error:
        if _has_config(folder):
            raise
        if not _may_fetch.get():
            raise _build_incomplete_error(name, ["it has no config.json"]) from error
        raise ModelError(
            error.message, f"Is {name} a model? If an earlier download was interrupted: {_build_refetch_hint(name)}"
        ) from error
    folder = _fetch_files(name, (*_METADATA_PATTERNS, *code, "*.safetensors"))
    if checkpoint_format.allows_pickle and not any(folder.glob("*.safetensors")):
        folder = _fetch_files(name, (*_METADATA_PATTERNS, "pytorch_model*.bin"))
    faults = find_weight_faults(folder)
    if faults:
        raise _build_incomplete_error(name, faults)
    return folder


def _has_config(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.json", "modules.json"))


def _build_incomplete_error(name: str, faults: list[str]) -> ModelError:
    """Return the error for a repository whose cached copy is incomplete."""
    message = f"the cached copy of {name} is incomplete: {faults[0]}"
    if not _may_fetch.get():
        return ModelNotFetched(message, _build_refetch_hint(name))
    return ModelError(message, _build_refetch_hint(name))


def _build_refetch_hint(name: str) -> str:
    return f"Delete {get_cache_folder(name)} and run the command again with a connection, to download it again."


def _fetch_files(name: str, patterns: tuple[str, ...]) -> Path:
    hub = import_optional("huggingface_hub", HUB_EXTRA)
    errors: Any = import_optional("huggingface_hub.errors", HUB_EXTRA)
    may_fetch = _may_fetch.get()
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(patterns), local_files_only=not may_fetch))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"there is no folder {name!r} here, and no such repository on the hub that you can access: {_get_first_line(error)}",
            "Check the name; for a private or gated one, log in with: hf auth login, or set HF_TOKEN",
        ) from error
    except Exception as error:  # the HTTP library and its errors differ by version
        if not may_fetch:
            raise ModelNotFetched(f"{name} isn't in the hub cache", f"Fetch it: hf download {name}") from error
        raise _build_download_error(name, error) from error


def _build_download_error(name: str, error: Exception) -> ModelError:
    """Return the error for a failed download, by its cause."""
    constants: Any = import_optional("huggingface_hub.constants", HUB_EXTRA)
    cached, cache = get_cache_folder(name), constants.HF_HUB_CACHE
    message = f"there is no folder {name!r} here, and it can't be downloaded from the hub"
    offline_hint = (
        f"download it on a machine with a connection (hf download {name}), and copy {cached.name} from its cache to {cache} here "
        "(HF_HOME sets another folder)"
    )
    is_partial = any((cached / "snapshots").glob("*/*"))  # a complete copy would have been used
    if constants.HF_HUB_OFFLINE:
        state = "contains only a part of it" if is_partial else "doesn't contain it"
        return ModelError(f"{message}: HF_HUB_OFFLINE is set, and {cache} {state}", f"Unset HF_HUB_OFFLINE, or {offline_hint}.")
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return ModelError(
            f"{name} can't be written to {cache}: {error.strerror}",
            "Free some space there, or set HF_HOME to a writable folder with enough space.",
        )
    resume_hint = f": completed files are kept. If that doesn't help, delete {cached} first" if is_partial else ""
    return ModelError(
        f"{message}: {type(error).__name__}: {_get_first_line(error)}",
        f"Connect to {constants.ENDPOINT} (a proxy: HTTPS_PROXY, a mirror: HF_ENDPOINT) and run the command again{resume_hint}. "
        f"Without a connection: {offline_hint}, then set HF_HUB_OFFLINE=1.",
    )


def _get_first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

"""Checkpoints from the Hugging Face hub: only the files that are needed, and code only where it is trusted by name."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from stair_es.errors import ModelError
from stair_es.extras import need

TRUST = "STAIR_ES_TRUST_REMOTE_CODE"
"""Environment variable: the names, with commas between, of the models whose own Python code may run."""

_SMALL = ("*.json", "*.txt", "*.model", "README.md")


def trusted(name: str) -> bool:
    """Whether the user allowed the code of this very model, by the name that `--model` has."""
    return name in {part.strip() for part in os.environ.get(TRUST, "").split(",")}


@lru_cache
def fetched(name: str) -> Path:
    """The folder of a repository in the hub's cache: what is missing is downloaded first.

    Pickled weights are fetched only where the format knows them and the repository has no safetensors.

    Raises:
        ModelError: There is no such repository, it can't be reached, or its format is unknown.
        MissingExtra: `huggingface_hub` isn't installed.
    """
    from stair_es.model.adapters.formats import format_of

    code = ("*.py",) if trusted(name) else ()
    folder = _snapshot(name, (*_SMALL, *code))
    known = format_of(folder)
    folder = _snapshot(name, (*_SMALL, *code, "*.safetensors"))
    if known.pickled and not any(folder.glob("*.safetensors")):
        folder = _snapshot(name, (*_SMALL, "pytorch_model*.bin"))
    return folder


def _snapshot(name: str, patterns: tuple[str, ...]) -> Path:
    hub = need("huggingface_hub", "hf")
    errors = need("huggingface_hub.errors", "hf")
    failures = (OSError, ValueError, errors.HfHubHTTPError, errors.EntryNotFoundError)
    try:
        return Path(hub.snapshot_download(name, allow_patterns=list(patterns)))
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"there is no folder {name!r} here, and no such repository on the hub that you may read: {_first(error)}",
            "Check the name; for a private or gated one, log in with: hf auth login",
        ) from error
    except failures as error:
        raise ModelError(
            f"there is no folder {name!r} here, and the hub can't give it: {type(error).__name__}: {_first(error)}",
            "Connect to the network, or name the folder of a checkpoint that was fetched elsewhere: "
            f"hf download {name} --local-dir FOLDER",
        ) from error


def _first(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]

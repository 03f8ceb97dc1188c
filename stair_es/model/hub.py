"""The Hugging Face hub: public checkpoints that have a short name, with the known facts about them, and downloads.

Every number has a source. A fact that could not be looked up stays `unknown`: it is not estimated. Only the files that are needed
are downloaded, and code only after the user's consent to a commit of it.
"""

from __future__ import annotations

import errno
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from stair_es.errors import CheckpointError, ModelError, ModelNotFetched
from stair_es.model.base import ModelFacts
from stair_es.model.checkpoint import MODULES_JSON, Checkpoint
from stair_es.optional import import_optional
from stair_es.system.user_files import read_json_file

HUB_EXTRA = "models"
"""Extra of stair-es that is needed to run them."""
UNTESTED = "untested with published weights"
"""What is said wherever a model that isn't `tested` is named as one to use."""
_RANDOM_WEIGHTS = (
    "format and arithmetic, on small checkpoints with random weights: the same vectors as an independent computation (in the "
    "tests) and as the original code"
)
_METADATA_PATTERNS = ("*.json", "*.txt", "*.model", "README.md")
_may_fetch: ContextVar[bool] = ContextVar("may_fetch", default=True)
_revisions: dict[str, str] = {}
"""Repository -> the commit that this process uses: the first one that it found, for all its files."""


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A public checkpoint with a short name."""

    name: str
    """Value of `--model`."""
    hub_id: str
    """Id of its repository. An index stores this, not the short name, unless it is a recipe."""
    dense_id: str | None = None
    """Id of the dense model whose vectors it transforms, if it is a head over one."""
    description: str
    licenses: tuple[str, ...]
    facts: ModelFacts
    runs_code: bool = False
    """Whether its repository has Python code, which runs after the user's consent."""
    commit: str | None = None
    """Commit of a recipe: a dense model whose words are scored on first use (`labels.recipe`), the same way everywhere."""
    tested: bool = False
    """Whether `benchmarks/hub_models.py` was run with its published weights, and reached the published recall."""

    @property
    def repositories(self) -> tuple[str, ...]:
        """Return the ids of all repositories that it needs."""
        return (self.hub_id,) if self.dense_id is None else (self.hub_id, self.dense_id)


HUB_MODELS = (
    HubModel(
        name="photos",
        hub_id="lsr42/d2s_mscoco-blip-dense_q_reg_0.001_d_reg_0.001",
        dense_id="Salesforce/blip-itm-base-coco",
        description="photographs like those of COCO: everyday scenes with people, animals, vehicles, food, furniture (D2S: a "
        "head that turns the vectors of a BLIP into token weights; both were trained on COCO)",
        licenses=("head: Apache-2.0", "BLIP: BSD-3-Clause"),
        facts=ModelFacts(
            size="BLIP: 895 MB; head: 24 million parameters, size of the file unknown",
            languages="English",
            vocabulary="BERT WordPieces, uncased",
            tokens=30_522,
            recall="COCO, text to image, trained on COCO: R@1 55.9 (its dense BLIP: 57.0)",
            source="Nguyen et al., ECIR 2024; weights: README of github.com/thongnt99/lsr-multimodal",
            verified=_RANDOM_WEIGHTS,
            unverified="the recall; whether this BLIP holds the weights that the head was trained on",
        ),
    ),
    HubModel(
        name="photos-small",
        hub_id="vsearch/vdr-cross-modal",
        description="VDR: a ViT-B/32 for images and a BERT for texts, both over one vocabulary",
        licenses=("MIT (of the code; the card of the weights says no more)",),
        facts=ModelFacts(
            size="unknown",
            languages="English",
            vocabulary="BERT WordPieces, uncased, ASCII only",
            tokens=27_623,
            recall="unknown",
            source="Zhou et al., ICLR 2024; weights: README of github.com/jzhoubu/vsearch",
            verified=_RANDOM_WEIGHTS,
            unverified="how well it finds photographs",
        ),
    ),
    HubModel(
        name="pages",
        hub_id="naver/v-splade-quality",
        description="V-SPLADE: pages of documents as images; texts by a lookup table, without a network",
        licenses=("Apache-2.0",),
        facts=ModelFacts(
            size="250 million parameters, size of the file unknown",
            languages="unknown",
            vocabulary="pieces of words, byte-level, with capitals",
            tokens=50_368,
            recall="ViDoRe v2, text to page: NDCG@5 49.9",
            source="Cho et al., 2026 (arXiv 2605.30917); weights: README of github.com/naver/v-splade",
            verified="loading and the format, on a checkpoint with random weights and code of our own",
            unverified="the published code, and the recall",
        ),
        runs_code=True,
    ),
    HubModel(
        name="siglip2",
        hub_id="google/siglip2-base-patch16-256",
        commit="3f9f96cb90da5dbc758b01813f2f6f1aee24c1ab",
        description="pictures of any kind (SigLIP 2: a dense model of Google; its words are scored on first use)",
        licenses=("Apache-2.0",),
        facts=ModelFacts(
            size="375 million parameters, 1.5 GB",
            languages="texts in more than 100; the words are English",
            vocabulary="whole words, those of stair-mini",
            tokens=3_708,
            recall="of the dense model, COCO, text to image: R@1 53.2; of the words: unknown",
            source="Tschannen et al., 2025 (arXiv 2502.14786)",
            verified="loading, scoring and the format, on small checkpoints with random weights",
            unverified="the published weights, and the recall",
        ),
    ),
)

_PINNED = {model.hub_id: model.commit for model in HUB_MODELS if model.commit is not None}


def format_download_command(name: str) -> str:
    """Return the command that downloads a repository, at the commit that is used here."""
    return f"hf download {name}" + (f" --revision {_PINNED[name]}" if name in _PINNED else "")


def list_hub_model_names() -> tuple[str, ...]:
    """Return the short names."""
    return tuple(model.name for model in HUB_MODELS)


def find_hub_model(name: str) -> HubModel | None:
    """Return the checkpoint with this short name or hub id; None if there is none."""
    return next((model for model in HUB_MODELS if name in (model.name, model.hub_id)), None)


@contextmanager
def disable_downloads() -> Iterator[None]:
    """Make `download_snapshot` use the cache only, and not the network, within this context."""
    token = _may_fetch.set(False)
    try:
        yield
    finally:
        _may_fetch.reset(token)


def get_revisions() -> dict[str, str]:
    """Return the commit of each repository that this process has opened."""
    return dict(_revisions)


def pin_revisions(revisions: Mapping[str, str]) -> None:
    """Use these commits of repositories in this process, whatever the hub has by now."""
    _revisions.update(revisions)


def is_repository_cached(name: str, detect_family: Callable[[Path], type[Checkpoint]]) -> bool:
    """Return whether the cache holds all files of a repository that a model needs. Doesn't access the network.

    Args:
        name: Id of the repository.
        detect_family: Returns the family of the model in a folder, or raises ModelError.
    """
    try:
        with disable_downloads():
            download_snapshot(name, detect_family)
    except ModelError:
        return False
    return True


def get_cache_folder(name: str) -> Path:
    """Return the cache folder of a repository. If it is deleted, the next run downloads the repository again."""
    constants: Any = import_optional("huggingface_hub.constants", HUB_EXTRA)
    return Path(constants.HF_HUB_CACHE) / f"models--{name.replace('/', '--')}"


def build_tree_url(name: str, commit: str) -> str:
    """Return the page that shows the files of a commit."""
    constants: Any = import_optional("huggingface_hub.constants", HUB_EXTRA)
    return f"{constants.ENDPOINT}/{name}/tree/{commit}"


@lru_cache
def download_metadata(name: str, detect_family: Callable[[Path], type[Checkpoint]]) -> Path:
    """Return the folder of a repository in the hub's cache, with neither weights nor code that weren't there before.

    Args:
        name: Id of the repository.
        detect_family: Returns the family of the model in a folder, or raises ModelError.

    Raises:
        ModelNotFetched: As for `download_snapshot`.
        ModelError: If the repository doesn't exist or can't be reached, or has an unknown format.
        MissingExtra: If `huggingface_hub` isn't installed.
    """
    folder = _fetch_files(name, _METADATA_PATTERNS)
    try:
        detect_family(folder)
    except ModelError as error:
        if _has_config(folder):
            raise
        if not _may_fetch.get():
            raise _build_incomplete_error(name, ["it has no config.json"]) from error
        raise type(error)(
            error.message,
            f"Is {name} a model? If an earlier download was interrupted: {_build_refetch_hint(name)}",
            code=error.code,
        ) from error
    return folder


@lru_cache
def download_snapshot(name: str, detect_family: Callable[[Path], type[Checkpoint]], *, with_code: bool = False) -> Path:
    """Return the folder of a repository in the hub's cache; download missing files first.

    Pickled weights are downloaded only if the model's family allows them and the repository has no safetensors file.

    Args:
        name: Id of the repository.
        detect_family: Returns the family of the model in a folder, or raises ModelError.
        with_code: Whether to download the model's own Python code, too.

    Raises:
        ModelNotFetched: If it isn't cached, within `disable_downloads`.
        ModelError: If the repository doesn't exist or can't be reached, has an unknown format, or one of its files is broken.
        MissingExtra: If `huggingface_hub` isn't installed.
    """
    family = detect_family(download_metadata(name, detect_family))
    code = ("*.py",) if with_code else ()
    folder = _fetch_files(name, (*_METADATA_PATTERNS, *code, "*.safetensors"))
    if family.allows_pickle and not any(folder.glob("*.safetensors")):
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
        return ModelNotFetched(message, _build_refetch_hint(name), code="checkpoint-incomplete")
    return CheckpointError(message, _build_refetch_hint(name), code="checkpoint-incomplete")


def _build_refetch_hint(name: str) -> str:
    return f"Delete {get_cache_folder(name)} and run the command again with a connection, to download it again."


def _fetch_files(name: str, patterns: tuple[str, ...]) -> Path:
    hub = import_optional("huggingface_hub", HUB_EXTRA)
    errors: Any = import_optional("huggingface_hub.errors", HUB_EXTRA)
    may_fetch = _may_fetch.get()
    try:
        folder = Path(
            hub.snapshot_download(
                name,
                revision=_revisions.get(name, _PINNED.get(name)),
                allow_patterns=list(patterns),
                local_files_only=not may_fetch,
            )
        )
    except (errors.RepositoryNotFoundError, errors.HFValidationError) as error:
        raise ModelError(
            f"there is no folder {name!r} here, and no such repository on the hub that you can access: {_get_first_line(error)}",
            "Check the name; for a private or gated one, log in with: hf auth login, or set HF_TOKEN",
            code="no-such-repository",
        ) from error
    except Exception as error:  # the HTTP library and its errors differ by version
        if not may_fetch:
            raise ModelNotFetched(
                f"{name} isn't in the hub cache", f"Fetch it: {format_download_command(name)}", code="model-not-cached"
            ) from error
        raise _build_download_error(name, error) from error
    _revisions[name] = folder.name  # snapshots/COMMIT
    return folder


def _build_download_error(name: str, error: Exception) -> ModelError:
    """Return the error for a failed download, by its cause."""
    constants: Any = import_optional("huggingface_hub.constants", HUB_EXTRA)
    cached, cache = get_cache_folder(name), constants.HF_HUB_CACHE
    message = f"there is no folder {name!r} here, and it can't be downloaded from the hub"
    offline_hint = (
        f"download it on a machine with a connection ({format_download_command(name)}), and copy {cached.name} from its cache to "
        f"{cache} here "
        "(HF_HOME sets another folder)"
    )
    is_partial = any((cached / "snapshots").glob("*/*"))  # a complete copy would have been used
    if constants.HF_HUB_OFFLINE:
        state = "contains only a part of it" if is_partial else "doesn't contain it"
        return ModelError(
            f"{message}: HF_HUB_OFFLINE is set, and {cache} {state}",
            f"Unset HF_HUB_OFFLINE, or {offline_hint}.",
            code="hub-offline",
        )
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return ModelError(
            f"{name} can't be written to {cache}: {error.strerror}",
            "Free some space there, or set HF_HOME to a writable folder with enough space.",
            code="hub-cache-not-writable",
        )
    resume_hint = f": completed files are kept. If that doesn't help, delete {cached} first" if is_partial else ""
    return ModelError(
        f"{message}: {type(error).__name__}: {_get_first_line(error)}",
        f"Connect to {constants.ENDPOINT} (a proxy: HTTPS_PROXY, a mirror: HF_ENDPOINT) and run the command again{resume_hint}. "
        f"Without a connection: {offline_hint}, then set HF_HUB_OFFLINE=1.",
        code="model-not-downloaded",
    )


def _get_first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]


def find_weight_faults(folder: Path) -> list[str]:
    """Return the faults of the weights in a folder, one phrase per file. Loads nothing."""
    list_files = folder.rglob if (folder / MODULES_JSON).is_file() else folder.glob  # sentence-transformers has subfolders
    safetensors, pickled = sorted(list_files("*.safetensors")), sorted(list_files("pytorch_model*.bin"))
    indexes = sorted(list_files("*.safetensors.index.json" if safetensors else "pytorch_model*.index.json"))
    shards = [index.parent / shard for index in indexes for shard in _read_shard_names(index)]
    missing = [f"{path.name} is missing" for path in dict.fromkeys(shards) if not path.is_file()]
    if not safetensors and not pickled:
        missing.append("it has no weights")
    truncated = [f"{path.name} is truncated" for path in safetensors if not _is_complete_safetensors(path)]
    if not safetensors:
        truncated += [f"{path.name} is truncated" for path in pickled if not _is_complete_pickle(path)]
    return [*missing, *truncated]


def _read_shard_names(index: Path) -> list[str]:
    try:
        names = read_json_file(index)["weight_map"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
    return [str(name) for name in names]


def _is_complete_safetensors(path: Path) -> bool:
    """Return whether the file is as long as its header says, which the library checks when it opens a file."""
    try:
        with safe_open(path, "numpy"):
            return True
    except (OSError, SafetensorError):
        return False


def _is_complete_pickle(path: Path) -> bool:
    """Return whether a zip file, as PyTorch writes, has its end. Older formats can't be checked."""
    try:
        with path.open("rb") as file:
            start = file.read(2)
        return zipfile.is_zipfile(path) if start == b"PK" else len(start) > 1
    except OSError:
        return False

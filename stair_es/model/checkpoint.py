"""Models that are checkpoint folders: their contract, configuration, model id and card, without loading the model."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, ClassVar

from stair_es.errors import CheckpointError, ModelError
from stair_es.model.base import EncoderPlugin, ModelCard, ModelSpec, check_model_spec, choose_image_spec
from stair_es.model.cuda import can_use_cuda
from stair_es.optional import import_optional
from stair_es.system.user_files import open_regular_file, read_json_file
from stair_es.types import ImageSpec, ResizeMode

CONFIG_JSON = "config.json"
DENSE_FOLDER = "dense"
"""Folder of the dense model in a checkpoint built from one."""
MODULES_JSON = "modules.json"
"""Present in every folder of sentence-transformers, with or without a `config.json`."""
LIBRARY_CONFIG_JSON = "config_sentence_transformers.json"
STAIR_MODULE = "stair_es.sentence_transformers.StairModule"
"""The module with which sentence-transformers reads a checkpoint of ours."""
SENTENCEPIECE_FILE = "spiece.model"
"""Tokenizer file of SigLIP 1."""

_COPIED_NAMES = ("README.md", "LICENSE*", "NOTICE*")
_MAX_FRONT_MATTER_BYTES = 64 * 2**10
_HASHED_SUFFIXES = frozenset({".json", ".model", ".py", ".safetensors", ".txt"})


class Checkpoint(EncoderPlugin):
    """A model in a checkpoint folder. Each family of models is a subclass, which imports no network library before `load`."""

    family: ClassVar[str]
    """Display name of the family."""
    allows_pickle: ClassVar[bool] = False
    """Whether weights may be a `pytorch_model.bin` if there is no safetensors file."""

    @classmethod
    @abstractmethod
    def detect(cls, config: Mapping[str, Any], folder: Path) -> bool:
        """Return whether a folder with this configuration holds a model of this family."""

    @abstractmethod
    def __init__(self, folder: Path, name: str, fit: ResizeMode | None) -> None:
        """Read the configuration, and set the card.

        Args:
            folder: Checkpoint folder.
            name: Name that the model was requested by.
            fit: How images become squares, instead of the model's own way.

        Raises:
            ModelError: If something is missing or inconsistent, or the model has no other fit.
        """

    @classmethod
    def find_code(cls, folder: Path) -> tuple[str, ...]:
        """Return the Python code that the configuration in a folder names; most families run none."""
        return ()

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Return whether PyTorch would run on a GPU of this machine."""
        return can_use_cuda(spec)


def check_torch_spec(spec: ModelSpec) -> None:
    """Check that a checkpoint can be run with these options.

    Raises:
        ModelError: If it can't.
        MissingExtra: If PyTorch or transformers isn't installed.
    """
    if spec.backend not in ("auto", "torch"):
        raise ModelError(
            f"{spec.name} runs only in PyTorch, not in {spec.backend!r}", "Use --backend torch or auto.", code="model-needs-torch"
        )
    if spec.text_tower != "full":
        raise ModelError(f"{spec.name} has no text tower {spec.text_tower!r}", "Use --text-tower full.", code="no-text-tower")
    check_model_spec(spec)
    for module in ("torch", "transformers"):
        import_optional(module, "models")


def build_dense_only_error(name: str) -> ModelError:
    """Return the error for a dense-only model if tokens are requested."""
    return ModelError(
        f"the model {name!r} has dense vectors only, no tokens: it can't be indexed",
        f"Make a checkpoint with tokens from it: stair-es distill {name} --images SOURCE --out FOLDER. Dense models alone are"
        " for comparisons with stair-es evaluate.",
        code="model-without-tokens",
    )


def read_checkpoint_config(folder: Path) -> dict[str, Any]:
    """Return the contents of `config.json`; empty for a folder of sentence-transformers without one."""
    if not (folder / CONFIG_JSON).is_file() and (folder / MODULES_JSON).is_file():
        return {}
    return read_json_object(folder / CONFIG_JSON)


def read_json_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file of a checkpoint."""
    try:
        value = read_json_file(path)
    except FileNotFoundError:
        raise CheckpointError(
            f"{path.parent} isn't a checkpoint: it has no {path.name}", "Use the folder that holds it."
        ) from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} can't be read: {error}", "Fetch or write the checkpoint again.") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} isn't a JSON object", "Fetch or write the checkpoint again.")
    return value


def get_config_section(config: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    """Return a section of the configuration."""
    section = config.get(name)
    if not isinstance(section, Mapping):
        raise CheckpointError(f"the config.json in {folder} has no section {name!r}", "Fetch the checkpoint again.")
    return section


def get_positive_int(config: Mapping[str, Any], name: str, default: int, folder: Path) -> int:
    """Return a positive integer from the configuration in a folder; the default if the key is missing."""
    value = config.get(name, default)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise CheckpointError(f"the config.json in {folder} says {name} = {value!r}", "It must be a whole number above 0.")
    return value


def check_token_ids(vocabulary: Mapping[str, int], rows: int, where: str) -> None:
    """Check that a network has an embedding for every token of its tokenizer; otherwise PyTorch fails at some texts only.

    Args:
        vocabulary: Ids of all tokens, with the added ones.
        rows: Number of embeddings.
        where: Folder or name of the model, for the message.

    Raises:
        ModelError: If a token has no embedding.
    """
    token = max(vocabulary, key=lambda each: vocabulary[each], default="")
    if token and vocabulary[token] >= rows:
        raise CheckpointError(
            f"the tokenizer of {where} has tokens up to {vocabulary[token]:,} ({token!r}), its text network {rows:,} embeddings",
            "Fetch the checkpoint again: tokenizer and weights belong together. A model that was given more tokens needs"
            " resize_token_embeddings of transformers.",
        )


def build_checkpoint_card(
    name: str,
    folders: Sequence[Path],
    native_spec: ImageSpec,
    fit: ResizeMode | None,
    *,
    description: str,
    licenses: tuple[str, ...],
    has_tokens: bool = True,
) -> ModelCard:
    """Return the card of a checkpoint that supports other fits than its own.

    Args:
        name: Name that the model was requested by.
        folders: All folders that its vectors depend on.
        native_spec: Image spec of the model's authors.
        fit: Fit to use instead of that of `native_spec`.
        description: Description for users.
        licenses: One line for each part.
        has_tokens: False for a model with dense vectors only.
    """
    spec = choose_image_spec(native_spec, fit)
    label = name if spec == native_spec else f"{name}-{spec.fit}"
    return ModelCard(
        name=name,
        model_id=compute_model_id(label, folders, spec),
        image_spec=spec,
        description=description,
        licenses=licenses,
        has_tokens=has_tokens,
    )


def compute_model_id(name: str, folders: Iterable[Path], image_spec: ImageSpec) -> str:
    """Return `<label>-<12 hex digits>`: the last part of the name, and a SHA-256 over image spec and files."""
    label = re.sub(r"[^a-z0-9.]+", "-", name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()).strip("-.")
    digest = hashlib.sha256(json.dumps(asdict(image_spec), sort_keys=True).encode())
    for folder in folders:
        for path in list_hashed_files(folder):
            try:
                file_hash = hash_file(path)
            except OSError as error:
                raise CheckpointError(f"{path} can't be read: {error.strerror}", "Make it readable.") from error
            digest.update(f"{path.relative_to(folder).as_posix()}\0{file_hash}\0".encode())
    return f"{label or 'model'}-{digest.hexdigest()[:12]}"


def write_library_files(folder: Path) -> None:
    """Write the files by which sentence-transformers loads a checkpoint of ours as a `SparseEncoder`. It needn't be installed."""
    modules = [{"idx": 0, "name": "0", "path": "", "type": STAIR_MODULE}]
    config = {"model_type": "SparseEncoder", "similarity_fn_name": "dot"}
    for name, value in ((MODULES_JSON, modules), (LIBRARY_CONFIG_JSON, config)):
        (folder / name).write_text(json.dumps(value, indent=2) + "\n", encoding="utf-8")


def names_stair_module(folder: Path) -> bool:
    """Return whether a folder is a checkpoint of ours to sentence-transformers."""
    try:
        modules = read_json_file(folder / MODULES_JSON)
    except (OSError, ValueError):
        return False
    return isinstance(modules, list) and any(isinstance(each, dict) and each.get("type") == STAIR_MODULE for each in modules)


def list_hashed_files(folder: Path) -> list[Path]:
    """Return the files of a folder that vectors may depend on: configuration, tokenizer, weights and code.

    What only tells sentence-transformers that a checkpoint is ours isn't part of it: older ones lack it.
    """
    skipped = (MODULES_JSON, LIBRARY_CONFIG_JSON) if names_stair_module(folder) else ()
    files = (path for path in folder.iterdir() if path.suffix in _HASHED_SUFFIXES and path.is_file())
    paths = [path for path in files if path.name not in skipped]
    if not any(path.suffix == ".safetensors" for path in paths):
        paths += folder.glob("pytorch_model*.bin")
    return sorted(paths)


def read_license(folder: Path) -> tuple[str, ...]:
    """Return the license named in the head of the model card (`license:`), if there is a card."""
    try:
        with open_regular_file(folder / "README.md") as file:
            front_matter = file.read(_MAX_FRONT_MATTER_BYTES).decode(errors="replace").replace("\r\n", "\n")
    except OSError:
        return ()
    match = re.search(r"^---\n(?:.*\n)*?license:[ \t]*(\S.*)\n(?:.*\n)*?---", front_matter)
    return (f"weights: {match.group(1).strip()}, as their model card says",) if match else ()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; cached while its size and modification time stay the same."""
    status = path.stat()
    return _hash_version(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_version(path: Path, size: int, changed_ns: int) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def copy_dense_model(folder: Path, to: Path) -> None:
    """Copy the files of a dense model into a checkpoint built from it, so that the checkpoint also works on another machine.

    These are the files that its vectors depend on, and its license. Pickled weights become safetensors.

    Raises:
        ModelError: If its weights are several pickles.
        OSError: If a file can't be read or written.
    """
    to.mkdir(parents=True)
    paths = [path for path in list_hashed_files(folder) if path.suffix not in (".py", ".bin")]
    for path in (*paths, *(path for pattern in _COPIED_NAMES for path in folder.glob(pattern))):
        shutil.copyfile(path, to / path.name)
    if any(path.suffix == ".safetensors" for path in paths):
        return
    from safetensors.torch import save_file

    from stair_es.model.adapters.weights import PICKLE_FILE, SAFETENSORS_FILE, read_checkpoint_weights

    if not (folder / PICKLE_FILE).is_file():
        raise CheckpointError(
            f"the weights in {folder} are several pickles, which a stair-es checkpoint can't contain",
            "Save the model with transformers as safetensors: model.save_pretrained(DIR).",
        )
    tensors = {name: tensor.clone().contiguous() for name, tensor in read_checkpoint_weights(folder).items()}
    save_file(tensors, to / SAFETENSORS_FILE, metadata={"format": "pt"})

"""A model that is a folder: what is known of it without loading it, and where its id comes from."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

from stair_es.errors import ModelError
from stair_es.extras import need
from stair_es.model import cuda
from stair_es.model.encoder import Encoder, EncoderKind, ModelCard, ModelSpec, check_known, choose_image_spec
from stair_es.types import Fit, ImageSpec

CONFIG = "config.json"
MODULES = "modules.json"
"""What a folder of sentence-transformers has, with or without a `config.json`."""
SENTENCEPIECE = "spiece.model"
"""The tokenizer of SigLIP 1."""

_COUNTED = frozenset({".json", ".model", ".py", ".safetensors", ".txt"})


class Format(Protocol):
    """How one kind of folder is recognised. Nothing of it imports a network library before `EncoderKind.load`."""

    @property
    def name(self) -> str:
        """What it is called, for people."""

    @property
    def pickled(self) -> bool:
        """Whether its weights may be a `pytorch_model.bin`, where there is no safetensors file."""

    def claims(self, config: Mapping[str, Any], folder: Path) -> bool:
        """Whether a folder with this configuration is one of these."""

    def kind(self, folder: Path, name: str, fit: Fit | None) -> EncoderKind:
        """The model in the folder; `name` is what it is asked for by, `fit` what is to replace its own.

        Raises:
            ModelError: Something is missing or doesn't fit, or the model takes no other fit.
        """


class CheckpointKind:
    """See `EncoderKind`: a folder that PyTorch runs."""

    def __init__(self, card: ModelCard, build: Callable[[ModelSpec], Encoder], *, dense_only: bool = False) -> None:
        """A model of which `build` makes the encoder, once the spec is checked; `dense_only` for one without words."""
        self.card, self._build, self.dense_only = card, build, dense_only

    def uses_gpu(self, spec: ModelSpec) -> bool:
        """See `EncoderKind.uses_gpu`."""
        return spec.backend in ("auto", "torch") and cuda.is_there()

    def load(self, spec: ModelSpec) -> Encoder:
        """See `EncoderKind.load`."""
        check_spec(spec)
        return self._build(spec)


def check_spec(spec: ModelSpec) -> None:
    """Nothing, if a checkpoint can be run like this.

    Raises:
        ModelError: It can't.
        MissingExtra: PyTorch or transformers isn't installed.
    """
    if spec.backend not in ("auto", "torch"):
        raise ModelError(f"{spec.name} runs in PyTorch only, not in {spec.backend!r}", "Take --backend torch or auto.")
    if spec.text_tower != "full":
        raise ModelError(f"{spec.name} has no text tower {spec.text_tower!r}", "Take --text-tower full.")
    check_known(spec)
    for module in ("torch", "transformers"):
        need(module, "models")


def no_words(name: str) -> ModelError:
    """What is said where a dense model is asked for words."""
    return ModelError(
        f"the model {name!r} has dense vectors only, no words: nothing of it can be indexed",
        "It is there to be compared with, by stair-es evaluate. To ingest, take a sparse model.",
    )


def read_config(folder: Path) -> dict[str, Any]:
    """What `config.json` says; nothing for a folder of sentence-transformers without one.

    Raises:
        ModelError: The folder isn't a checkpoint, or the file is no JSON object.
    """
    if not (folder / CONFIG).is_file() and (folder / MODULES).is_file():
        return {}
    return read_json(folder / CONFIG)


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file of a checkpoint.

    Raises:
        ModelError: It is missing, or no JSON object.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"{path.parent} is no checkpoint: it has no {path.name}", "Name the folder that holds it.") from None
    except (OSError, ValueError) as error:
        raise ModelError(f"{path} can't be read: {error}", "Fetch or write the checkpoint again.") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} is no JSON object", "Fetch or write the checkpoint again.")
    return found


def section(config: Mapping[str, Any], name: str, folder: Path) -> Mapping[str, Any]:
    """A part of the configuration.

    Raises:
        ModelError: It is no object.
    """
    found = config.get(name)
    if not isinstance(found, Mapping):
        raise ModelError(f"the config.json in {folder} has no section {name!r}", "Fetch the checkpoint again.")
    return found


def number(config: Mapping[str, Any], name: str, default: int, folder: Path) -> int:
    """A whole number above 0 in the configuration.

    Raises:
        ModelError: It is something else.
    """
    found = config.get(name, default)
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise ModelError(f"the config.json in {folder} says {name} = {found!r}", "It must be a whole number above 0.")
    return found


def build_card(
    name: str, folders: Sequence[Path], own: ImageSpec, fit: Fit | None, *, description: str, licences: tuple[str, ...]
) -> ModelCard:
    """Return the card of a checkpoint whose images may come in other fits than its own.

    Args:
        name: What it is asked for by.
        folders: All that its vectors depend on.
        own: The pixels as the model's authors prepare them.
        fit: What is to replace the fit of `own`.
        description: For people.
        licences: One line for each part.

    Raises:
        ModelError: There is no such fit, or a file can't be read.
    """
    spec = choose_image_spec(own, fit)
    called = name if spec == own else f"{name}-{spec.fit}"
    return ModelCard(
        name=name,
        model_id=model_id(called, folders, spec),
        image_spec=spec,
        description=description,
        licences=licences,
    )


def model_id(name: str, folders: Iterable[Path], image_spec: ImageSpec) -> str:
    """`<label>-<12 hex digits>`: the last part of the name, and a SHA-256 over files and pixels that make the vectors.

    Raises:
        ModelError: A file can't be read.
    """
    label = re.sub(r"[^a-z0-9.]+", "-", name.rstrip("/\\").replace("\\", "/").rpartition("/")[2].lower()).strip("-.")
    total = hashlib.sha256(json.dumps(asdict(image_spec), sort_keys=True).encode())
    for folder in folders:
        for path in counted(folder):
            try:
                digest = hash_file(path)
            except OSError as error:
                raise ModelError(f"{path} can't be read: {error.strerror}", "Make it readable.") from error
            total.update(f"{path.relative_to(folder).as_posix()}\0{digest}\0".encode())
    return f"{label or 'model'}-{total.hexdigest()[:12]}"


def counted(folder: Path) -> list[Path]:
    """The files of a folder that its vectors may depend on: configuration, tokenizer, weights, code."""
    found = [path for path in folder.iterdir() if path.suffix in _COUNTED and path.is_file()]
    if not any(path.suffix == ".safetensors" for path in found):
        found += folder.glob("pytorch_model*.bin")
    return sorted(found)


def licence_of(folder: Path) -> tuple[str, ...]:
    """What the model card says, if there is one: the line `license:` at its head."""
    try:
        head = (folder / "README.md").read_text(encoding="utf-8", errors="replace")[:4096]
    except OSError:
        return ()
    said = re.search(r"^---\n(?:.*\n)*?license:[ \t]*(\S.*)\n(?:.*\n)*?---", head)
    return (f"weights: {said.group(1).strip()}, as their model card says",) if said else ()


def hash_file(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal; cached while its size and modification time stay the same.

    Raises:
        OSError: If the file can't be read.
    """
    status = path.stat()
    return _hash_version(path, status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _hash_version(path: Path, size: int, changed_ns: int) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            total.update(piece)
    return total.hexdigest()

"""Copy a dense model into a checkpoint built from it, so that the checkpoint also works on another machine."""

from __future__ import annotations

import shutil
from pathlib import Path

from stair_es.errors import ModelError
from stair_es.model.checkpoint import list_hashed_files

_COPIED_NAMES = ("README.md", "LICENSE*", "NOTICE*")


def copy_dense_model(folder: Path, to: Path) -> None:
    """Copy the files of a dense model that its vectors depend on, and its license. Pickled weights become safetensors.

    Args:
        folder: Checkpoint folder of the dense model.
        to: Folder to create.

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
        raise ModelError(
            f"the weights in {folder} are several pickles, which a stair-es checkpoint can't contain",
            "Save the model with transformers as safetensors: model.save_pretrained(DIR).",
        )
    tensors = {name: tensor.clone().contiguous() for name, tensor in read_checkpoint_weights(folder).items()}
    save_file(tensors, to / SAFETENSORS_FILE, metadata={"format": "pt"})

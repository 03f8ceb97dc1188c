"""Training states on disk, from which an interrupted training resumes, and copies elsewhere. Files are replaced atomically."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stair_es.errors import StairError, UsageError
from stair_es.model.stair.checkpoint import is_stored_tensor
from stair_es.model.stair.configuration import CONFIG_FILE
from stair_es.model.stair.modeling import StairModel
from stair_es.sources.io.remote import describe_store_error, open_file_system, strip_credentials
from stair_es.training.step import EMA

STATE_FILE = "state.pt"
_OLD_STATE = re.compile(r"state-(\d+)\.pt")
"""An older state, with its step."""


@dataclass(kw_only=True)
class TrainingProgress:
    """Progress of a training."""

    stage: int = 0
    """Current stage, from 0."""
    step: int = 0
    """Completed steps of the current stage."""
    global_step: int = 0
    """Completed steps of all stages."""
    best_recall: float = -1.0
    """Best recall so far."""
    best_step: int = -1
    kept_metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    """Metrics of the parameters that the checkpoint gets so far, by set."""
    validations_since_best: int = 0
    """Validations since the best one."""
    stopped_early: bool = False
    """Whether training was stopped early."""
    readers: list[Mapping[str, Any] | None] = field(default_factory=list)
    """Places of all workers in their shards."""
    best_parameters: dict[str, Tensor] = field(default_factory=dict)
    """Includes buffers, such as the means of batch norms."""


def save_training_state(
    folder: Path,
    key: str,
    progress: TrainingProgress,
    model: StairModel,
    average: EMA,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    keep_states: int = 1,
) -> None:
    """Write the state; the previous one is kept until the new one is complete, or longer if more states are kept.

    Raises:
        OSError: If the state can't be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    _delete_temporaries(folder)
    state = {
        "key": key,
        "progress": {name: value for name, value in vars(progress).items() if name != "best_parameters"},
        "best": progress.best_parameters,
        "model": get_trained_tensors(model),
        "average": average.shadow,
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
    }
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    if keep_states > 1 and (folder / STATE_FILE).is_file():
        _keep_previous(folder)
    temporary.replace(folder / STATE_FILE)
    states = list_old_states(folder)
    older = [step for step in states if step < progress.global_step]
    for step in states.keys() - older[: keep_states - 1]:  # later ones belong to a discarded future
        states[step].unlink()


def _delete_temporaries(folder: Path) -> None:
    """Delete what killed processes left, each as large as a state. Only one process writes."""
    for path in folder.glob(f".{STATE_FILE}.*"):
        path.unlink(missing_ok=True)


def _keep_previous(folder: Path) -> None:
    """Give the previous state a name of its own. It also stays `state.pt` until the new one replaces it."""
    previous = folder / STATE_FILE
    named = folder / f"state-{_read_step(previous)}.pt"
    named.unlink(missing_ok=True)
    try:
        os.link(previous, named)
    except OSError:  # some network file systems have no links
        shutil.copyfile(previous, named)


def _read_step(path: Path) -> int:
    return int(_load_state(path, mmap=True)["progress"]["global_step"])


def list_old_states(folder: Path) -> dict[int, Path]:
    """List the older states by step, newest first."""
    found = [(int(match[1]), path) for path in folder.glob("state-*.pt") if (match := _OLD_STATE.fullmatch(path.name))]
    return dict(sorted(found, reverse=True))


def restore_old_state(folder: Path, step: int) -> None:
    """Make the state of a step the newest one. Later ones are kept until the next state is saved.

    Raises:
        UsageError: If there is no state of that step.
    """
    newest = folder / STATE_FILE
    states = list_old_states(folder)
    newest_step = _read_step_if_readable(newest)
    if newest_step == step:
        return
    if step not in states:
        steps = sorted([*states, *([] if newest_step is None else [newest_step])])
        raise UsageError(
            f"{folder} has no state of step {step}",
            f"It has those of: {', '.join(map(str, steps)) or 'none'}. Set validation.keep_states to keep more.",
            code="no-state-of-step",
        )
    if newest_step is not None:
        _keep_previous(folder)
    temporary = folder / f".{STATE_FILE}.{os.getpid()}"
    shutil.copyfile(states[step], temporary)
    temporary.replace(newest)


def _read_step_if_readable(path: Path) -> int | None:
    try:
        return _read_step(path) if path.is_file() else None
    except UsageError:
        return None


def _load_state(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    try:
        state: dict[str, Any] = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except Exception as error:  # torch has no specific exception for a broken file
        raise UsageError(
            f"can't read {path}: {error}",
            "Delete it to start over, or go back to an older state with --resume-from.",
            code="state-unreadable",
        ) from error
    return state


def get_trained_tensors(model: StairModel) -> dict[str, Tensor]:
    """Return the current tensors that training may change, without those of backbones from a package."""
    return {name: tensor.detach() for name, tensor in model.state_dict().items() if is_stored_tensor(name, model.config)}


def load_training_state(folder: Path, key: str) -> dict[str, Any] | None:
    """Load the state of a folder; None if there is none.

    Args:
        folder: Output folder of the training.
        key: Hash of configuration and data: a state with another one is rejected.

    Raises:
        UsageError: If the state belongs to another configuration, or can't be read.
    """
    path = folder / STATE_FILE
    if not path.is_file():
        return None
    state = _load_state(path)
    if state.get("key") != key:
        raise UsageError(
            f"{folder} contains the state of a training run with another configuration or other data",
            "Use another --out, or --restart to discard that run.",
            code="state-of-other-training",
        )
    return state


def restore_training_state(state: dict[str, Any], model: StairModel, average: EMA) -> TrainingProgress:
    """Load a state into a model and its average, and return the progress. The optimizer state is restored by the stage."""
    model.load_state_dict(state["model"], strict=False)
    with torch.no_grad():
        for name, shadow in average.shadow.items():
            shadow.copy_(state["average"][name])
    return TrainingProgress(**state["progress"], best_parameters=state["best"])


class RunCopies:
    """Copies of an output folder at an fsspec URL, made by a thread after each saved state. Without a URL, there are none.

    States are copied last: at every moment the copied log is at least as long as the copied state needs.
    """

    def __init__(self, url: str | None, folder: Path, on_message: Callable[[str], None]) -> None:
        """Open the file system of a URL.

        Args:
            url: URL of a folder; None for no copies.
            folder: Output folder of the training.
            on_message: Called with the reason if a copy fails.

        Raises:
            MissingExtra: If the library of its scheme isn't installed.
            UsageError: If no library supports its scheme.
        """
        self._name = strip_credentials(url) if url else ""
        self._files: Any = None
        self._root = ""
        if url:
            self._files, self._root = open_file_system(url)
        self._folder, self._on_message = folder, on_message
        self._copied: dict[str, tuple[int, int]] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="copies")
        self._waiting: Future[str] | None = None

    def start(self) -> None:
        """Start to copy what has changed, after the copy in progress. One that waits already will copy this, too."""
        if self._files is not None and not (self._waiting and not self._waiting.running() and not self._waiting.done()):
            self._waiting = self._pool.submit(self._copy_changed)

    def finish(self) -> str:
        """Copy the rest, wait for it, and return why it failed; otherwise an empty text."""
        problem = ""
        if self._files is not None:
            problem = self._pool.submit(self._copy_changed).result()
        self._pool.shutdown()
        return problem

    def fetch_missing(self) -> bool:
        """Fetch the copies if they have a state and the output folder has neither a state nor a model; return whether they were.

        Raises:
            StairError: If they can't be read.
        """
        if self._files is None or any((self._folder / name).exists() for name in (STATE_FILE, CONFIG_FILE)):
            return False
        _delete_temporaries(self._folder)
        try:
            names = self._list_copies()
            if STATE_FILE not in names:
                return False
            for name in sorted(names, key=_rank_file):
                path = self._folder / name
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(f".{path.name}.{os.getpid()}")
                self._files.get_file(self._get_target(name), str(temporary))
                temporary.replace(path)
        except Exception as error:  # file systems pass on the errors of their libraries
            raise StairError(
                f"can't fetch the training in {self._name}: {describe_store_error(error)}",
                "Check log.copy_to and its credentials, or leave it out to start over.",
                code="copies-not-fetched",
            ) from error
        return True

    def _copy_changed(self) -> str:
        try:
            found = [path for path in self._folder.rglob("*") if _is_copied(path, self._folder)]
            paths = {path.relative_to(self._folder).as_posix(): path for path in found}
            for name in sorted(paths, key=_rank_file):
                self._copy_file(name, paths[name])
            for name in self._list_copies():
                if name not in paths and _OLD_STATE.fullmatch(name):
                    self._files.rm_file(self._get_target(name))
        except Exception as error:  # noqa: BLE001  file systems pass on the errors of their libraries
            problem = f"can't copy to {self._name}: {describe_store_error(error)}"
            self._on_message(f"{problem}; it is tried again after the next saved state")
            return problem
        return ""

    def _copy_file(self, name: str, path: Path) -> None:
        """Copy a file if it has changed. A local copy is replaced when the new one is complete, as objects are anyway."""
        try:
            status = path.stat()
        except FileNotFoundError:  # an old state, deleted by now
            return
        version = (status.st_size, status.st_mtime_ns)
        if self._copied.get(name) == version:
            return
        target = self._get_target(name)
        part = f"{target}.part" if "file" in self._files.protocol else target
        if not self._files.async_impl:  # object stores have no folders, and would look for the bucket
            self._files.makedirs(target.rpartition("/")[0], exist_ok=True)
        self._files.put_file(str(path), part)
        if part != target:
            self._files.mv(part, target)
        self._copied[name] = version

    def _get_target(self, name: str) -> str:
        return f"{self._root.rstrip('/')}/{name}"

    def _list_copies(self) -> list[str]:
        try:
            paths = self._files.find(self._root)
        except FileNotFoundError:
            return []
        root = self._root.strip("/")
        names = [str(path).strip("/").removeprefix(root).lstrip("/") for path in paths]
        return [name for name in names if name and not name.endswith(".part") and ".." not in name.split("/")]


def _is_copied(path: Path, folder: Path) -> bool:
    """Return whether a file belongs to the copies: not temporary files, and not those that W&B uploads itself."""
    parts = path.relative_to(folder).parts
    return path.is_file() and not any(part.startswith(".") for part in parts) and parts[0] != "wandb"


def _rank_file(name: str) -> tuple[bool, bool, str]:
    return name == STATE_FILE, _OLD_STATE.fullmatch(name) is not None, name

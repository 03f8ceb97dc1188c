"""States of several steps, and copies of the output folder elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from support.errors import expect_error
from support.models.tiny_training import run_training
from support.polling import poll_until

from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.checkpointing import RunCopies, restore_old_state
from stair_es.training.step import GradCacheStep
from stair_es.training.train import prepare_output_folder

CHANGES = {"recipe.steps": 8, "validation.every": 2, "validation.keep_states": 3}


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the training fail in the update of a number, from now on; 0 for never."""
    count, last = 0, 0
    original = GradCacheStep.sum_gradients

    def sum_gradients(step: GradCacheStep) -> None:
        nonlocal count
        count += 1
        if count == last:
            raise KeyboardInterrupt
        original(step)

    def set_last(number: int) -> None:
        nonlocal count, last
        count, last = 0, number

    monkeypatch.setattr(GradCacheStep, "sum_gradients", sum_gradients)
    return set_last


def list_names(folder: Path, pattern: str = "state*") -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


def test_the_last_states_are_kept_and_resumed_from(training_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    run_training(training_folder, out, CHANGES)
    assert list_names(out) == ["state-4.pt", "state-6.pt", "state.pt"]
    files = {name: (out / name).read_bytes() for name in ("model.safetensors", "log.csv")}
    with expect_error("no-state-of-step") as caught:
        restore_old_state(out, 2)
    assert "4, 6, 8" in caught.value.remedy
    restore_old_state(out, 8)  # the newest
    assert prepare_output_folder(out, restart=False, resume_from=4)
    assert list_names(out) == ["state-4.pt", "state-6.pt", "state-8.pt", "state.pt"]  # the later ones until the next save
    run_training(training_folder, out, CHANGES)
    assert list_names(out) == ["state-4.pt", "state-6.pt", "state.pt"]
    assert {name: (out / name).read_bytes() for name in files} == files
    run_training(training_folder, out, {**CHANGES, "validation.keep_states": 1})  # it may change
    assert not prepare_output_folder(out, restart=True)
    assert list_names(out) == []


def test_a_lost_folder_is_fetched_from_its_copies(
    training_folder: Path, tmp_path: Path, interrupt: Callable[[int], None]
) -> None:
    copies = tmp_path / "remote" / "run"
    changes = {**CHANGES, "log.copy_to": copies.as_uri(), "log.to": ["tensorboard"]}
    run_training(training_folder, tmp_path / "straight", CHANGES)
    interrupt(6)
    with pytest.raises(KeyboardInterrupt):
        run_training(training_folder, tmp_path / "out", changes)
    interrupt(0)
    poll_until(lambda: list_names(copies) == ["state-2.pt", "state.pt"])  # a process ends after its copies
    shutil.rmtree(tmp_path / "out")
    assert prepare_output_folder(tmp_path / "out", restart=False, copies=copies.as_uri())
    assert list_names(tmp_path / "out") == ["state-2.pt", "state.pt"]
    result = run_training(training_folder, tmp_path / "out", changes)
    assert (result.steps, result.problems) == (8, [])
    for folder in (tmp_path / "out", copies):
        assert list_names(folder) == ["state-4.pt", "state-6.pt", "state.pt"]
        for name in ("model.safetensors", "log.csv"):
            assert (folder / name).read_bytes() == (tmp_path / "straight" / name).read_bytes(), name
    assert list_names(copies, "tensorboard/*")
    assert not RunCopies(copies.as_uri(), tmp_path / "out", print).fetch_missing()  # there is something already
    assert not RunCopies((tmp_path / "no").as_uri(), tmp_path / "new", print).fetch_missing()


def test_a_failed_copy_is_reported_and_tried_again(training_folder: Path, tmp_path: Path) -> None:
    messages: list[str] = []
    callbacks = replace(NO_CALLBACKS, on_message=messages.append)
    (tmp_path / "file").write_text("no folder")
    changes = {**CHANGES, "log.copy_to": (tmp_path / "file" / "run").as_uri()}
    result = run_training(training_folder, tmp_path / "out", changes, callbacks=callbacks)
    assert (result.steps, len(result.problems)) == (8, 1)
    assert str(tmp_path / "file") in result.problems[0]
    assert [line for line in messages if result.problems[0] in line]
    (tmp_path / "file").unlink()
    assert run_training(training_folder, tmp_path / "out", changes).problems == []
    assert (tmp_path / "file" / "run" / "model.safetensors").is_file()
    with expect_error("config-error"):
        run_training(training_folder, tmp_path / "out", {"log.copy_to": "somewhere"})
    with expect_error("unknown-store-scheme"):
        run_training(training_folder, tmp_path / "out", {"log.copy_to": "nonsense://bucket/run"})

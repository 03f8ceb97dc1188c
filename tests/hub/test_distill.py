"""`stair-es distill` on a published CLIP and the example photographs. See `tests/hub/conftest.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandRunner

from stair_es.model.labels.word_list import load_seen_words

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
CLIP = "openai/clip-vit-base-patch32"


@pytest.fixture(scope="module")
def command_runner() -> CommandRunner:
    return CommandRunner({"STAIR_ES_MODEL": None})


@pytest.fixture(scope="module")
def distilled_checkpoint(tmp_path_factory: pytest.TempPathFactory, command_runner: CommandRunner) -> Path:
    """Return a checkpoint without training: some minutes on two cores."""
    folder = tmp_path_factory.mktemp("distilled") / "clip-words"
    report = command_runner.read_json("distill", CLIP, "--images", PHOTOS, "--out", folder)
    assert (report["images"], report["words"]) == (40, len(load_seen_words()))
    return folder


def get_recall(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the recall of each method that has one."""
    return {row["method"]: row["exact"]["recall"]["5"] for row in rows if "recall" in row["exact"]}


def test_words_retrieve_nearly_what_the_dense_model_does(distilled_checkpoint: Path, command_runner: CommandRunner) -> None:
    """Forty photographs only say that nothing is broken: run it on COCO for a number."""
    report = command_runner.read_json(
        "evaluate", "retrieval", PHOTOS / "captions.jsonl", "--exact", "--model", distilled_checkpoint
    )
    for direction in ("text -> image", "image -> text"):
        recall = get_recall([row for row in report["rows"] if row["direction"] == direction])
        assert recall["STAIR"] >= recall["dense kNN"] - 0.15


def test_the_words_of_photographs_can_be_read(distilled_checkpoint: Path, command_runner: CommandRunner) -> None:
    for photo, word in {"giant-panda": "panda", "wall-clock": "clock", "horses-on-a-ridge": "horse"}.items():
        tokens = command_runner.read_json("encode", PHOTOS / f"{photo}.jpg", "--model", distilled_checkpoint)["tokens"]
        assert word in list(tokens)[:20], list(tokens)[:20]


def test_trained_heads_over_a_clip_read_photographs(tmp_path: Path, command_runner: CommandRunner) -> None:
    """It only says that training works: forty photographs teach nothing about others."""
    arguments = ("--method", "head", "--captions", PHOTOS / "captions.jsonl", "--out", tmp_path / "clip-head")
    report = command_runner.read_json("distill", CLIP, *arguments)
    assert report["pairs"] == 36
    report = command_runner.read_json(
        "evaluate", "retrieval", PHOTOS / "captions.jsonl", "--exact", "--model", tmp_path / "clip-head"
    )
    recall = get_recall(report["rows"])
    assert recall["STAIR"] >= recall["dense kNN"] - 0.15
    tokens = command_runner.read_json("encode", PHOTOS / "giant-panda.jpg", "--model", tmp_path / "clip-head")["tokens"]
    assert "panda" in list(tokens)[:20], list(tokens)[:20]

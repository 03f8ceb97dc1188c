"""Zero-shot and probes against scikit-learn's own accuracy and regression; folders of classes and the names of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image
from support.errors import expect_error
from support.messages import forward_messages

from stair_es import SparseVector
from stair_es.errors import ModelError
from stair_es.eval.datasets.image_folder import read_image_folder
from stair_es.eval.linear_probe import build_matrices, evaluate_linear_probe, fit_probe, select_held_out
from stair_es.eval.models import build_evaluated_model
from stair_es.eval.zero_shot import (
    average_dense_vectors,
    average_token_vectors,
    compute_accuracy,
    evaluate_zero_shot,
    fill_prompts,
    score_by_tokens,
    score_by_vectors,
)
from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.types import Floats, ImageSpec, Pixels

COLORS = {"n01_red": (220, 30, 30), "n02_green": (30, 200, 30), "n03_blue": (30, 30, 220)}


def normalize_rows(rows_BD: NDArray[np.floating[Any]]) -> Floats:
    return np.asarray(rows_BD / np.linalg.norm(rows_BD, axis=1, keepdims=True), dtype=np.float32)


class ColorEncoder(Encoder):
    """An encoder of the three channels and their names."""

    card = ModelCard(name="colors", model_id="colors@1", image_spec=ImageSpec(size_px=8), description="")
    has_dense = True
    words = ("red", "green", "blue")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        means_BC = pixels_BHWC.reshape(len(pixels_BHWC), -1, 3).mean(axis=1)
        return [
            SparseVector.from_pairs((word, float(mean)) for word, mean in zip(self.words, means_C, strict=True) if mean)
            for means_C in means_BC
        ]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_pairs((word, 1.0) for word in self.words if word in text) for text in texts]

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        return normalize_rows(pixels_BHWC.reshape(len(pixels_BHWC), -1, 3).mean(axis=1))

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        return normalize_rows(np.array([[float(word in text) + 0.01 for word in self.words] for text in texts]))


class DenseColorEncoder(ColorEncoder):
    """The same without tokens, as CLIP is."""

    card = replace(ColorEncoder.card, model_id="dense@1", has_tokens=False)

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        raise ModelError("dense vectors only")

    encode_texts = encode_images  # type: ignore[assignment]


class BrokenEncoder(ColorEncoder):
    card = replace(ColorEncoder.card, model_id="broken@1")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        raise ModelError("no weights", code="broken")


MODELS = [
    build_evaluated_model(encoder(), ModelSpec(name=encoder.card.model_id))
    for encoder in (ColorEncoder, DenseColorEncoder, BrokenEncoder)
]


def write_image_folder(root: Path, count: int, seed: int = 0) -> Path:
    """Write noisy squares of three colors, a class each."""
    rng = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noisy = np.clip(np.array(color) + rng.integers(-25, 26, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / name / f"{number}.JPEG", quality=95)
    return root


def ignore_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""


def build_vectors(rows_ND: NDArray[np.floating[Any]]) -> list[SparseVector]:
    """Return rows as sparse vectors of the tokens `w0`, `w1` ..."""
    return [SparseVector.from_pairs((f"w{column}", float(x)) for column, x in enumerate(row_D) if x) for row_D in rows_ND]


@pytest.mark.parametrize("classes", [3, 8, 40])
def test_accuracy_is_that_of_scikit_learn(classes: int) -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(classes)
    scores_NK = rng.normal(size=(200, classes))
    labels = rng.integers(0, classes, 200).tolist()
    result = compute_accuracy(iter(scores_NK), labels)
    assert result.top1 == pytest.approx(sklearn_metrics.accuracy_score(labels, scores_NK.argmax(axis=1)))
    expected = sklearn_metrics.top_k_accuracy_score(labels, scores_NK, k=5, labels=range(classes)) if classes > 5 else 1.0
    assert result.top5 == pytest.approx(expected)
    assert result.mean_class == pytest.approx(sklearn_metrics.balanced_accuracy_score(labels, scores_NK.argmax(axis=1)))


def test_ties_count_against_the_model() -> None:
    scores_NK = np.array([[0.5, 0.5, 0.1], [0, 0, 0], [0.1, 0.0, 0.2]])
    assert compute_accuracy(scores_NK, [0, 1, 2]).top1 == pytest.approx(1 / 3)
    assert compute_accuracy([np.zeros(6)], [0]).top5 == 0.0


def test_classes_are_means_of_unit_vectors() -> None:
    rng = np.random.default_rng(3)
    rows_ND = rng.random((7, 5)).astype(np.float32) + 0.01
    images_ND = rng.random((4, 5)).astype(np.float32) + 0.01
    class_vectors = average_token_vectors(build_vectors(rows_ND), [3, 4])
    sparse_NK = np.stack(list(score_by_tokens(build_vectors(images_ND), class_vectors)))
    dense_NK = np.stack(list(score_by_vectors(images_ND, average_dense_vectors(rows_ND, [3, 4]))))
    assert sparse_NK == pytest.approx(dense_NK, rel=1e-5)
    mean_D = np.mean([row_D / np.linalg.norm(row_D) for row_D in rows_ND[:3]], axis=0)
    assert dense_NK[:, 0] == pytest.approx(images_ND @ (mean_D / np.linalg.norm(mean_D)), rel=1e-5)
    assert fill_prompts([["tench", "fish"], ["dog"]], ["a {}", "{}"]) == [
        ["a tench", "tench", "a fish", "fish"],
        ["a dog", "dog"],
    ]


def test_zero_shot_with_tokens_dense_vectors_and_failures(tmp_path: Path) -> None:
    labeled = read_image_folder(write_image_folder(tmp_path / "set", 4))
    (tmp_path / "set" / "n01_red" / "0.JPEG").write_bytes(b"no image")
    messages: list[str] = []
    with forward_messages(messages.append):
        result = evaluate_zero_shot(labeled, MODELS, ["a {}"], progress=ignore_progress)
    rows = result.to_dict()["rows"]
    assert [(row["vectors"], row["model"], row["images"], row["top1"]) for row in rows] == [
        *(("tokens", "colors@1", 11, 1.0), ("dense", "colors@1", 11, 1.0), ("dense", "dense@1", 11, 1.0)),
    ]
    [unreadable, broken] = result.problems
    assert "0.JPEG" in unreadable
    assert "broken@1" in broken
    table = [[cell.strip() for cell in line.split("|")] for line in result.to_markdown().splitlines()]
    assert ["tokens", "colors@1", "100.0"] in [cells[1:4] for cells in table]
    assert [model.label in message for model, message in zip(MODELS, messages, strict=True)] == [True] * 3
    with expect_error("broken"), forward_messages(messages.append):
        evaluate_zero_shot(labeled, MODELS[2:], ["a {}"], progress=ignore_progress)
    with expect_error("config-error") as caught, forward_messages(messages.append):
        evaluate_zero_shot(labeled, MODELS[:1], ["a photo"], progress=ignore_progress)
    assert "'a photo'" in str(caught.value)


def test_unknown_classes_are_missed(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["red", "green", "mauve"]))
    labeled = read_image_folder(write_image_folder(tmp_path / "set", 2), classes=names)
    result = evaluate_zero_shot(labeled, MODELS[:1], ["{}"], progress=ignore_progress)
    assert result.to_dict()["rows"][0]["top1"] == pytest.approx(2 / 3)
    [remark] = result.remarks
    assert "colors@1: 1 " in remark


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("a.json", json.dumps({name: name[4:] for name in COLORS} | {"n99_other": "other"})),
        ("b.json", json.dumps({name: [name[4:], "  a   color "] for name in COLORS})),
        ("c.json", json.dumps([name[4:] for name in COLORS])),
        ("d.json", json.dumps({str(index): [name, name[4:]] for index, name in enumerate(COLORS)})),
        ("e.txt", "".join(f"{name} {name[4:]}, a color\n" for name in COLORS)),
    ],
)
def test_names_of_classes(tmp_path: Path, file: str, text: str) -> None:
    root = write_image_folder(tmp_path / "set", 3)
    (tmp_path / file).write_text(text)
    (root / "empty").mkdir()
    (root / ".hidden").mkdir()
    (root / "notes.txt").write_text("no class")
    labeled = read_image_folder(root, classes=tmp_path / file, limit=2)
    assert labeled.classes == tuple(COLORS)
    assert [names[0] for names in labeled.names] == ["red", "green", "blue"]
    assert {names[1:] for names in labeled.names} == ({("a color",)} if file[0] in "be" else {()})
    assert labeled.labels == (0, 0, 1, 1, 2, 2)


@pytest.mark.parametrize(
    ("file", "text", "facts"),
    [
        ("a.json", '{"n01_red": "red"}', ("2 of 3", "n02_green, n03_blue")),
        ("a.json", '["red"]', ("1 names", "3 folders")),
        ("a.json", '"red"', ("JSON object",)),
        ("a.json", "{", ("line 1 column 2",)),
        ("a.txt", "n01_red\n", ("3 of 3",)),
    ],
)
def test_names_that_are_missing(tmp_path: Path, file: str, text: str, facts: tuple[str, ...]) -> None:
    (tmp_path / file).write_text(text)
    root = write_image_folder(tmp_path / "set", 1)
    with expect_error("dataset-error") as caught:
        read_image_folder(root, classes=tmp_path / file)
    assert [fact for fact in (str(tmp_path / file), *facts) if fact not in caught.value.message] == []


def test_a_folder_has_at_least_two_classes(tmp_path: Path) -> None:
    write_image_folder(tmp_path / "set", 1)
    with expect_error("dataset-error") as caught:
        read_image_folder(tmp_path)
    assert f"{tmp_path} has 1" in caught.value.message


def test_the_probe_is_the_regression_of_scikit_learn() -> None:
    sklearn_linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(8)
    labels = [int(label) for label in rng.integers(0, 4, 120)]
    rows_NV = rng.random((120, 9)) * (rng.random((120, 9)) < 0.5) + np.eye(4, 9)[labels] * 0.4
    sparse_NV, _ = build_matrices(build_vectors(rows_NV), [SparseVector(("unseen",), (1.0,))])
    assert sparse_NV.toarray() == pytest.approx(rows_NV)
    dense, sparse = fit_probe(rows_NV, labels), fit_probe(sparse_NV, labels)
    assert dense.c == sparse.c
    assert dense.compute_scores(rows_NV) == pytest.approx(sparse.compute_scores(sparse_NV), abs=1e-2)
    scale = 1 / np.linalg.norm(rows_NV, axis=1).mean()
    plain = sklearn_linear.LogisticRegression(C=dense.c, max_iter=1000).fit(rows_NV * scale, labels)
    assert compute_accuracy(dense.compute_scores(rows_NV), labels).top1 == pytest.approx(plain.score(rows_NV * scale, labels))
    assert dense.converged
    assert not fit_probe(rows_NV, labels, steps=1).converged


def test_a_fifth_of_each_class_is_held_out() -> None:
    pytest.importorskip("sklearn")
    labels = [*[0] * 10, *[1] * 3, 2, *[3] * 2]
    held_out_N = select_held_out(labels)
    assert [int(held_out_N[np.array(labels) == label].sum()) for label in range(4)] == [2, 1, 0, 1]
    assert fit_probe(np.eye(2), [0, 1]).c in (1.0, 10.0)  # nothing to choose by
    assert fit_probe(np.eye(2), [0, 1]).compute_scores(np.eye(2)).shape == (2, 2)


def test_probe_of_tokens_and_dense_vectors(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    train = read_image_folder(write_image_folder(tmp_path / "train", 5))
    test_folder = write_image_folder(tmp_path / "test", 2, seed=1)
    (test_folder / "n03_blue").rename(test_folder / "n09_mauve")
    result = evaluate_linear_probe(train, read_image_folder(test_folder), MODELS, progress=ignore_progress)
    rows = result.to_dict()["rows"]
    assert [(row["vectors"], row["model"], row["train_images"], row["images"], row["top1"]) for row in rows] == [
        *(("tokens", "colors@1", 15, 4, 1.0), ("dense", "colors@1", 15, 4, 1.0), ("dense", "dense@1", 15, 4, 1.0)),
    ]
    assert result.problems[0].startswith("test/n09_mauve: ")
    for path in list(test_folder.iterdir()):
        path.rename(test_folder / f"other_{path.name}")
    with expect_error("dataset-error") as caught:
        evaluate_linear_probe(train, read_image_folder(test_folder), MODELS, progress=ignore_progress)
    assert "other_n01_red, other_n02_green" in caught.value.message

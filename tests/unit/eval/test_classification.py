"""Zero-shot and probes against scikit-learn's own accuracy and regression; folders of classes and the names of classes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.messages import forward_messages

from stair_es import SparseVector
from stair_es.errors import ModelError, UsageError
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


class ColorEncoder(Encoder):
    """An encoder that sees the three channels, and knows their names."""

    card = ModelCard(name="colors", model_id="colors@1", image_spec=ImageSpec(size_px=8), description="")
    has_dense = True
    words = ("red", "green", "blue")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        means_BC = pixels_BHWC.reshape(len(pixels_BHWC), -1, 3).mean(axis=1)
        return [SparseVector.from_pairs((w, float(v)) for w, v in zip(self.words, row, strict=True) if v) for row in means_BC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_pairs((word, 1.0) for word in self.words if word in text) for text in texts]

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        rows = pixels_BHWC.reshape(len(pixels_BHWC), -1, 3).mean(axis=1).astype(np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        rows = np.array([[float(word in text) + 0.01 for word in self.words] for text in texts], dtype=np.float32)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


class DenseColorEncoder(ColorEncoder):
    """The same without words, as CLIP is."""

    card = replace(ColorEncoder.card, model_id="dense@1", has_tokens=False)

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        raise ModelError("dense vectors only")

    encode_texts = encode_images  # type: ignore[assignment]


class BrokenEncoder(ColorEncoder):
    card = replace(ColorEncoder.card, model_id="broken@1")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        raise ModelError("its weights are gone")


MODELS = [
    build_evaluated_model(made(), ModelSpec(name=made.card.model_id)) for made in (ColorEncoder, DenseColorEncoder, BrokenEncoder)
]


def folder(root: Path, count: int, seed: int = 0) -> Path:
    """Noisy squares of three colors, a class each."""
    rng = np.random.default_rng(seed)
    for name, color in COLORS.items():
        (root / name).mkdir(parents=True)
        for number in range(count):
            noisy = np.clip(np.array(color) + rng.integers(-25, 26, (8, 8, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(root / name / f"{number}.JPEG", quality=95)
    return root


def nothing(what: str, done: int, total: int) -> None:
    """No progress is shown."""


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
    assert compute_accuracy([np.array([0.5, 0.5, 0.1]), np.zeros(3), np.array([0.1, 0.0, 0.2])], [0, 1, 2]).top1 == pytest.approx(
        1 / 3
    )
    assert compute_accuracy([np.zeros(6)], [0]).top5 == 0.0


def test_classes_are_means_of_unit_vectors() -> None:
    rng = np.random.default_rng(3)
    rows_ND = rng.random((7, 5)).astype(np.float32) + 0.01
    vectors = [SparseVector.from_pairs((f"w{index}", float(x)) for index, x in enumerate(row)) for row in rows_ND]
    images_ND = rng.random((4, 5)).astype(np.float32) + 0.01
    images = [SparseVector.from_pairs((f"w{index}", float(x)) for index, x in enumerate(row)) for row in images_ND]
    sparse_NK = np.stack(list(score_by_tokens(images, average_token_vectors(vectors, [3, 4]))))
    dense_NK = np.stack(list(score_by_vectors(images_ND, average_dense_vectors(rows_ND, [3, 4]))))
    assert sparse_NK == pytest.approx(dense_NK, rel=1e-5)
    mean_D = np.mean([row / np.linalg.norm(row) for row in rows_ND[:3]], axis=0)
    assert dense_NK[:, 0] == pytest.approx(images_ND @ (mean_D / np.linalg.norm(mean_D)), rel=1e-5)
    assert fill_prompts([["tench", "fish"], ["dog"]], ["a {}", "{}"]) == [
        ["a tench", "tench", "a fish", "fish"],
        ["a dog", "dog"],
    ]


def test_zero_shot_with_words_dense_vectors_and_failure(tmp_path: Path) -> None:
    labeled = read_image_folder(folder(tmp_path / "set", 4))
    (tmp_path / "set" / "n01_red" / "0.JPEG").write_bytes(b"no image")
    messages: list[str] = []
    with forward_messages(messages.append):
        result = evaluate_zero_shot(labeled, MODELS, ["a {}"], progress=nothing)
    rows = result.to_dict()["rows"]
    assert [(row["vectors"], row["model"], row["images"], row["top1"]) for row in rows] == [
        *(("tokens", "colors@1", 11, 1.0), ("dense", "colors@1", 11, 1.0), ("dense", "dense@1", 11, 1.0)),
    ]
    assert [problem.partition(": ")[2] for problem in result.problems] == [
        "not an image in a known format",
        "its weights are gone",
    ]
    assert "| tokens  | colors@1 | 100.0 |" in result.to_markdown()
    assert messages == [f"model {number} of 3: {model.label}" for number, model in enumerate(MODELS, 1)]
    with pytest.raises(ModelError, match="gone"), forward_messages(messages.append):
        evaluate_zero_shot(labeled, MODELS[2:], ["a {}"], progress=nothing)
    with pytest.raises(UsageError, match="no place"), forward_messages(messages.append):
        evaluate_zero_shot(labeled, MODELS[:1], ["a photo"], progress=nothing)


def test_unknown_classes_are_missed(tmp_path: Path) -> None:
    names = tmp_path / "names.json"
    names.write_text(json.dumps(["red", "green", "mauve"]))
    labeled = read_image_folder(folder(tmp_path / "set", 2), classes=names)
    result = evaluate_zero_shot(labeled, MODELS[:1], ["{}"], progress=nothing)
    assert result.to_dict()["rows"][0]["top1"] == pytest.approx(2 / 3)
    assert result.remarks == ("tokens of colors@1: 1 classes have no known token, and are never found",)


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
    root = folder(tmp_path / "set", 3)
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
    ("file", "text", "message"),
    [
        ("a.json", '{"n01_red": "red"}', "no name for 2 of 3 folders, among them n02_green, n03_blue"),
        ("a.json", '["red"]', "lists 1 names for 3 folders"),
        ("a.json", '"red"', "neither"),
        ("a.json", "{", "can't read"),
        ("a.txt", "n01_red\n", "no name for 3"),
    ],
)
def test_names_that_are_missing(tmp_path: Path, file: str, text: str, message: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(UsageError, match=message):
        read_image_folder(folder(tmp_path / "set", 1), classes=tmp_path / file)
    with pytest.raises(UsageError, match="at least 2 classes"):
        read_image_folder(tmp_path)


def test_the_probe_is_the_regression_of_scikit_learn() -> None:
    sklearn_linear = pytest.importorskip("sklearn.linear_model")
    rng = np.random.default_rng(8)
    labels = [int(label) for label in rng.integers(0, 4, 120)]
    rows_NV = rng.random((120, 9)) * (rng.random((120, 9)) < 0.5) + np.eye(4, 9)[labels] * 0.4
    vectors = [SparseVector.from_pairs((f"w{index}", float(x)) for index, x in enumerate(row) if x) for row in rows_NV]
    sparse_NV, _ = build_matrices(vectors, [SparseVector(("unseen",), (1.0,))])
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
    held = select_held_out(labels)
    assert [int(held[np.array(labels) == label].sum()) for label in range(4)] == [2, 1, 0, 1]
    assert fit_probe(np.eye(2), [0, 1]).c in (1.0, 10.0)  # nothing to choose by
    assert fit_probe(np.eye(2), [0, 1]).compute_scores(np.eye(2)).shape == (2, 2)


def test_probe_of_words_and_dense_vectors(tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    train, test = read_image_folder(folder(tmp_path / "train", 5)), folder(tmp_path / "test", 2, seed=1)
    (test / "n03_blue").rename(test / "n09_mauve")
    result = evaluate_linear_probe(train, read_image_folder(test), MODELS, progress=nothing)
    rows = result.to_dict()["rows"]
    assert [(row["vectors"], row["model"], row["train_images"], row["images"], row["top1"]) for row in rows] == [
        *(("tokens", "colors@1", 15, 4, 1.0), ("dense", "colors@1", 15, 4, 1.0), ("dense", "dense@1", 15, 4, 1.0)),
    ]
    assert result.problems[0] == "test/n09_mauve: not a class of the training set"
    with pytest.raises(UsageError, match="no class of"):
        evaluate_linear_probe(train, read_image_folder(_renamed(test)), MODELS, progress=nothing)


def _renamed(root: Path) -> Path:
    for path in list(root.iterdir()):
        path.rename(root / f"other_{path.name}")
    return root

"""Verdicts over labels: by the text, by the pictures, by marks."""

from pathlib import Path

import numpy as np
import pytest
from support.errors import expect_error

from stair_es.cli.commands.evaluate.labels import build_label_policy
from stair_es.eval.labels import (
    MIN_IMAGES,
    LabeledCorpus,
    LabelMark,
    LabelRow,
    LabelTargets,
    assess_labels,
    read_label_marks,
)
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

COUNT = 200
HALF = COUNT // 2
NO_WORD = SparseVector((), ())


def make_corpus(labels: dict[str, dict[int, float]]) -> LabeledCorpus:
    """The first half shows dogs, the second cats; labels are given as place -> confidence."""
    rng = np.random.default_rng(0)
    corpus = LabeledCorpus()
    for place in range(COUNT):
        animal, other = ("dog", "cat") if place < HALF else ("cat", "dog")
        weights = {animal: 0.6 + 0.3 * rng.random(), other: 0.4 * rng.random(), "grass": rng.random()}
        corpus.vectors.append(SparseVector.from_mapping(weights))
        corpus.labels.append(SparseVector.from_mapping({name: at[place] for name, at in labels.items() if place in at}))
        corpus.keys.append((("_id", f"{place:032x}"), ("uri", f"s3://x/{place}.jpg"), ("name", f"{place}.jpg")))
    return corpus


def encode_known(label: str) -> SparseVector:
    return SparseVector((label,), (1.0,)) if label in ("dog", "cat", "grass") else NO_WORD


def assess(labels: dict[str, dict[int, float]], marks: list[LabelMark] | None = None) -> dict[str, LabelRow]:
    return {row.label: row for row in assess_labels(make_corpus(labels), encode_known, marks or [], LabelTargets())}


def test_labels_are_kept_or_rejected_by_what_the_pictures_show() -> None:
    rng = np.random.default_rng(1)
    at_random = {int(place): 0.9 for place in rng.choice(COUNT, 60, replace=False)}
    rows = assess(
        {
            "dog": dict.fromkeys(range(HALF), 0.9),
            "cat": {place: 0.9 if place >= HALF else 0.52 for place in range(20, COUNT)},  # wrong where it isn't sure
            "grass": at_random,
            "perro": dict.fromkeys(range(5, HALF), 0.9),
            "nonsense": at_random,
            "rare": dict.fromkeys(range(MIN_IMAGES - 1), 0.9),
        }
    )
    verdicts = {label: (row.verdict, row.floor, row.basis) for label, row in rows.items()}
    assert verdicts == {
        "dog": ("keep", None, "agreement"),
        "cat": ("keep from", 0.55, "agreement"),
        "grass": ("reject", None, "agreement"),
        "perro": ("keep", None, "coherence"),
        "nonsense": ("reject", None, "coherence"),
        "rare": ("unclear", None, "none"),
    }
    current = TokenPolicy(mute=("sky",), rename={"grass": "lawn"}, cap={"dog": 0.5})
    policy, skipped = build_label_policy(rows.values(), current, "p")
    assert (policy.mute, dict(policy.floor), skipped) == (("sky", "nonsense"), {"cat": 0.55}, ("grass",))
    assert (policy.rename, policy.cap) == (current.rename, current.cap)


def test_areas_are_those_of_another_implementation() -> None:
    sklearn_metrics = pytest.importorskip("sklearn.metrics")
    labeled = dict.fromkeys(range(30, 130), 0.9)
    corpus = make_corpus({"dog": labeled})
    [row] = assess_labels(corpus, encode_known)
    truth = [place in labeled for place in range(COUNT)]
    scores = [vector.to_dict().get("dog", 0.0) for vector in corpus.vectors]
    assert row.agreement == pytest.approx(sklearn_metrics.roc_auc_score(truth, scores))
    tokens = ("dog", "cat", "grass")
    dense = np.array([[vector.to_dict()[token] for token in tokens] for vector in corpus.vectors])
    total = dense[truth].sum(0)
    means = [(total - vector) / 99 if inside else total / 100 for vector, inside in zip(dense, truth, strict=True)]
    assert row.coherence == pytest.approx(sklearn_metrics.roc_auc_score(truth, (dense * np.array(means)).sum(1)))


def test_marks_of_people_count_more_than_the_model() -> None:
    labels = {"dog": {place: 0.5 + place / 400 for place in range(HALF)}, "grass": dict.fromkeys(range(0, COUNT, 2), 0.9)}
    by_uri: list[LabelMark] = [((f"s3://x/{place}.jpg",), "dog", place >= 40) for place in range(HALF)]
    by_name: list[LabelMark] = [((f"{place}.jpg",), "grass", True) for place in range(0, 20, 2)]
    ignored: list[LabelMark] = [(("elsewhere.jpg",), "dog", False), (("s3://x/150.jpg",), "dog", False)]
    rows = assess(labels, [*by_uri, *by_name, *ignored])
    assert (rows["dog"].verdict, rows["dog"].floor, rows["dog"].marks, rows["dog"].precision) == ("keep from", 0.6, 100, 0.6)
    assert (rows["grass"].verdict, rows["grass"].basis, rows["grass"].marks) == ("keep", "marks", 10)
    wrong = assess(labels, [(references, "dog", False) for references, _, _ in by_uri])
    assert wrong["dog"].verdict == "reject"


@pytest.mark.parametrize(
    ("right", "wrong", "verdict"),
    [(5, 0, "keep"), (4, 1, "unclear"), (9, 1, "keep"), (8, 2, "unclear"), (1, 5, "reject"), (3, 0, "keep")],
)
def test_few_marks_reject_only_what_is_certain(right: int, wrong: int, verdict: str) -> None:
    marks: list[LabelMark] = [((f"{place}.jpg",), "dog", place < right) for place in range(right + wrong)]
    row = assess({"dog": dict.fromkeys(range(HALF), 0.9)}, marks)["dog"]
    assert (row.verdict, row.basis) == (verdict, "agreement" if right + wrong < 5 else "marks")


def test_marks_by_the_name_of_several_images_dont_count() -> None:
    corpus = make_corpus({"dog": dict.fromkeys(range(HALF), 0.9)})
    corpus.keys[1] = (*corpus.keys[1][:2], ("name", "0.jpg"))
    rows = assess_labels(corpus, encode_known, [(("0.jpg",), "dog", False), (("2.jpg",), "dog", True)])
    assert next(rows).marks == 1


def test_marks_that_match_nothing_are_an_error() -> None:
    with expect_error("marks-match-nothing"):
        assess({"dog": dict.fromkeys(range(HALF), 0.9)}, [(("elsewhere.jpg",), "dog", True)])


def test_marks_are_read_from_tables(tmp_path: Path) -> None:
    table = tmp_path / "marks.csv"
    table.write_text("file,label,right\na.jpg,Big_Dog,yes\nb.jpg,cat,0\n")
    assert read_label_marks(str(table)) == [(("a.jpg",), "big dog", True), (("b.jpg",), "cat", False)]


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ('{"file": "a.jpg", "label": "dog"}', "not-a-label-mark"),
        ('{"file": "a.jpg", "label": "dog", "right": "perhaps"}', "not-a-label-mark"),
        ('{"file": "a.jpg", "right": true}', "not-a-label-mark"),
        ('{"label": "dog", "right": true}', "not-a-label-mark"),
        ("dog", "marks-unreadable"),
    ],
)
def test_other_marks_are_errors(tmp_path: Path, line: str, code: str) -> None:
    path = tmp_path / "marks.jsonl"
    path.write_text(line)
    with expect_error(code):
        read_label_marks(str(path))

"""scripts/mini_words.py: words of classes and of drawings."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path

import mini_photos
import mini_words
import numpy as np
import pytest
from mini_words import NamedClass
from support.models.coco_classes import COCO_CLASSES

from stair_es.model.stair_mini.artifacts import read_mini_artifacts
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary

ROOT = Path(__file__).parents[3]


@pytest.fixture(scope="module")
def image_classes() -> list[NamedClass]:
    return mini_words.read_classes(mini_words.FOLDER / "classes.txt")


@pytest.fixture(scope="module")
def detected_objects() -> list[NamedClass]:
    return mini_words.read_classes(mini_words.FOLDER / "objects.txt")


def build_row(source: str, *captions: str, tags: list[str] | None = None) -> dict[str, object]:
    return {"source": source, "captions": list(captions), "tags": tags}


def test_every_class_is_written_once(image_classes: list[NamedClass], detected_objects: list[NamedClass]) -> None:
    assert [int(each.name.split()[0]) for each in image_classes] == list(range(1000))
    assert [each.name for each in detected_objects] == list(COCO_CLASSES)
    assert not any(each.same for each in image_classes)
    assert all(0 <= place < 1000 for each in detected_objects for place in each.same)


def test_every_word_of_a_class_is_in_the_vocabulary(image_classes: list[NamedClass], detected_objects: list[NamedClass]) -> None:
    vocabulary, stop = read_mini_artifacts().vocabulary, load_stop_words()
    for each in (*image_classes, *detected_objects, *mini_words.read_classes(mini_words.FOLDER / "scenes.txt")):
        assert set(each.weights) <= set(vocabulary.words), each.name
        assert set(each.weights) & stop <= {"can"}, each.name


def test_spellings_are_not_words() -> None:
    vocabulary = read_mini_artifacts().vocabulary
    lines = mini_words.read_lines(mini_words.FOLDER / "spellings.txt")
    pairs = [tuple(part.strip() for part in line.split("=")) for line in lines]
    assert all(len(pair) == 2 and all(pair) for pair in pairs)
    assert len({spelling for spelling, _ in pairs}) == len(pairs)
    assert mini_words.read_spellings(mini_words.FOLDER / "spellings.txt", vocabulary.words) == vocabulary.spellings


def test_labeled_photographs_suffice_and_are_in_no_test() -> None:
    labels, scenes = mini_photos.read_labels(), mini_words.read_classes(mini_words.FOLDER / "scenes.txt")
    assert len({(photo.source, photo.path) for photo in labels}) == len(labels)
    photos = [photo for photo in labels if photo.is_photo]
    assert len(photos) >= 300
    assert len(labels) - len(photos) >= 50
    counts = Counter(word for photo in photos for word in photo.words)
    assert counts.keys() == {scene.name for scene in scenes}
    assert min(counts.values()) >= 20
    assert all(photo.words == {mini_photos.NOT_A_PHOTO} for photo in labels if not photo.is_photo)
    sources = mini_photos.read_sources()
    assert sources.keys() == {photo.source for photo in labels}
    assert all(each.license and each.credit for each in sources.values())
    credits_of_tests = [
        (ROOT / folder / "CREDITS.md").read_text(encoding="utf-8") for folder in ("benchmarks/data/unseen", "examples/photos")
    ]
    assert not [name for name in sources for credit in credits_of_tests if f"| {name} |" in credit]


def test_a_line_becomes_groups_weights_and_ranges(tmp_path: Path) -> None:
    path = tmp_path / "classes.txt"
    path.write_text(
        "# NAME = ...\n\nbig cat = cat kitten / lion / animal pet cat / grass sun | 5 281-283\nmug = mug cup / / / \n"
    )
    cat, mug = mini_words.read_classes(path)
    assert (cat.name, cat.same) == ("big cat", (5, 281, 282, 283))
    assert cat.groups == (("cat", "kitten"), ("lion",), ("animal", "pet", "cat"), ("grass", "sun"))
    expected = {"cat": 1.0, "kitten": 0.9, "lion": 0.75, "animal": 0.4, "pet": 0.38, "grass": 0.2, "sun": 0.2}
    assert cat.weights == pytest.approx(expected)
    assert mug.weights == pytest.approx({"mug": 1.0, "cup": 0.9})
    assert mug.same == ()


@pytest.mark.parametrize("line", ["cat", "cat = cat", "cat = cat / lion / animal", "cat = / lion / animal / grass"])
def test_invalid_lines_are_reported(tmp_path: Path, line: str) -> None:
    (tmp_path / "classes.txt").write_text(line)
    with pytest.raises(SystemExit, match=re.escape(repr(line))):
        mini_words.read_classes(tmp_path / "classes.txt")


def test_words_of_drawings_are_new_whole_and_singular() -> None:
    known = WholeWordVocabulary(["dog", "wolf"], {"wolves": "wolf"})
    rows = [
        build_row("google", "A Unicorn and the dogs, wolves", "two unicorns", tags=["narwhal", "42", "io", "naïve"]),
        build_row("openclipart", "my zzgadget narrowboat", tags=["omg"]),
    ]
    words = mini_words.find_drawing_words(rows, known, ["narrowboat", "omg", "my"])
    assert words == ["narrowboat", "narwhal", "unicorn"]


def test_a_vocabulary_has_classes_and_drawings_in_order(tmp_path: Path) -> None:
    drawn = tmp_path / "train.jsonl"
    drawn.write_text(json.dumps(build_row("google", "a unicorn, a wolf and a grey dog")) + "\n")
    named_classes = [
        NamedClass("0 wolf", (("wolf",), (), ("animal",), ())),
        NamedClass("1 dog", (("dog",), (), ("animal",), ("gray",))),
    ]
    vocabulary = mini_words.build_vocabulary(named_classes, drawn, [])
    assert vocabulary.words == ("animal", "dog", "gray", "unicorn", "wolf")
    assert vocabulary.spellings["wolves"] == "wolf"
    assert vocabulary.spellings["grey"] == "gray"
    assert set(vocabulary.spellings.values()) <= set(vocabulary.words)
    table_KV = mini_words.build_table(named_classes, vocabulary)
    assert table_KV == pytest.approx(np.array([[0.4, 0, 0, 0, 1.0], [0.4, 1.0, 0.2, 0, 0]]))

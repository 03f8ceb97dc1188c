"""The words of label scoring: those that come with stair-es, those of captions, those of a file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.errors import expect_error

from stair_es.distill.labels import collect_words, list_caption_words, read_word_file
from stair_es.model.labels.word_list import PROMPTS, WORD_KINDS, build_word_vocabulary, load_seen_words
from stair_es.model.stair_mini.artifacts import read_mini_artifacts


def test_own_words_are_those_of_stair_mini_that_pictures_show() -> None:
    words = load_seen_words()
    assert {word: words[word] for word in ("dog", "beach", "swimming", "wooden")} == {
        "dog": "thing",
        "beach": "scene",
        "swimming": "activity",
        "wooden": "attribute",
    }
    assert set(words) < set(read_mini_artifacts().vocabulary.words)
    assert not {"almost", "maybe"} & set(words)


def test_each_kind_has_captions() -> None:
    assert set(PROMPTS) == set(WORD_KINDS)
    assert all("{}" in prompt for prompts in PROMPTS.values() for prompt in prompts)


def test_words_of_captions_are_the_most_frequent_first() -> None:
    captions = ["A bird and two BIRDS by the sea", "the sea, a boat", "sea"]
    assert list_caption_words(captions) == ["sea", "bird", "boat"]


def test_a_vocabulary_knows_irregular_plurals() -> None:
    vocabulary = build_word_vocabulary(["mouse", "red bus", "mouse"])
    assert vocabulary.words == ("mouse", "red bus")
    assert vocabulary.words[vocabulary.find_word("mice")] == "mouse"
    assert [vocabulary.words[match.word_index] for match in vocabulary.match_words("A Red Bus")] == ["red bus"]


def test_a_file_adds_words_and_kinds(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffDog\n  traffic   light \n\ndog\nBeach\nnoir\t Attribute\ncaf\u00e9\ncafe\u0301\n", encoding="utf-8")
    given = {"dog": "thing", "traffic light": "thing", "beach": "scene", "noir": "attribute", "caf\u00e9": "thing"}
    assert collect_words(file=path, with_own_list=False) == given
    assert collect_words(["two zebras"], path, with_own_list=False) == {**given, "zebras": "thing"}
    assert collect_words(file=path) == {**load_seen_words(), **given}


def test_a_mean_needs_two_words(tmp_path: Path) -> None:
    (tmp_path / "words.txt").write_text("dog\nDOG\n")
    for captions, file in ((["of the a", "it is 42"], None), ([], tmp_path / "words.txt")):
        with expect_error("dataset-error"):
            collect_words(captions, file, with_own_list=False)


@pytest.mark.parametrize(("line", "fact"), [("\x1b[31mcat", r"\x1b[31mcat"), ("cat\tanimal", "'animal'"), ("x" * 101, "xxx")])
def test_an_invalid_line_is_named(line: str, fact: str, tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text(f"dog\n{line}\n")
    with expect_error("dataset-error") as caught:
        read_word_file(path)
    assert [part for part in (str(path), "line 2", fact) if part not in caught.value.message] == []

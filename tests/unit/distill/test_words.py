"""The words of a dictionary: the default ones, those of captions, those of a file."""

from __future__ import annotations

from pathlib import Path

from support.errors import expect_error

from stair_es.distill.dictionary import build_word_vocabulary, list_caption_words, load_default_words, read_word_file


def test_default_words_are_whole_different_words() -> None:
    words = load_default_words()
    assert (len(words), len(set(words))) == (10_000, 10_000)
    assert {"dog", "umbrella", "beautiful"} <= set(words)
    assert not {"the", "dogs", "##s", "[CLS]", "1998"} & set(words)
    assert load_default_words(500) == words[:500]


def test_words_of_captions_are_the_most_frequent_first() -> None:
    captions = ["A bird and two BIRDS by the sea", "the sea, a boat", "sea"]
    assert list_caption_words(captions) == ["sea", "bird", "boat"]


def test_a_vocabulary_knows_irregular_plurals() -> None:
    vocabulary = build_word_vocabulary(["mouse", "red bus", "mouse"])
    assert vocabulary.words == ("mouse", "red bus")
    assert vocabulary.words[vocabulary.find_word("mice")] == "mouse"
    assert [vocabulary.words[match.word_index] for match in vocabulary.match_words("A Red Bus")] == ["red bus"]


def test_a_file_has_one_word_per_line(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("\ufeffDog\n  traffic   light \n\ndog\n", encoding="utf-8")
    assert read_word_file(path) == ["dog", "traffic light"]
    path.write_text("dog\n\x1b[31mcat\n")
    with expect_error("dataset-error") as caught:
        read_word_file(path)
    assert [fact for fact in (str(path), "line 2", r"\x1b[31mcat") if fact not in caught.value.message] == []

"""How stair-mini reads texts: what it knows, what stands for the rest, and which tokens it never adds."""

from __future__ import annotations

import pytest

from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.artifacts import MINI_CARD, MiniArtifacts, read_mini_artifacts
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.stair_mini.text_reader import TextReader


@pytest.fixture(scope="module")
def mini_artifacts() -> MiniArtifacts:
    return read_mini_artifacts()


@pytest.fixture(scope="module")
def reader(mini_artifacts: MiniArtifacts) -> TextReader:
    return TextReader(mini_artifacts)


@pytest.fixture(scope="module")
def mini_encoder() -> StairMiniEncoder:
    return StairMiniEncoder(ModelSpec(name="stair-mini", text_tower="table"))


@pytest.mark.parametrize(
    ("text", "read", "replaced"),
    [
        ("a photo of a cat", "a cat", {}),
        ("Photographs of the sea", "the sea", {}),
        ("an image of dogs", "dogs", {}),
        ("  The pictures  of two cats", "two cats", {}),
        ("a photo", "a photo", {}),
        ("cat in a photo of Paris", "cat in a photo of Paris", {}),
        ("a photo album of ships", "a photo album of ships", {}),
        ("tulips", "flower", {}),
        ("doggo", "dog", {}),
        ("hund", "dog", {"hund": "dog"}),
        ("Gatos", "cat", {"gatos": "cat"}),
        ("perro rojo", "dog rojo", {"perro": "dog"}),
        ("katze", "cat", {"katze": "cat"}),
        ("a chat", "a chat", {}),  # English words are no French ones
        ("elepahnt", "elephant", {"elepahnt": "elephant"}),
        ("a photo of a buterfly", "a butterfly", {"buterfly": "butterfly"}),
        ("giraff", "giraffe", {"giraff": "giraffe"}),
        ("giraff in a zoo", "giraff in a zoo", {}),  # one word is known
        ("xqzzy", "xqzzy", {}),
        ("a wolfpack", "a wolf pack", {"wolfpack": "wolf pack"}),
        ("photosynthesis", "photosynthesis", {}),  # only its beginning is known
        ("", "", {}),
    ],
)
def test_a_text_is_read(reader: TextReader, text: str, read: str, replaced: dict[str, str]) -> None:
    found = reader.read_text(text)
    assert (found.text, found.replaced) == (read, replaced)


@pytest.mark.parametrize(
    ("text", "heaviest"),
    [
        *(("tulips", "flower"), ("hund", "dog"), ("perro rojo", "dog"), ("elepahnt", "elephant"), ("buterfly", "butterfly")),
        *(("giraff", "giraffe"), ("doggo", "dog"), ("katze", "cat"), ("a photo of a cat", "cat"), ("oak", "oak")),
        *(("baker", "chef"), ("birch", "tree"), ("eiffel xqzzy", None), ("xqzzy", None), ("jody", None)),
    ],
)
def test_words_that_are_no_tokens_find_their_meaning_or_nothing(
    mini_encoder: StairMiniEncoder, text: str, heaviest: str | None
) -> None:
    [vector] = mini_encoder.encode_texts([text])
    assert (vector.tokens[0] if len(vector) else None) == heaviest
    assert "photo" not in vector.tokens


@pytest.mark.parametrize(
    ("words", "dropped", "kept"),
    [
        (["dog"], ["hotdog"], ["bulldog", "sheepdog", "puppy"]),
        (["tree"], ["treefrog"], ["pine"]),
        (["flower"], ["flowerpot"], ["sunflower", "flowing"]),
        (["grass"], ["grasshopper"], []),
        (["fly"], ["butterfly", "dragonfly"], ["flying"]),
        (["fire"], ["firecracker", "fireplace"], []),
        (["truck"], [], ["firetruck"]),
        (["boat"], ["boathouse"], ["sailboat", "boating"]),
        (["swim"], ["swimsuit"], ["swimming", "swimmer"]),
        (["ant"], ["elephant", "antelope"], []),
        (["forest"], ["lesbian", "bra"], ["tree"]),
        (["fire", "firetruck"], ["fireplace"], ["firetruck"]),  # both are in the text
        (["lesbian"], ["bra"], ["lesbian"]),
    ],
)
def test_look_alikes_and_listed_words_are_not_added(
    reader: TextReader, mini_artifacts: MiniArtifacts, words: list[str], dropped: list[str], kept: list[str]
) -> None:
    index_of_word = mini_artifacts.vocabulary.index_of_word
    addable_V = reader.find_addable([index_of_word[word] for word in words])
    assert [token for token in dropped if addable_V[index_of_word[token]]] == []
    assert [token for token in kept if not addable_V[index_of_word[token]]] == []


def test_no_row_of_the_table_adds_a_listed_word(mini_artifacts: MiniArtifacts, mini_encoder: StairMiniEncoder) -> None:
    named = ("women", "baby", "man", "people", "girl", "church", "army", "beach", "family", "pride", "hospital", "berlin")
    for vector in mini_encoder.encode_texts(named):
        assert len(vector)
        assert not mini_artifacts.never_added & set(vector.tokens)
    assert mini_encoder.encode_texts(["lesbian"])[0].tokens[0] == "lesbian"


def test_tokens_of_drawings_get_near_ones_of_photographs(mini_artifacts: MiniArtifacts, mini_encoder: StairMiniEncoder) -> None:
    on_photos, added = set(mini_encoder.photo_tokens), mini_encoder.read_text("a sunset with dogs and a unicorn, autumn").added
    assert added.keys() == {"sunset", "unicorn", "autumn"} - on_photos  # a dog can be on a photograph
    assert all(0 <= len(near) <= 8 and on_photos.issuperset(near) for near in added.values())
    for word, near in added.items():
        [vector] = mini_encoder.encode_texts([word])
        assert vector.tokens[0] == word
        assert {*near} - mini_artifacts.never_added <= set(vector.tokens)


def test_the_card_counts_the_tokens_of_photographs(mini_encoder: StairMiniEncoder) -> None:
    assert MINI_CARD.facts
    assert (MINI_CARD.facts.tokens, MINI_CARD.facts.photo_tokens) == (len(mini_encoder.tokens), len(mini_encoder.photo_tokens))


def test_lists_name_tokens_only(mini_artifacts: MiniArtifacts) -> None:
    vocabulary, index_of_word = mini_artifacts.vocabulary, mini_artifacts.vocabulary.index_of_word
    assert len(mini_artifacts.translations) > 1000
    assert set(mini_artifacts.translations.values()) | mini_artifacts.never_added <= index_of_word.keys()
    assert not [word for word in mini_artifacts.translations if vocabulary.find_word(word) >= 0]

"""The words of a dictionary: those shipped with stair-es, those of a file, those of captions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from stair_es.errors import UsageError
from stair_es.eval.datasets.captions import read_captions
from stair_es.model.stair_mini.artifacts import read_mini_artifacts
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary, list_singulars, list_uncovered_words
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.system.user_files import read_text_file

DEFAULT_WORDS = 10_000
"""Words of the default dictionary, as many as in SpLiCE."""
_MIN_LENGTH = 3
_MAX_WORD_CHARACTERS = 100


def load_default_words(count: int = DEFAULT_WORDS) -> list[str]:
    """Return the words of stair-mini, which can be seen in images, then the most frequent whole words of BERT's vocabulary.

    Stop words, pieces and regular plurals of other words are left out.

    Args:
        count: Number of words.
    """
    seen = list(read_mini_artifacts().vocabulary.words)
    frequent = (token for token in load_wordpiece_vocabulary().tokens if token.isascii() and token.isalpha())
    return list(_drop_plurals([*seen, *frequent]))[:count]


def read_caption_texts(paths: Sequence[Path]) -> list[str]:
    """Return the texts of caption sets.

    Raises:
        UsageError: If a caption set can't be read.
    """
    return [caption for path in paths for image in read_captions(path).images for caption in image.captions]


def list_caption_words(captions: Iterable[str]) -> list[str]:
    """Return the words of captions, the most frequent first, without stop words and regular plurals of other words."""
    counts = Counter(word for caption in captions for word in list_uncovered_words(caption, ()))
    return list(_drop_plurals(sorted(counts, key=lambda word: (-counts[word], word))))


def read_word_file(path: Path) -> list[str]:
    """Return the words of a text file with one word or phrase per line, in lower case, each once.

    Raises:
        UsageError: If the file can't be read, or a line is not a word.
    """
    try:
        lines = read_text_file(path).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8" if isinstance(error, UnicodeError) else error
        raise UsageError(f"the words in {path} can't be read: {reason}", "Specify a text file with one word per line.") from error
    words: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        word = " ".join(line.lower().split())
        if not word:
            continue
        if len(word) > _MAX_WORD_CHARACTERS or not word.isprintable() or not any(map(str.isalnum, word)):
            raise UsageError(
                f"{path}, line {number}: {word[:40]!r} is not a word",
                f"Write one word or phrase per line, at most {_MAX_WORD_CHARACTERS} characters.",
            )
        words[word] = None
    if not words:
        raise UsageError(f"{path} has no words", "Write one word per line.")
    return list(words)


def build_word_vocabulary(words: Iterable[str]) -> WholeWordVocabulary:
    """Return a vocabulary of words, with the irregular plurals and other spellings that stair-mini knows for them."""
    unique = dict.fromkeys(words)
    known = read_mini_artifacts().vocabulary.spellings
    spellings = {spelling: word for spelling, word in known.items() if word in unique and spelling not in unique}
    return WholeWordVocabulary(tuple(unique), spellings)


def _drop_plurals(words: Sequence[str]) -> Iterator[str]:
    """Yield the content words, each once, unless a singular or another spelling of it is among them."""
    stop_words, spellings = load_stop_words(), read_mini_artifacts().vocabulary.spellings
    content = {word: None for word in words if len(word) >= _MIN_LENGTH and is_content_token(word, stop_words)}
    for word in content:
        if not any(other in content for other in (*list_singulars(word), *filter(None, (spellings.get(word),)))):
            yield word

"""What a person gives -> a question: words with wishes, further texts, files of images, filters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.errors import DecodeError, QueryError, ReadError
from stair_es.model.encoder import Speller
from stair_es.search.clauses import check_characters
from stair_es.search.combine import boosted, combined, muted
from stair_es.search.question import NOTHING, Question, Spelling, parse_filter
from stair_es.search.wish import Wish, parse
from stair_es.sources.decode import DecodeLimits, decode
from stair_es.sources.item import Reading
from stair_es.sources.local_file import FileAt
from stair_es.sources.paths import scheme_of, uri_of
from stair_es.sources.web.fetch import UrlAt
from stair_es.sources.web.text import shown

if TYPE_CHECKING:
    from stair_es.model.encoder import Encoder
    from stair_es.types import SparseVector


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """All that a person can say of what is looked for."""

    words: str = ""
    """Plain words, with wishes: `beach -people +dog^2` (see `wish.parse`)."""
    texts: Sequence[str] = ()
    """Further texts, taken literally."""
    images: Sequence[Path | str] = ()
    """Files of images, by path; a text may also be an http(s) URL, which is fetched by the rules for URLs (`Reading.urls`)."""
    weights: Sequence[float] = ()
    """One for each input: `words` (if there are), then `texts`, then `images`; 1 each if empty. A negative one takes away."""
    literal: bool = False
    """Take `words` literally, too."""
    required: Sequence[str] = ()
    excluded: Sequence[str] = ()
    boosts: Mapping[str, float] = field(default_factory=dict)
    muted: AbstractSet[str] = frozenset()
    """Words that take no part in the query."""
    least: float = 0.0
    """From which weight on an image has a word, for what is required and excluded."""
    filters: Sequence[str | Mapping[str, Any]] = ()
    """Query strings, or clauses."""
    caption: str = ""
    """A text for BM25 over the caption."""
    caption_weight: float = 1.0
    caption_field: str = "caption"
    min_score: float | None = None

    def __post_init__(self) -> None:
        """Check that lists are lists: a text has letters, which would be taken for words.

        Raises:
            QueryError: One is a text.
        """
        for name in ("texts", "images", "required", "excluded", "muted", "filters"):
            if isinstance(getattr(self, name), str):
                raise QueryError(f"`{name}` takes several, got the text {getattr(self, name)!r}", "Put it into a list.")


def question_of(encoder: Encoder, inputs: Inputs, reading: Reading | None = None) -> Question:
    """What is asked for by what a person gave.

    Raises:
        QueryError: Nothing is looked for, the model knows none of the words or sees nothing that it knows, or wishes can't be.
        DecodeError: An image can't be read; the message names it.
        MissingExtra: An image is at a URL, and the HTTP library isn't installed.
    """
    wish = Wish(text=inputs.words.strip()) if inputs.literal else parse(inputs.words)
    vectors = [text_vector(encoder, text) for text in (wish.text, *inputs.texts) if text.strip()]
    vectors += [_seen(encoder, image, reading) for image in inputs.images]
    required, excluded = (*wish.required, *inputs.required), (*wish.excluded, *inputs.excluded)
    if not vectors and not inputs.caption.strip():
        what = "only says what must not be there" if excluded else "is empty"
        raise QueryError(f"the query {what}", 'Say what to look for, too: "beach -people".')
    if inputs.least and not (required or excluded):
        raise QueryError("`least` is about required and excluded words, and there are none", "Give +word or -word, or min_score.")
    vector = NOTHING
    if vectors:
        vector = combined(zip(vectors, _weights(inputs.weights, len(vectors)), strict=True))
        factors = {**wish.boosts, **inputs.boosts}
        vector = boosted(vector, {piece: factor for word, factor in factors.items() for piece in spelled(encoder, word)})
        vector = muted(vector, {piece for word in inputs.muted for piece in spelled(encoder, word)})
    return Question(
        vector=vector,
        required=[spelled(encoder, word) for word in required],
        excluded=[spelled(encoder, word) for word in excluded],
        least=inputs.least,
        filters=[parse_filter(given) if isinstance(given, str) else given for given in inputs.filters],
        caption=inputs.caption,
        caption_weight=inputs.caption_weight,
        caption_field=inputs.caption_field,
        min_score=inputs.min_score,
    )


def spelled(encoder: Encoder, word: str) -> Spelling:
    """The features that stand for a word, as the model writes it; the word itself where the model doesn't tell.

    Raises:
        QueryError: The model has none for it.
    """
    check_characters(word)
    if not isinstance(encoder, Speller):
        return (word,)
    features = encoder.spell(word)
    if not features:
        raise QueryError(
            f"{word!r} is no word of the model {encoder.model_id}", "Take another word; stop words and symbols are none."
        )
    return features


def text_vector(encoder: Encoder, text: str) -> SparseVector:
    """The vector of a text.

    Raises:
        QueryError: The model gives no weight to any of its words.
    """
    check_characters(text)
    vector = encoder.encode_texts([text])[0]
    if not len(vector):
        raise QueryError(
            f"none of the words of {text!r} is known to the model {encoder.model_id}",
            'Name what can be seen in the picture, in English: "red car", "dog on a beach".',
        )
    return vector


def image_vector(encoder: Encoder, image: Path | str, reading: Reading | None = None) -> SparseVector:
    """The vector of an image; empty if the model sees nothing that it knows.

    Args:
        encoder: The model.
        image: A file, or the http(s) URL of one.
        reading: The limits, of the addresses that a URL may lead to as well.

    Raises:
        DecodeError: It can't be read, is too large or is not an image; the message names it.
        MissingExtra: It is a URL, and the HTTP library isn't installed.
    """
    place = UrlAt(image) if isinstance(image, str) and is_url(image) else FileAt(uri_of(image))
    try:
        read = place.read(reading or Reading())
        pixels_HWC = decode(read.data if read else b"", encoder.image_spec, DecodeLimits()).pixels_HWC
    except (ReadError, DecodeError) as error:
        raise DecodeError(f"{_shown(image)!r}: {error.message}", error.remedy) from error
    return encoder.encode_images(pixels_HWC[None])[0]


def is_url(text: str) -> bool:
    """Whether it is the URL of an image that is fetched, not a path."""
    return scheme_of(text) in ("http", "https")


def _shown(image: Path | str) -> str:
    return shown(image) if isinstance(image, str) and is_url(image) else str(image)


def _seen(encoder: Encoder, image: Path | str, reading: Reading | None) -> SparseVector:
    vector = image_vector(encoder, image, reading)
    if not len(vector):
        raise QueryError(f"the model {encoder.model_id} has no word for what is on {_shown(image)!r}", "Try another image.")
    return vector


def _weights(given: Sequence[float], inputs: int) -> Sequence[float]:
    if given and len(given) != inputs:
        raise QueryError(
            f"{len(given)} weights for {inputs} inputs", "Give one for the words, then one for each text, then for each image."
        )
    return given or [1.0] * inputs

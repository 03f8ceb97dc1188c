"""Encode query inputs (query string, texts, images, filters) to a search query, and combine vectors."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.config.defaults import DEFAULT_CAPTION_WEIGHT, DEFAULT_PRICE_FIELD
from stair_es.errors import DecodeError, QueryError, ReadError
from stair_es.model.base import MatchThresholds
from stair_es.model.vocabularies.stop_words import list_content_words
from stair_es.model.vocabularies.unknown_words import find_unknown_words, is_rarest_word_known, suggest_words
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.query_parser import ParsedQuery, list_operator_remarks, parse_query
from stair_es.search.dsl.query_words import (
    find_rarest_word,
    list_named_words,
    list_part_tokens,
    list_photo_remarks,
    split_caption_words,
)
from stair_es.search.dsl.understanding import NO_FIELDS, SearchFields, Understanding, understand_text
from stair_es.search.dsl.weights import check_unicode
from stair_es.search.query import QueryToken, SearchQuery, TokenGroup
from stair_es.sources.base import ReadLimits
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.http.urls import redact_web_url
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import get_scheme, to_file_uri
from stair_es.types import Pixels, SparseVector

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.token_policy import TokenPolicy


MAX_READ_CHARS = 2048
"""Maximum length of what is read of a text. Models read at most some hundred tokens, and the time to find them is linear."""


@dataclass(frozen=True, kw_only=True)
class QueryInputs:
    """Everything that can be part of a query."""

    query_string: str = ""
    """A query string: `beach -people +dog^2` (see `parse_query`)."""
    texts: Sequence[str] = ()
    """Further texts, without operators."""
    images: Sequence[Path | str] = ()
    """Image files by path; a string can also be an http(s) URL, which is fetched under the limits of `ReadLimits.url_policy`."""
    vectors: Sequence[SparseVector] = ()
    """Vectors of images: of documents, or encoded before."""
    weights: Sequence[float] = ()
    """One weight per input: `query_string` (if any), `texts`, `images`, `vectors`; 1 each if empty. A negative one subtracts."""
    literal: bool = False
    """Whether `query_string` is plain text, without operators."""
    required: Sequence[str] = ()
    excluded: Sequence[str] = ()
    boosts: Mapping[str, float] = field(default_factory=dict)
    muted: AbstractSet[str] = frozenset()
    """Words whose tokens are removed from the query."""
    factors: Mapping[str, float] = field(default_factory=dict)
    """Token or word -> factor of its weight, 0 to mute it; a token that the query lacks gets the factor as its weight."""
    min_weight: float = 0.0
    """Minimum weight for a token to count as present, for `required` and `excluded`."""
    filters: Sequence[str | Mapping[str, Any]] = ()
    """Query strings, or clauses."""
    caption: str = ""
    """A text for BM25, instead of the words of the query string."""
    hybrid: bool = True
    """Whether the words of the query string are also searched in the captions or titles of the index, if it has them."""
    caption_weight: float = DEFAULT_CAPTION_WEIGHT
    caption_field: str = ""
    """The field of captions, or several (`title,caption`); empty for those of the index."""
    price_field: str = DEFAULT_PRICE_FIELD
    """The field of prices, if it is a field of numbers."""
    min_score: float | None = None

    def __post_init__(self) -> None:
        """Check that sequences are not strings, whose letters would be taken for words."""
        for name in ("texts", "images", "required", "excluded", "muted", "filters"):
            if isinstance(getattr(self, name), str):
                raise QueryError(
                    f"`{name}` must be a list, got the string {getattr(self, name)!r}",
                    "Put it into a list.",
                    code="string-instead-of-list",
                )

    @cached_property
    def parsed(self) -> ParsedQuery:
        """The query string, parsed."""
        return ParsedQuery(text=self.query_string.strip()) if self.literal else parse_query(self.query_string)

    def understand(self, encoder: Encoder, fields: SearchFields) -> Understanding:
        """Split the query string into words and conditions on fields, if the words that are left can be searched."""
        parsed = self.parsed
        as_words = Understanding(text=parsed.text)
        if self.literal:
            return as_words
        understanding = understand_text(parsed.text, fields, (*parsed.phrases, *parsed.required, *parsed.boosts))
        others = self.texts or self.images or self.vectors or (self.hybrid and (self.caption_field or fields.text))
        words = list_content_words(encoder.read_text(understanding.text).text)
        return understanding if others or any(map(encoder.tokenize_word, words)) else as_words

    @property
    def required_words(self) -> tuple[str, ...]:
        """The required words of the query string and `required`, each once."""
        return tuple(dict.fromkeys((*self.parsed.required, *self.required)))

    @property
    def excluded_words(self) -> tuple[str, ...]:
        """The excluded words of the query string and `excluded`, each once."""
        return tuple(dict.fromkeys((*self.parsed.excluded, *self.excluded)))


def build_search_query(
    encoder: Encoder,
    inputs: QueryInputs,
    read_limits: ReadLimits | None = None,
    *,
    fields: SearchFields = NO_FIELDS,
    policy: TokenPolicy | None = None,
    encode_text: Callable[[Encoder, str], SparseVector] | None = None,
) -> SearchQuery:
    """Build the search query of query inputs.

    Args:
        encoder: The encoder of the index.
        inputs: The query inputs.
        read_limits: Limits for reading images.
        fields: The fields of the index in which the query string is searched besides the token weights.
        policy: The token policy of the index, to rewrite the query here, so that boosts and factors are for tokens of the
            index. By default they are for those of the model, and `Searcher` rewrites the query.
        encode_text: Encodes a text as `encode_any_text`, for example with a cache.

    Raises:
        QueryError: If the query is empty, the model knows none of its tokens, or inputs contradict each other.
        DecodeError: If an image can't be read; the message names it.
        MissingExtra: If an image is at a URL and the HTTP library is not installed.
    """
    understanding = inputs.understand(encoder, fields)
    texts = [text for text in (understanding.text, *inputs.texts) if text.strip()]
    unknown_words = [word for text in texts for word in find_unknown_words(encoder, text)]
    unsearched = {word.word for word in unknown_words if not word.searched_for}
    has_images = bool(inputs.images or inputs.vectors)

    def list_tokens(part: str) -> TokenGroup:
        return () if has_images else list_part_tokens(encoder, understanding.text, part, policy)

    caption_query = _build_caption_query(inputs, understanding, fields, unsearched, list_tokens)
    vectors = [(encode_text or encode_any_text)(encoder, text) for text in texts]
    if not caption_query:
        _check_known_words(encoder, texts, vectors)
    vectors += [*(_encode_known_image(encoder, image, read_limits) for image in inputs.images), *inputs.vectors]
    if policy is not None:
        vectors = list(map(policy.rewrite_query, vectors))
    _check_inputs(inputs, has_query=bool(any(map(len, vectors)) or inputs.factors or caption_query))
    resolve = partial(resolve_tokens, encoder, policy=policy)
    tokens = _weight_tokens(inputs, vectors, resolve)
    return SearchQuery(
        vector=_multiply_factors(tokens),
        tokens=tokens,
        required=[resolve(word) for word in inputs.required_words],
        excluded=[resolve(word) for word in inputs.excluded_words],
        min_weight=inputs.min_weight,
        filters=[parse_filter(item) if isinstance(item, str) else item for item in inputs.filters],
        conditions=understanding.conditions,
        **caption_query,
        min_score=inputs.min_score,
        match_thresholds=choose_match_thresholds(encoder, has_images=has_images),
        needed_words=() if has_images or any(is_rarest_word_known(encoder, text) for text in texts) else sorted(unsearched),
        named_words=[] if has_images else list_named_words(encoder, texts, policy),
        rarest_word=None if has_images else find_rarest_word(encoder, texts, policy),
        unknown_words=unknown_words,
        remarks=[
            *([] if inputs.literal else list_operator_remarks(inputs.query_string)),
            *(remark for text in texts for remark in list_photo_remarks(encoder, text)),
        ],
    )


def _build_caption_query(
    inputs: QueryInputs,
    understanding: Understanding,
    fields: SearchFields,
    unknown_words: AbstractSet[str],
    list_tokens: Callable[[str], TokenGroup],
) -> dict[str, Any]:
    """Build the part of a search query that is for captions: the given one, otherwise the words of the query string."""
    text = inputs.caption
    if not text.strip() and inputs.hybrid and (inputs.caption_field or fields.text):
        text = understanding.text
    words = split_caption_words(text, inputs.parsed.phrases, unknown_words, list_tokens)
    if not words and not inputs.caption.strip():
        return {}
    return {
        "caption": inputs.caption if inputs.caption.strip() else " ".join(word.text for word in words),
        "caption_words": words,
        "caption_weight": inputs.caption_weight,
        "caption_field": inputs.caption_field or fields.text or "caption",
    }


def _check_inputs(inputs: QueryInputs, *, has_query: bool) -> None:
    if not has_query:
        problem = "only excludes words" if inputs.excluded_words else "is empty"
        raise QueryError(
            f"the query {problem}", 'Add what to search for: words, an image, or both ("beach -people").', code="no-input"
        )
    if inputs.min_weight and not (inputs.required_words or inputs.excluded_words):
        raise QueryError(
            "`min_weight` applies to required and excluded words, but the query has none",
            "Add +word or -word, or use min_score.",
            code="min-weight-without-words",
        )


def _weight_tokens(
    inputs: QueryInputs, vectors: Sequence[SparseVector], resolve: Callable[[str], TokenGroup]
) -> tuple[QueryToken, ...]:
    """Combine vectors to the tokens of the query, heaviest first, and set their factors."""
    tokens: dict[str, QueryToken] = {}
    if any(map(len, vectors)):
        combined = combine_vectors(zip(vectors, _resolve_weights(inputs.weights, len(vectors)), strict=True))
        words = {**inputs.parsed.boosts, **inputs.boosts}
        boosts = {token: boost for word, boost in words.items() for token in resolve(word)}
        muted = {token for word in inputs.muted for token in resolve(word)}
        missing = [token for token in boosts if token not in combined.tokens]
        if missing:
            raise QueryError(
                f"the query has no token {', '.join(map(repr, missing))} to boost",
                f"Its tokens are: {', '.join(combined.tokens)}.",
                code="no-such-token-to-boost",
            )
        for token, weight in combined:
            boost = boosts.get(token, 1.0)
            factor = float(boost != 0 and token not in muted)
            tokens[token] = QueryToken(token=token, weight=weight * (boost or 1.0), factor=factor)
    _set_factors(tokens, inputs.factors, resolve)
    return tuple(sorted(tokens.values(), key=lambda token: (-token.weight, token.token)))


def _set_factors(tokens: dict[str, QueryToken], factors: Mapping[str, float], resolve: Callable[[str], TokenGroup]) -> None:
    """Set the factors of tokens, and add tokens that are missing. The factor of a token precedes that of its word."""
    found = frozenset(tokens)
    for name, factor in factors.items():
        for token in (name,) if name in found else resolve(name):
            if token in found and (token == name or token not in factors):
                tokens[token] = replace(tokens[token], factor=factor)
            elif token not in found:
                tokens[token] = QueryToken(token=token, weight=1.0, factor=factor, added=True)


def _multiply_factors(tokens: Sequence[QueryToken]) -> SparseVector:
    weights = {token.token: token.weight * token.factor for token in tokens}
    if not all(map(math.isfinite, weights.values())):
        raise QueryError("a boost makes a weight too large", "Use a smaller boost.", code="boost-too-large")
    vector = SparseVector.from_pairs(pair for pair in weights.items() if pair[1] > 0)
    if tokens and not len(vector):
        raise QueryError("all tokens of the query are muted", "Keep at least one of them.", code="all-tokens-muted")
    return vector


def choose_match_thresholds(encoder: Encoder, *, has_images: bool) -> MatchThresholds | None:
    """Choose the thresholds of weak matches; None if the model has none."""
    thresholds = encoder.match_thresholds
    if thresholds is None or not has_images:
        return thresholds
    return replace(thresholds, weak_cosine=thresholds.weak_image_cosine)


def resolve_tokens(encoder: Encoder, word: str, policy: TokenPolicy | None = None) -> TokenGroup:
    """Return the tokens of a word in an index of the model, with a token policy if it has one.

    These are the tokens of the vocabulary; the word itself if the policy writes it.
    """
    if policy is not None:
        is_written = word in policy.replacements.values()  # perhaps not in the vocabulary of the model
        return (word,) if is_written else policy.replace_tokens(resolve_tokens(encoder, word))
    check_unicode(word)
    tokens = encoder.tokenize_word(word)
    if not tokens:
        suggestions = suggest_words(encoder, word)
        raise QueryError(
            f"{word!r} is not in the vocabulary of the model {encoder.model_id}",
            f"Did you mean {' or '.join(suggestions)}?"
            if suggestions
            else "Try another word; stop words and symbols are excluded.",
            code="word-not-in-vocabulary",
        )
    return tokens


def encode_query_text(encoder: Encoder, text: str) -> SparseVector:
    """Encode a text.

    Raises:
        QueryError: If the model knows none of its words.
    """
    vector = encode_any_text(encoder, text)
    _check_known_words(encoder, [text], [vector])
    return vector


def encode_any_text(encoder: Encoder, text: str) -> SparseVector:
    """Encode a text; the vector is empty if the model knows none of its words."""
    check_unicode(text)
    return encoder.encode_texts([truncate_query_text(text)])[0]


def _check_known_words(encoder: Encoder, texts: Sequence[str], vectors: Sequence[SparseVector]) -> None:
    text = next((text for text, vector in zip(texts, vectors, strict=True) if not len(vector)), None)
    if text is None:
        return
    similar = dict.fromkeys(token for word in find_unknown_words(encoder, text) for token in word.suggestions)
    suggestion = f"Did you mean {' or '.join(similar)}? " if similar else ""
    raise QueryError(
        f"the model {encoder.model_id} knows none of the words of {text!r}",
        f'{suggestion}Describe in English what the image shows: "red car", "dog on a beach".',
        code="no-known-word",
    )


def truncate_query_text(text: str) -> str:
    """Truncate a text to its first `MAX_READ_CHARS` characters, without a part of a word of ordinary length at the end."""
    if len(text) <= MAX_READ_CHARS:
        return text
    text = text.lstrip()
    read, ends_in_word = text[:MAX_READ_CHARS], text[MAX_READ_CHARS : MAX_READ_CHARS + 1].strip()
    last_word = re.search(r"\s\S{1,50}\Z", read) if ends_in_word else None
    return read[: last_word.start()] if last_word else read


def encode_query_image(encoder: Encoder, image: Path | str, read_limits: ReadLimits | None = None) -> SparseVector:
    """Encode an image file or the image at a URL; the vector is empty if the model finds no token for it.

    Raises:
        DecodeError: If it can't be read, is too large or is not an image; the message names it.
        MissingExtra: If it is a URL and the HTTP library is not installed.
    """
    return encoder.encode_images(read_query_image(encoder, image, read_limits)[None])[0]


def read_query_image(encoder: Encoder, image: Path | str, read_limits: ReadLimits | None = None) -> Pixels:
    """Return the pixels of an image file or the image at a URL, as the encoder takes them: stacked, many are encoded at once.

    Raises:
        DecodeError: If it can't be read, is too large or is not an image; the message names it.
        MissingExtra: If it is a URL and the HTTP library is not installed.
    """
    locator = UrlLocator(image) if isinstance(image, str) and is_http_url(image) else FileLocator(to_file_uri(image))
    try:
        content = locator.read(read_limits or ReadLimits())
        return decode_image(content.data if content else b"", encoder.image_spec, DecodeLimits()).pixels_HWC
    except (ReadError, DecodeError) as error:
        kind = type(error) if isinstance(error, DecodeError) else DecodeError
        raise kind(f"{_redact_image(image)!r}: {error.message}", error.remedy, code=error.code) from error


def combine_vectors(parts: Iterable[tuple[SparseVector, float]]) -> SparseVector:
    """Return the weighted sum of vectors; a negative weight subtracts. Tokens whose sum is 0 or negative are dropped."""
    sums: defaultdict[str, float] = defaultdict(float)
    for vector, factor in parts:
        if not math.isfinite(factor):
            raise QueryError(f"the weight of an input must be a finite number, got {factor}", code="invalid-input-weight")
        for token, weight in vector:
            sums[token] += factor * weight
    if not all(map(math.isfinite, sums.values())):
        raise QueryError("the weights of the inputs are too large to be added", "Use smaller weights.", code="weights-too-large")
    combined = SparseVector.from_pairs((token, weight) for token, weight in sums.items() if weight > 0)
    if not len(combined):
        raise QueryError(
            "the inputs cancel each other out: no token is left", "Give one of them a larger weight.", code="inputs-cancel-out"
        )
    return combined


def is_http_url(text: str) -> bool:
    """Check whether a string is an http(s) URL, not a path."""
    return get_scheme(text) in ("http", "https")


def _redact_image(image: Path | str) -> str:
    return redact_web_url(image) if isinstance(image, str) and is_http_url(image) else str(image)


def _encode_known_image(encoder: Encoder, image: Path | str, read_limits: ReadLimits | None) -> SparseVector:
    vector = encode_query_image(encoder, image, read_limits)
    if not len(vector):
        raise QueryError(
            f"the model {encoder.model_id} finds no token for {_redact_image(image)!r}",
            "Try another image.",
            code="image-without-tokens",
        )
    return vector


def _resolve_weights(weights: Sequence[float], count: int) -> Sequence[float]:
    if weights and len(weights) != count:
        raise QueryError(
            f"{len(weights)} weights for {count} inputs",
            "Pass one for the query string, then one per text, image and vector.",
            code="weights-count",
        )
    return weights or [1.0] * count

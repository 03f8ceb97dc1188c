"""Encode query inputs (query string, texts, images, filters) to a search query, and combine vectors."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.errors import QueryError
from stair_es.feature_names import normalize_label
from stair_es.model.base import MatchThresholds
from stair_es.model.vocabularies.stop_words import list_content_words
from stair_es.model.vocabularies.unknown_words import UnknownWord, find_unknown_words, is_rarest_word_known, suggest_words
from stair_es.search.dsl.filters import parse_filter
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_parser import list_operator_remarks
from stair_es.search.dsl.query_words import (
    find_rarest_word,
    list_named_words,
    list_part_tokens,
    list_text_remarks,
    split_caption_words,
)
from stair_es.search.dsl.understanding import NO_FIELDS, SearchFields
from stair_es.search.dsl.weights import check_unicode
from stair_es.search.query import CaptionWord, QueryToken, SearchQuery, TokenGroup
from stair_es.sources.base import ReadLimits
from stair_es.sources.image.read import ImageLike, describe_image, read_image
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.token_policy import TokenPolicy


_MAX_REMARKS = 4
"""Excluded words that are said to be unknown: to find similar ones takes 0.1 s."""
MAX_READ_CHARS = 2048
"""Maximum length of what is read of a text. Models read at most some hundred tokens, and the time to find them is linear."""


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
    caption_query = _build_caption_query(encoder, inputs, understanding.text, fields, unsearched, policy)
    vectors = [(encode_text or encode_any_text)(encoder, text) for text in texts]
    if not caption_query:
        _check_known_words(encoder, texts, vectors)
    vectors += [*(_encode_known_image(encoder, image, read_limits) for image in inputs.images), *inputs.vectors]
    if policy is not None:
        vectors = list(map(policy.rewrite_query, vectors))
    _check_inputs(inputs, has_query=bool(any(map(len, vectors)) or inputs.factors or caption_query))
    resolve = partial(resolve_tokens, encoder, policy=policy)
    word_conditions = _build_word_conditions(encoder, inputs, fields, policy)
    tokens = _weight_tokens(inputs, vectors, resolve)
    return SearchQuery(
        vector=_multiply_factors(tokens),
        tokens=tokens,
        **word_conditions,
        min_weight=inputs.min_weight,
        filters=[parse_filter(item) if isinstance(item, str) else item for item in inputs.filters],
        conditions=understanding.conditions,
        **caption_query,
        caption_field=inputs.caption_field or fields.text or "caption",
        min_score=inputs.min_score,
        match_thresholds=choose_match_thresholds(encoder, has_images=inputs.has_images),
        **({} if inputs.has_images else _describe_words(encoder, inputs, texts, unsearched, policy)),
        unknown_words=unknown_words,
        remarks=[
            *([] if inputs.literal else list_operator_remarks(inputs.query_string)),
            *(remark for text in texts for remark in list_text_remarks(encoder, text)),
            *_list_word_remarks(encoder, word_conditions.get("excluded_words", ())),
        ],
    )


def _describe_words(
    encoder: Encoder, inputs: QueryInputs, texts: Sequence[str], unknown_words: AbstractSet[str], policy: TokenPolicy | None
) -> dict[str, Any]:
    """Describe the words of texts, by which matches are told from weak ones; with a caption of its own, its words suffice."""
    return {
        "needed_words": () if any(is_rarest_word_known(encoder, text) for text in texts) else sorted(unknown_words),
        "named_words": () if inputs.caption.strip() else list_named_words(encoder, texts, policy),
        "rarest_word": find_rarest_word(encoder, texts, policy),
    }


def _build_caption_query(
    encoder: Encoder,
    inputs: QueryInputs,
    text: str,
    fields: SearchFields,
    unknown_words: AbstractSet[str],
    policy: TokenPolicy | None,
) -> dict[str, Any]:
    """Build the part of a search query that is for captions: the given one, otherwise the text of the query string."""
    if inputs.caption.strip():
        text = inputs.caption
    elif not inputs.searches_words(fields):
        return {}
    read = encoder.read_text(text)

    def list_tokens(part: str) -> TokenGroup:
        return () if inputs.has_images else list_part_tokens(encoder, part, read.replaced, policy)

    phrases = (*inputs.parsed.phrases, *read.taught)
    words = split_caption_words(text, phrases, unknown_words, list_tokens, with_labels=inputs.hybrid and fields.labels)
    if not words and not inputs.caption.strip():
        return {}
    return {
        "caption": inputs.caption if inputs.caption.strip() else " ".join(word.text for word in words),
        "caption_words": words,
        "caption_weight": inputs.caption_weight,
    }


def _build_word_conditions(
    encoder: Encoder, inputs: QueryInputs, fields: SearchFields, policy: TokenPolicy | None
) -> dict[str, Any]:
    """Build the required and excluded words. If captions or labels are searched, a word may be in one, and needs no token."""
    resolve = partial(resolve_tokens, encoder, policy=policy)
    if not inputs.searches_words(fields):
        return {
            "required": list(map(resolve, inputs.required_words)),
            "excluded": list(map(resolve, inputs.excluded_words)),
        }

    def build_word(word: str) -> CaptionWord:
        is_content = bool(list_content_words(word))  # nearly every caption has a stop word
        tokens = find_tokens(encoder, word, policy) if is_content else resolve(word)
        return CaptionWord(word, 0.0, tokens, (normalize_label(word),) if fields.labels else ())

    return {
        "required_words": list(map(build_word, inputs.required_words)),
        "excluded_words": list(map(build_word, inputs.excluded_words)),
    }


def _list_word_remarks(encoder: Encoder, excluded: Sequence[CaptionWord]) -> list[str]:
    """List for the user which excluded words the model doesn't know. Required ones are part of the text."""
    texts = [word.text for word in excluded if not word.tokens][:_MAX_REMARKS]
    unknown = [UnknownWord(word=text, suggestions=suggest_words(encoder, text)) for text in texts]
    return [f"{word}; images with it in their captions or labels are left out" for word in unknown]


def _check_inputs(inputs: QueryInputs, *, has_query: bool) -> None:
    if not has_query:
        problem = "only says where" if inputs.parsed.near else "only excludes words" if inputs.excluded_words else "is empty"
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
    """Return the tokens of a word as `find_tokens`.

    Raises:
        QueryError: If it has none.
    """
    tokens = find_tokens(encoder, word, policy)
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


def find_tokens(encoder: Encoder, word: str, policy: TokenPolicy | None = None) -> TokenGroup:
    """Return the tokens of a word in an index of the model, with a token policy if it has one; empty if there are none.

    These are the tokens of the vocabulary; the word itself if the policy writes it.
    """
    check_unicode(word)
    if policy is None:
        return encoder.tokenize_word(word)
    is_written = word in policy.replacements.values()  # perhaps not in the vocabulary of the model
    return (word,) if is_written else policy.replace_tokens(encoder.tokenize_word(word))


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
        f'{suggestion}Describe in English what the image shows ("red car", "dog on a beach"), or teach the index '
        "the word from a few pictures: stair-es teach WORD --yes IMAGE ...",
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


def encode_query_image(encoder: Encoder, image: ImageLike, read_limits: ReadLimits | None = None) -> SparseVector:
    """Encode an image, such as a file or one at a URL; the vector is empty if the model finds no token for it.

    Raises:
        DecodeError: If it can't be read, is too large or is not an image; the message names it.
        MissingExtra: If it is a URL and the HTTP library is not installed.
    """
    return encoder.encode_images(read_image(image, encoder.image_spec, read_limits)[None])[0]


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


def _encode_known_image(encoder: Encoder, image: ImageLike, read_limits: ReadLimits | None) -> SparseVector:
    vector = encode_query_image(encoder, image, read_limits)
    if not len(vector):
        raise QueryError(
            f"the model {encoder.model_id} finds no token for {describe_image(image)}",
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

"""`SearchQuery`: a query vector with required and excluded tokens, filters and a text for BM25. Pure."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from stair_es.config.defaults import DEFAULT_CAPTION_WEIGHT
from stair_es.errors import QueryError
from stair_es.feature_names import escape_feature
from stair_es.model.vocabularies.readable import CONTINUATION_PREFIX
from stair_es.model.vocabularies.whole_words import list_uncovered_words
from stair_es.search.dsl.filters import check_filters, split_field_names
from stair_es.search.dsl.weights import HEAVY_SCORE, MAX_WEIGHT, check_unicode
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.model.base import MatchThresholds
    from stair_es.model.vocabularies.unknown_words import UnknownWord
    from stair_es.search.dsl.understanding import TextCondition

EMPTY_VECTOR = SparseVector((), ())
_MAX_COUNTED = 8
"""Required words of which the images are counted to explain that there is no hit: each is a search."""

TokenGroup = tuple[str, ...]
"""The tokens of one word: several if the vocabulary only has pieces of it."""


@dataclass(frozen=True, kw_only=True)
class QueryToken:
    """A token of a query."""

    token: str
    weight: float
    """Weight without the factor."""
    factor: float = 1.0
    added: bool = False
    """Whether it is in the query only because of its factor."""


def list_word_parts(text: str) -> list[str]:
    """List the words of a word or phrase of a caption as a model splits them (`acme's`: acme; `xk9`: xk), and the whole."""
    return [*list_uncovered_words(text, ()), text]


class CaptionWord(NamedTuple):
    """A word, or a phrase that was in quotes, that is searched in captions and labels."""

    text: str
    share: float
    """Its share of the score of a caption that has all of them."""
    tokens: TokenGroup = ()
    """The tokens of an image that shows it; empty if no picture can tell it."""
    labels: tuple[str, ...] = ()
    """The labels that stand for it: itself, and longer ones of which it is a part in the query; empty if none are searched."""


@dataclass(frozen=True, kw_only=True)
class MatchCut:
    """The cut between matches and weak matches."""

    weak_below: float | None
    """Sum of the tokens' contributions below which a document is a weak match, unless it has all `words`; None if no sum
    suffices."""
    words: Sequence[CaptionWord] = ()
    """The words of the query, some perhaps without a text that is searched in captions; empty for none. A document that has each
    of them, in its caption or by its tokens, is a match."""
    named_weight: float = 0.0
    """Minimum weight for a token to count."""
    needed_words: AbstractSet[str] = frozenset()
    """A document whose caption lacks one of these words is a weak match: no picture can tell it."""

    def is_weak(self, score: float, document_tokens: Mapping[str, float], found_words: AbstractSet[str] = frozenset()) -> bool:
        """Return whether a document is a weak match.

        Args:
            score: The sum of the tokens' contributions.
            document_tokens: Its weights by escaped token, as they are stored.
            found_words: The words that its caption has.
        """

        def has_word(word: CaptionWord) -> bool:
            weights = [document_tokens.get(escape_feature(token)) or 0.0 for token in word.tokens]
            return word.text in found_words or (bool(weights) and min(weights) >= self.named_weight)

        if self.words and all(map(has_word, self.words)):
            return False
        return not self.needed_words <= found_words or self.weak_below is None or score < self.weak_below


@dataclass(frozen=True, kw_only=True)
class SearchQuery:
    """A search query, independent of the cluster.

    The score of a document is the dot product with `vector`, plus that of its caption times `caption_weight`.
    Everything else only restricts which documents match.
    """

    vector: SparseVector = EMPTY_VECTOR
    tokens: Sequence[QueryToken] = ()
    """What the vector was built from, heaviest first, including the tokens with a factor of 0; empty if that isn't known."""
    required: Sequence[TokenGroup] = ()
    """Words that a document must have: all tokens of each."""
    excluded: Sequence[TokenGroup] = ()
    """Words that a document must not have: a document with all tokens of one is excluded."""
    required_words: Sequence[CaptionWord] = ()
    """Words that a document must have, in its caption or by all of its tokens."""
    excluded_words: Sequence[CaptionWord] = ()
    """Words that a document must not have, neither in its caption nor by all of its tokens."""
    min_weight: float = 0.0
    """Minimum weight for a token to count as present, for `required` and `excluded`; 0 for any weight."""
    filters: Sequence[Mapping[str, Any]] = ()
    """Query clauses that a document must match, without effect on its score."""
    conditions: Sequence[TextCondition] = ()
    """The parts of the text that are read as conditions on fields."""
    caption: str = ""
    """A text for BM25 over `caption_field`, which may name several fields: `title,caption`."""
    caption_words: Sequence[CaptionWord] = ()
    """The words of `caption` by whose shares a document is scored, instead of BM25: its scores depend on the size of an index."""
    needed_words: Sequence[str] = ()
    """Words that no picture can tell: a document that lacks one of them in its caption is a weak match."""
    caption_weight: float = DEFAULT_CAPTION_WEIGHT
    caption_field: str = "caption"
    min_score: float | None = None
    match_thresholds: MatchThresholds | None = None
    """Thresholds of weak matches, for documents whose vectors have length 1; None if they aren't known."""
    named_words: Sequence[TokenGroup] = ()
    """The words of the text: a document that has all of them is not a weak match, regardless of its score."""
    rarest_word: tuple[str, TokenGroup] | None = None
    """The rarest word of the text, and the tokens that stand for it; None if the model has none for it."""
    is_refined: bool = False
    """Whether the query is adapted to what the documents of the index have (`search.refining`)."""
    unknown_words: Sequence[UnknownWord] = ()
    remarks: Sequence[str] = ()
    """Notes for the user on how the query was read."""
    scale: float = 1.0
    """Factor of the scores in the cluster, a power of two: `amplify` chooses it, and results are divided by it."""

    def __post_init__(self) -> None:
        """Check that the query is not empty and can be sent."""
        if not len(self.vector) and not self.caption.strip():
            raise QueryError("the query is empty: it has no token with a weight", "Try other words.", code="query-empty")
        for name, value in (
            ("min_weight", self.min_weight),
            ("caption_weight", self.caption_weight),
            ("min_score", self.min_score),
        ):
            if value is not None and not (math.isfinite(value) and value >= 0):
                raise QueryError(f"{name} must be a finite number >= 0, got {value:g}", code="invalid-number")
        for group in (*self.required, *self.excluded):
            if isinstance(group, str):  # its letters would be taken for tokens
                problem = f"the required or excluded word {group!r} is not a tuple of tokens"
                raise QueryError(problem, f"Write ({group!r},).", code="words-not-in-groups")
            if not group:
                raise QueryError("a required or excluded word has no token", "Omit it.", code="word-without-token")
        if self.caption.strip():
            self._check_caption()
        check_filters(self.filters)

    @property
    def match_cut(self) -> MatchCut | None:
        """The cut between matches and weak matches; None if it or the scale of the scores isn't known.

        It depends on the query alone, so it is the same on each page. A boost scales it with the length of the vector.
        """
        thresholds = self.match_thresholds
        if thresholds is None or not (len(self.vector) or self.caption_words) or (self.caption and not self.caption_words):
            return None
        weak_cosine = 1.0 if self.needed_words and not self.searched_words else thresholds.weak_cosine
        needed = self._list_needed_words()
        return MatchCut(
            weak_below=weak_cosine * math.hypot(*self.vector.weights) if len(self.vector) else None,
            words=self._list_match_words(needed),
            named_weight=thresholds.named_weight,
            needed_words=needed,
        )

    @property
    def searched_words(self) -> Sequence[CaptionWord]:
        """The words of `caption_words` that are sent: none if captions don't count."""
        return self.caption_words if self.caption_weight > 0 else ()

    @property
    def searched_labels(self) -> tuple[str, ...]:
        """The labels that are searched, each once."""
        return tuple(dict.fromkeys(label for word in self.searched_words for label in word.labels))

    def _list_match_words(self, needed: AbstractSet[str]) -> list[CaptionWord]:
        """List the words that a match has, by tokens that are in the vector; those of muted words don't count."""
        sent = frozenset(self.vector.tokens)
        in_captions = {token for word in self.searched_words for token in word.tokens}
        others = [CaptionWord("", 0.0, group) for group in self.named_words if not in_captions.issuperset(group)]
        words = [
            word._replace(tokens=() if word.text in needed else tuple(token for token in word.tokens if token in sent))
            for word in (*self.searched_words, *others)
        ]
        return [word for word in words if word.text or word.tokens]

    def _list_needed_words(self) -> frozenset[str]:
        """List the needed words as they are searched in captions: whole phrases and words with hyphens, not their parts."""
        if not self.searched_words:
            return frozenset(self.needed_words)
        needed = set(self.needed_words)
        return frozenset(word.text for word in self.searched_words if not needed.isdisjoint(list_word_parts(word.text)))

    def amplify(self) -> SearchQuery:
        """Return the query with the scale at which float32 drops what a cluster adds to scores, such as 1 for each role.

        What is added can differ between documents, so it can't be subtracted. The heaviest weight is scaled to `HEAVY_SCORE` or
        more: then a score that is 2^30 times smaller still doesn't change by an addition of 64. A power of two changes no digit.
        """
        heaviest = max(*self.vector.weights, self.caption_weight if self.caption.strip() else 0.0, 1 / MAX_WEIGHT)
        _, exponent = math.frexp(HEAVY_SCORE / heaviest)
        return replace(self, scale=min(math.ldexp(1.0, max(0, exponent)), MAX_WEIGHT))

    def count_vector_clauses(self, max_clauses: int) -> int:
        """Return how many of the clauses that a cluster allows the vector may use.

        Each required or excluded token needs one. The engine alone knows how many a caption or a filter needs: a sixteenth is
        left for them, and if they need more, its error says so.
        """
        reserved = sum(len(group) for group in (*self.required, *self.excluded))
        reserved += sum(1 + len(word.tokens) for word in (*self.required_words, *self.excluded_words))
        reserved += sum(len(word.labels) for word in (*self.caption_words, *self.required_words, *self.excluded_words))
        if self.filters or self.caption.strip():
            reserved += max_clauses // 16
        return max(1, max_clauses - reserved)

    def _check_caption(self) -> None:
        if self.caption_weight > MAX_WEIGHT:
            raise QueryError(
                f"the caption weight {self.caption_weight:g} is too large for an engine",
                "Use a smaller one.",
                code="caption-weight-too-large",
            )
        if not split_field_names(self.caption_field):
            raise QueryError("the name of the caption field is empty", code="caption-field-empty")
        check_unicode(self.caption)
        check_unicode(self.caption_field)


def explain_no_hits(query: SearchQuery, count: Callable[[SearchQuery], int]) -> str:
    """Explain an empty result by the required words; empty if they are not the reason. `count` counts the matches of a query."""
    bare = replace(query, excluded=(), excluded_words=(), filters=(), conditions=(), min_score=None)
    if not (query.required or query.required_words) or count(bare):
        return ""
    alone = replace(bare, required=(), required_words=())
    counts = {f"+{join_pieces(group)}": count(replace(alone, required=[group])) for group in query.required[:_MAX_COUNTED]}
    counts |= {f"+{word.text}": count(replace(alone, required_words=[word])) for word in query.required_words[:_MAX_COUNTED]}
    missing = [word for word, found in counts.items() if not found]
    if missing:
        return f"no image has {' or '.join(missing)}"
    return "no image has all of " + ", ".join(f"{word} ({found:,})" for word, found in counts.items())


def join_pieces(group: TokenGroup) -> str:
    """Return the word of a group of tokens."""
    return "".join(token.removeprefix(CONTINUATION_PREFIX) for token in group)

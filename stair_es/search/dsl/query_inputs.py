"""`QueryInputs`: everything that can be part of a query, as a user gives it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stair_es.config.defaults import DEFAULT_CAPTION_WEIGHT, DEFAULT_PRICE_FIELD
from stair_es.errors import QueryError
from stair_es.model.vocabularies.stop_words import list_content_words
from stair_es.search.dsl.near import NearPlace, build_near_condition
from stair_es.search.dsl.query_parser import ParsedQuery, parse_query
from stair_es.search.dsl.understanding import SearchFields, TextCondition, Understanding, understand_text
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.sources.image.read import ImageLike


_MAX_READ_WORDS = 16
"""Words that are read to find one that can be searched: to read an unknown one takes 16 ms."""


@dataclass(frozen=True, kw_only=True)
class QueryInputs:
    """Everything that can be part of a query."""

    query_string: str = ""
    """A query string: `beach -people +dog^2` (see `parse_query`)."""
    texts: Sequence[str] = ()
    """Further texts, without operators."""
    images: Sequence[ImageLike] = ()
    """Image files by path, or their bytes; a string can also be an http(s) URL, fetched under `ReadLimits.url_policy`."""
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
    near: Sequence[NearPlace] = ()
    """Where images must be, besides what the query string says."""
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
        """Split the query string into words and conditions on fields, if the words that are left can be searched.

        Raises:
            QueryError: If it says where images must be, and the index doesn't tell, or the city isn't known.
        """
        near = self.build_near_conditions(fields)
        understanding = self._understand_words(encoder, fields)
        return replace(understanding, conditions=(*near, *understanding.conditions)) if near else understanding

    def build_near_conditions(self, fields: SearchFields) -> tuple[TextCondition, ...]:
        """Build the conditions of where images must be."""
        return tuple(build_near_condition(each, fields.location) for each in (*self.parsed.near, *self.near))

    def _understand_words(self, encoder: Encoder, fields: SearchFields) -> Understanding:
        parsed = self.parsed
        as_words = Understanding(text=parsed.text)
        if self.literal:
            return as_words
        understanding = understand_text(parsed.text, fields, (*parsed.phrases, *parsed.required, *parsed.boosts))
        if not understanding.conditions or self.texts or self.has_images or self.searches_words(fields):
            return understanding
        words = list(list_content_words(understanding.text))[:_MAX_READ_WORDS]
        return understanding if any(encoder.list_text_words(" ".join(words)).values()) else as_words

    @property
    def has_images(self) -> bool:
        """Whether images are part of the query."""
        return bool(self.images or self.vectors)

    def choose_caption_field(self, fields: SearchFields) -> str:
        """Choose the fields in which the words of the query string are searched; empty for none."""
        return (self.caption_field or fields.text) if self.hybrid else ""

    def searches_words(self, fields: SearchFields) -> bool:
        """Return whether the words of the query string are searched besides the token weights: in captions, or in labels."""
        return bool(self.choose_caption_field(fields)) or (self.hybrid and fields.labels)

    @property
    def required_words(self) -> tuple[str, ...]:
        """The required words of the query string and `required`, each once."""
        return tuple(dict.fromkeys((*self.parsed.required, *self.required)))

    @property
    def excluded_words(self) -> tuple[str, ...]:
        """The excluded words of the query string and `excluded`, each once."""
        return tuple(dict.fromkeys((*self.parsed.excluded, *self.excluded)))

"""Bag of words, to compare with: a word of the query counts 1 where an image has it among its heaviest. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stair_es.search.body import has_word
from stair_es.search.explain import Reason
from stair_es.types import SparseVector
from stair_es.web.weighed import WORDS_FIELD

if TYPE_CHECKING:
    from stair_es.search.question import Question
    from stair_es.search.shapes import Shape


def bag_query(question: Question, shape: Shape, most: int) -> tuple[dict[str, Any], SparseVector]:
    """The query, and the words of the question that it hasn't got room for.

    Args:
        question: What is looked for; the weights of its words don't matter, but the heaviest stay where there are too many.
        shape: How words are asked for that must or mustn't be there.
        most: How many clauses the cluster takes.
    """
    room = max(1, most - question.clauses_beside_the_vector)
    words = question.vector.top(room)
    counted = [{"constant_score": {"filter": {"term": {WORDS_FIELD: word}}, "boost": 1.0}} for word, _ in words]
    around = {
        "must": [{"bool": {"should": counted}}],
        "filter": [*question.filters, *(has_word(word, shape) for word in question.required)],
        "must_not": [has_word(word, shape) for word in question.excluded],
    }
    cut = SparseVector(question.vector.features[room:], question.vector.weights[room:])
    return {"bool": {name: clauses for name, clauses in around.items() if clauses}}, cut


def bag_why(question: Question, source: Mapping[str, Any]) -> tuple[Reason, ...]:
    """The words in common, each of which adds 1."""
    has = source.get(WORDS_FIELD)
    heaviest = set(map(str, has)) if isinstance(has, list) else {str(has)}
    common = sorted(word for word in question.vector.features if word in heaviest)
    return tuple(Reason(feature=word, query_weight=1.0, image_weight=1.0, contribution=1.0) for word in common)

"""Select the methods that can be compared on a dataset and a cluster, with reasons for those that can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stair_es.eval import knn
from stair_es.eval.methods import (
    NO_CLUSTER,
    Engine,
    Method,
    MethodName,
    Missing,
    bm25_method,
    dense_method,
    word_corpus,
    word_method,
)
from stair_es.eval.tasks import image_to_text, leave_one_out, text_to_image
from stair_es.eval.words import own_words, weighted_by_rarity

if TYPE_CHECKING:
    from stair_es.cluster.target import Target
    from stair_es.eval.contenders import Contender
    from stair_es.eval.encode import Encoded
    from stair_es.model.encoder import Speller
    from stair_es.types import SparseVector

Obstacle = Callable[[int], str]
"""Returns why the cluster has no kNN for vectors of this many dimensions; empty if it has."""


def knn_obstacle(target: Target, plugins: Callable[[], frozenset[str]]) -> Obstacle:
    """Return a function that checks kNN support. The cluster's plugins are requested only if they matter.

    Args:
        target: The cluster.
        plugins: Returns the names of its plugins.
    """
    return lambda dimensions: knn.obstacle(target, plugins, dimensions)


def chosen(encoded: Encoded, model: Contender, engine: Engine | None, obstacle: Obstacle) -> list[Method | Missing]:
    """Select the methods for one model, in both directions.

    Args:
        encoded: Dataset with the model's vectors.
        model: The model, for labels and tokenization.
        engine: How token weights are stored and queried; None for exact scores only.
        obstacle: Checks kNN support.
    """
    found: list[Method | Missing] = []
    if encoded.images.words is not None and encoded.read.words is not None:
        found += _words(encoded, encoded.images.words, encoded.read.words, model, engine)
    return [*found, *_dense(encoded, model.label, engine, obstacle)]


def _words(
    encoded: Encoded,
    seen: tuple[SparseVector, ...],
    read: tuple[SparseVector, ...],
    model: Contender,
    engine: Engine | None,
) -> list[Method]:
    """Build STAIR and the bag-of-words baseline: a text as the words in it, an image as the tokens of its vector."""
    texts, label = encoded.texts, model.label
    to_image, to_text = text_to_image(encoded.captions.images, texts), image_to_text(encoded.captions.images, texts)
    bags, rare = bags_of(texts, model.speller)
    body = engine.word_body if engine else {}
    pictures = word_corpus("images", body, seen, to_image.items, "uri")
    captions = word_corpus("texts", body, read, texts, "caption")
    written = word_corpus("bags", body, rare, texts, "caption")
    return [
        word_method("STAIR", label, to_image, pictures, seen, read, engine),
        word_method("bag of words", label, to_image, pictures, seen, bags, engine),
        word_method("STAIR", label, to_text, captions, read, seen, engine),
        word_method("bag of words", label, to_text, written, rare, seen, engine),
    ]


def bags_of(texts: tuple[str, ...], speller: Speller | None) -> tuple[list[SparseVector], list[SparseVector]]:
    """Build the bags of words of texts: as queries, and as documents.

    Args:
        texts: The texts.
        speller: Tokenizer of the vocabulary.
    """
    bags = own_words(texts, speller)
    return bags, weighted_by_rarity(bags)


def bm25(encoded: Encoded, engine: Engine | None) -> list[Method | Missing]:
    """Build the BM25 methods on captions, which need no model.

    Args:
        encoded: Dataset, of which the captions are used.
        engine: Engine configuration; None without a cluster.
    """
    name: MethodName = "BM25 on captions"
    left = leave_one_out(encoded.captions.images, encoded.texts)
    no_words = Missing(name=name, model="", direction="image -> text", reason="an image has no text to search with")
    reason = "" if engine else f"only an engine defines its scores, and {NO_CLUSTER}"
    if left is None:
        reason = "no image has a second caption that could find it"
    if left is None or engine is None:
        return [Missing(name=name, model="", direction="text -> image", reason=reason), no_words]
    return [bm25_method(left, engine.analyzer), no_words]


def _dense(encoded: Encoded, label: str, engine: Engine | None, obstacle: Obstacle) -> list[Method | Missing]:
    pictures, texts = encoded.images.dense, encoded.read.dense
    to_image = text_to_image(encoded.captions.images, encoded.texts)
    to_text = image_to_text(encoded.captions.images, encoded.texts)
    if pictures is None or texts is None:
        reason = "the model has no dense vectors, or none without its text network"
        return [Missing(name="dense kNN", model=label, direction=task.direction, reason=reason) for task in (to_image, to_text)]
    no_knn = obstacle(pictures.shape[1]) if engine else NO_CLUSTER
    return [
        dense_method(label, to_image, pictures, texts, engine, no_knn),
        dense_method(label, to_text, texts, pictures, engine, no_knn),
    ]

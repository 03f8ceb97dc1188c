"""Which methods can be compared on a set and a cluster, and why the others can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stair_es.eval import knn
from stair_es.eval.methods import (
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
    from stair_es.eval.encode import Encoded


def chosen(encoded: Encoded, engine: Engine, target: Target, plugins: Callable[[], frozenset[str]]) -> list[Method | Missing]:
    """All methods, both ways.

    Args:
        encoded: The set with its vectors.
        engine: How words are stored and asked.
        target: What the cluster is.
        plugins: Asks the cluster for its plugins; called only where the answer matters.
    """
    return [*_words(encoded, engine), *_bm25(encoded, engine.analyzer), *_dense(encoded, engine, target, plugins)]


def _words(encoded: Encoded, engine: Engine) -> list[Method | Missing]:
    """STAIR, and the bag of words: of a text what is written in it, of an image the words of its vector."""
    images, texts = encoded.captions.images, encoded.texts
    to_image, to_text = text_to_image(images, texts), image_to_text(images, texts)
    seen, read = encoded.image_vectors, encoded.text_vectors
    bags = own_words(texts)
    rare = weighted_by_rarity(bags)
    body = engine.word_body
    pictures = word_corpus("images", body, seen, to_image.items, "uri")
    captions = word_corpus("texts", body, read, texts, "caption")
    written = word_corpus("bags", body, rare, texts, "caption")
    return [
        word_method("STAIR", to_image, pictures, seen, read, engine),
        word_method("bag of words", to_image, pictures, seen, bags, engine),
        word_method("STAIR", to_text, captions, read, seen, engine),
        word_method("bag of words", to_text, written, rare, seen, engine),
    ]


def _bm25(encoded: Encoded, analyzer: str) -> list[Method | Missing]:
    name: MethodName = "BM25 on captions"
    left = leave_one_out(encoded.captions.images, encoded.texts)
    no_words = Missing(name=name, direction="image -> text", reason="an image has no text to ask with")
    if left is None:
        reason = "no image has a second caption, so leaving the asking one out leaves nothing to find"
        return [Missing(name=name, direction="text -> image", reason=reason), no_words]
    return [bm25_method(left, analyzer), no_words]


def _dense(encoded: Encoded, engine: Engine, target: Target, plugins: Callable[[], frozenset[str]]) -> list[Method | Missing]:
    pictures, texts = encoded.image_dense, encoded.text_dense
    to_image = text_to_image(encoded.captions.images, encoded.texts)
    to_text = image_to_text(encoded.captions.images, encoded.texts)
    if pictures is None or texts is None:
        reason = "the model has no dense vectors, or none without its text network"
        return [Missing(name="dense kNN", direction=task.direction, reason=reason) for task in (to_image, to_text)]
    obstacle = knn.obstacle(target, plugins, pictures.shape[1])
    return [
        dense_method(to_image, pictures, texts, engine, obstacle),
        dense_method(to_text, texts, pictures, engine, obstacle),
    ]

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
    dense_corpus,
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
    return [*_words(encoded, engine), *_bm25(encoded), *_dense(encoded, engine, target, plugins)]


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


def _bm25(encoded: Encoded) -> list[Method | Missing]:
    name: MethodName = "BM25 on captions"
    left = leave_one_out(encoded.captions.images, encoded.texts)
    no_words = Missing(name=name, direction="image -> text", reason="an image has no text to ask with")
    if left is None:
        reason = "no image has a second caption, so leaving the asking one out leaves nothing to find"
        return [Missing(name=name, direction="text -> image", reason=reason), no_words]
    return [bm25_method(left), no_words]


def _dense(encoded: Encoded, engine: Engine, target: Target, plugins: Callable[[], frozenset[str]]) -> list[Method | Missing]:
    images, texts = encoded.image_dense, encoded.text_dense
    if images is None or texts is None:
        reason = "the model has no dense vectors (with this text tower)"
    else:
        reason = knn.obstacle(target, plugins, images.shape[1])
        to_image = text_to_image(encoded.captions.images, encoded.texts)
        to_text = image_to_text(encoded.captions.images, encoded.texts)
        if not reason:
            body = knn.knn_body(engine.distribution, images.shape[1])
            return [
                dense_method(to_image, dense_corpus("dense-images", body, images), images, texts, engine),
                dense_method(to_text, dense_corpus("dense-texts", body, texts), texts, images, engine),
            ]
    return [Missing(name="dense kNN", direction=direction, reason=reason) for direction in ("text -> image", "image -> text")]

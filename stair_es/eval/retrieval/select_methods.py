"""Select the methods that can be compared on a dataset and a cluster, with reasons for those that can't."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stair_es.eval.bag_of_words import build_word_bags, weigh_by_idf
from stair_es.eval.retrieval.methods import (
    NO_CLUSTER,
    EngineConfig,
    MethodName,
    RetrievalMethod,
    UnavailableMethod,
    build_bm25_method,
    build_dense_method,
    build_token_corpus,
    build_token_method,
)
from stair_es.eval.retrieval.tasks import build_image_to_text, build_leave_one_out, build_text_to_image

if TYPE_CHECKING:
    from stair_es.eval.encode import EncodedDataset
    from stair_es.eval.models import EvaluatedModel
    from stair_es.types import SparseVector

KnnCheck = Callable[[int], str]
"""Returns why the cluster has no kNN for vectors of this many dimensions; empty if it has."""


def select_methods(
    encoded: EncodedDataset, model: EvaluatedModel, engine: EngineConfig | None, check_knn: KnnCheck | None
) -> list[RetrievalMethod | UnavailableMethod]:
    """Select the methods for one model, in both directions.

    Args:
        encoded: Dataset with the model's vectors.
        model: The model, for labels and tokenization.
        engine: How token weights are stored and queried; None for exact scores only.
        check_knn: Checks kNN support; None without a cluster.
    """
    found: list[RetrievalMethod | UnavailableMethod] = []
    if encoded.image_vectors.sparse is not None and encoded.text_vectors.sparse is not None:
        found += _build_token_methods(encoded, encoded.image_vectors.sparse, encoded.text_vectors.sparse, model, engine)
    return [*found, *_build_dense_methods(encoded, model.label, engine, check_knn)]


def _build_token_methods(
    encoded: EncodedDataset,
    image_vectors: tuple[SparseVector, ...],
    text_vectors: tuple[SparseVector, ...],
    model: EvaluatedModel,
    engine: EngineConfig | None,
) -> list[RetrievalMethod]:
    """Build STAIR and the bag-of-words baseline: a text as the words in it, an image as the tokens of its vector."""
    texts, label = encoded.texts, model.label
    to_image, to_text = build_text_to_image(encoded.captions.images, texts), build_image_to_text(encoded.captions.images, texts)
    bags = build_word_bags(texts, model.tokenizer)
    weighted_bags = weigh_by_idf(bags)
    body = engine.token_body if engine else {}
    image_corpus = build_token_corpus("images", body, image_vectors, to_image.items, "uri")
    text_corpus = build_token_corpus("texts", body, text_vectors, texts, "caption")
    bag_corpus = build_token_corpus("bags", body, weighted_bags, texts, "caption")
    return [
        build_token_method("STAIR", label, to_image, image_corpus, image_vectors, text_vectors, engine),
        build_token_method("bag of words", label, to_image, image_corpus, image_vectors, bags, engine),
        build_token_method("STAIR", label, to_text, text_corpus, text_vectors, image_vectors, engine),
        build_token_method("bag of words", label, to_text, bag_corpus, weighted_bags, image_vectors, engine),
    ]


def build_bm25_methods(encoded: EncodedDataset, engine: EngineConfig | None) -> list[RetrievalMethod | UnavailableMethod]:
    """Build the BM25 methods on captions, which need no model.

    Args:
        encoded: Dataset, of which the captions are used.
        engine: Engine configuration; None without a cluster.
    """
    name: MethodName = "BM25 on captions"
    leave_one_out = build_leave_one_out(encoded.captions.images, encoded.texts)
    no_words = UnavailableMethod(name=name, model="", direction="image -> text", reason="an image has no text to search with")
    reason = "" if engine else f"only an engine defines its scores, and {NO_CLUSTER}"
    if leave_one_out is None:
        reason = "no image has a second caption that could find it"
    if leave_one_out is None or engine is None:
        return [UnavailableMethod(name=name, model="", direction="text -> image", reason=reason), no_words]
    return [build_bm25_method(leave_one_out, engine.analyzer), no_words]


def _build_dense_methods(
    encoded: EncodedDataset, label: str, engine: EngineConfig | None, check_knn: KnnCheck | None
) -> list[RetrievalMethod | UnavailableMethod]:
    images, texts = encoded.image_vectors.dense, encoded.text_vectors.dense
    to_image = build_text_to_image(encoded.captions.images, encoded.texts)
    to_text = build_image_to_text(encoded.captions.images, encoded.texts)
    if images is None or texts is None:
        reason = "the model has no dense vectors, or none without its text network"
        return [
            UnavailableMethod(name="dense kNN", model=label, direction=task.direction, reason=reason)
            for task in (to_image, to_text)
        ]
    no_knn_reason = check_knn(images.shape[1]) if check_knn else NO_CLUSTER
    return [
        build_dense_method(label, to_image, images, texts, engine, no_knn_reason),
        build_dense_method(label, to_text, texts, images, engine, no_knn_reason),
    ]

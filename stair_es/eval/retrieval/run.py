"""Retrieval evaluation from a caption dataset to a report: encode once, then run each method exactly and on the cluster."""

from __future__ import annotations

import platform
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version

from stair_es.cluster.client.capabilities import ClusterInfo, get_cluster_info, list_cluster_plugins
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.config.defaults import MAX_HITS
from stair_es.errors import UsageError
from stair_es.eval.bag_of_words import build_word_bags, weigh_by_idf
from stair_es.eval.datasets.captions import CaptionDataset
from stair_es.eval.encode import EncodedDataset, encode_dataset
from stair_es.eval.models import EvaluatedModel, run_for_each_model
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
    explain_missing_knn,
)
from stair_es.eval.retrieval.report import MethodRow, RetrievalReport
from stair_es.eval.retrieval.runner import RetrievalRunner, build_exact_rows, detect_analyzer
from stair_es.eval.retrieval.tasks import build_image_to_text, build_leave_one_out, build_text_to_image
from stair_es.search.dsl.select import IndexFields, select_query_type
from stair_es.types import PartProgressCallback, QueryType, SparseVector, TokensType

KnnCheck = Callable[[int], str]
"""Returns why the cluster has no kNN for vectors of this many dimensions; empty if it has."""
DEFAULT_EVAL_DEPTH = 1000


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
    bags = build_word_bags(texts, model.split_word)
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


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Options of a retrieval evaluation."""

    vector: TokensType = "rank_features"
    query_type: QueryType | None = None
    """Query type; None for the default of the cluster."""
    depth: int = DEFAULT_EVAL_DEPTH
    """Maximum number of hits per query; items beyond it are ranked last."""
    keep_index: bool = False
    """Whether to keep the temporary indices."""

    def __post_init__(self) -> None:
        """Check the depth.

        Raises:
            UsageError: If it is out of range.
        """
        if not 10 <= self.depth <= MAX_HITS:
            raise UsageError(
                f"the depth must be between 10 and {MAX_HITS}, got {self.depth}",
                "For example: --depth 1000",
                code="invalid-depth",
            )


@dataclass(frozen=True, kw_only=True)
class _EvalCluster:
    """A cluster to evaluate on."""

    cluster: Cluster
    cluster_info: ClusterInfo
    engine: EngineConfig
    check_knn: KnnCheck
    """Checks kNN support."""


def evaluate_retrieval(
    captions: CaptionDataset,
    models: Sequence[EvaluatedModel],
    connection: Connection | None,
    options: EvalOptions,
    *,
    progress: PartProgressCallback,
) -> RetrievalReport:
    """Evaluate all methods of all models, in both directions.

    Args:
        captions: The dataset.
        models: At least one; they encode one after another.
        connection: The cluster, on which temporary indices `eval-...` are created, and deleted at the end unless they are kept.
            None for exact scores only.
        options: Options.
        progress: Callback for the progress of encoding and searching.

    Raises:
        StairError: If nothing in the dataset is usable, or the cluster fails.
    """
    start = time.perf_counter()
    first_encoded: list[EncodedDataset] = []
    problems: list[str] = []
    with _open_cluster(connection, options) as eval_cluster:
        engine = eval_cluster.engine if eval_cluster else None

        def measure_model(model: EvaluatedModel) -> list[MethodRow]:
            encoded = encode_dataset(captions, model, progress)
            problems.extend(encoded.captions.problems)
            methods = select_methods(encoded, model, engine, eval_cluster.check_knn if eval_cluster else None)
            if not first_encoded:
                methods += build_bm25_methods(encoded, engine)
                first_encoded.append(encoded)
            return _measure_methods(methods, model, eval_cluster, options, progress)

        rows = run_for_each_model(models, measure_model, problems)
    [first] = first_encoded
    return RetrievalReport(
        captions=captions.name,
        format=captions.form,
        images=len(first.captions.images),
        texts=len(first.texts),
        problems=tuple(dict.fromkeys(problems)),
        model=models[0].label,
        compared=tuple(model.label for model in models[1:]),
        text_tower=models[0].spec.text_tower,
        cluster=eval_cluster.cluster_info.label if eval_cluster else "",
        query_type=engine.query_type if engine else "",
        depth=options.depth if engine else 0,
        analyzer=engine.analyzer if engine else "",
        rows=_sort_rows(rows),
        versions={"python": platform.python_version(), **{name: version(name) for name in ("stair-es", "numpy")}},
        seconds=time.perf_counter() - start,
        kept_indices=tuple(dict.fromkeys(row.index for row in rows if row.index)),
    )


@contextmanager
def _open_cluster(connection: Connection | None, options: EvalOptions) -> Iterator[_EvalCluster | None]:
    if connection is None:
        yield None
        return
    with Cluster(connection) as cluster:
        cluster_info = get_cluster_info(cluster)
        body = build_index_body(cluster_info, DocumentSettings(thumbnail_px=0, vector=options.vector))
        list_plugins = partial(list_cluster_plugins, cluster)
        engine = EngineConfig(
            distribution=cluster_info.distribution,
            query_type=select_query_type(
                cluster_info, IndexFields.from_mapping(body["mappings"]["properties"]), list_plugins, options.query_type
            ),
            max_clauses=cluster_info.max_clauses,
            depth=options.depth,
            analyzer=detect_analyzer(cluster),
            token_body=body,
        )
        check_knn = partial(explain_missing_knn, cluster_info, list_plugins)
        yield _EvalCluster(cluster=cluster, cluster_info=cluster_info, engine=engine, check_knn=check_knn)


def _measure_methods(
    methods: Sequence[RetrievalMethod | UnavailableMethod],
    model: EvaluatedModel,
    eval_cluster: _EvalCluster | None,
    options: EvalOptions,
    progress: PartProgressCallback,
) -> list[MethodRow]:
    available = [method for method in methods if isinstance(method, RetrievalMethod)]
    missing = [_build_missing_row(method) for method in methods if isinstance(method, UnavailableMethod)]
    if eval_cluster is None:
        return build_exact_rows(available) + missing
    name = f"eval-{secrets.token_hex(4)}"
    runner = RetrievalRunner(
        cluster=eval_cluster.cluster,
        index_prefix=name,
        index_spec=IndexSpec(
            model_name=model.spec.name,
            model_id=model.label,
            fit=model.encoder.image_spec.fit,
            settings={"evaluation": name},
        ),
        depth=options.depth,
        keep_index=options.keep_index,
        progress=progress,
    )
    return runner.run_methods(available) + missing


def _build_missing_row(method: UnavailableMethod) -> MethodRow:
    reason = method.reason
    return MethodRow(
        method=method.name, model=method.model, direction=method.direction, exact_reason=reason, engine_reason=reason
    )


def _sort_rows(rows: list[MethodRow]) -> tuple[MethodRow, ...]:
    methods = ("STAIR", "bag of words", "BM25 on captions", "dense kNN")
    return tuple(sorted(rows, key=lambda row: (row.direction != "text -> image", methods.index(row.method))))

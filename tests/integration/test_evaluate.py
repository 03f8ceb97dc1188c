"""`evaluate` on real nodes: rankings of the engine against exact scores, without leftovers."""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

import numpy as np
import pytest
from opensearchpy import OpenSearch
from PIL import Image
from support.oracles.rank_eval import AT, compute_metrics, run_rank_eval

from stair_es import SparseVector
from stair_es.cluster.client.capabilities import get_cluster_info
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.connection import Connection
from stair_es.cluster.documents.document import DocumentSettings
from stair_es.cluster.index.mappings import build_index_body
from stair_es.cluster.metadata.index_metadata import IndexSpec
from stair_es.eval.datasets.captions import CaptionDataset, CaptionedImage
from stair_es.eval.encode import encode_dataset
from stair_es.eval.metrics import RetrievalMetrics
from stair_es.eval.models import build_evaluated_model
from stair_es.eval.retrieval.methods import EngineConfig, RetrievalMethod
from stair_es.eval.retrieval.ranking_diff import RankingDiff
from stair_es.eval.retrieval.report import MethodRow, RetrievalReport, render_retrieval_report
from stair_es.eval.retrieval.run import EvalOptions, build_bm25_methods, evaluate_retrieval, select_methods
from stair_es.eval.retrieval.runner import create_temporary_index, detect_analyzer
from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.search.query import SearchQuery
from stair_es.search.searcher import Searcher
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import to_file_uri
from stair_es.types import Floats, ImageSpec, Pixels

IMAGES, TOKENS, DIMENSIONS = 40, 150, 16
NOUNS = ("dog", "cat", "house", "tree", "car", "boat", "horse", "bird", "lamp", "shoe")
COLORS = ("red", "green", "blue", "white", "black", "brown")


class GreyEncoder(Encoder):
    """An encoder of images that are one grey value, and of texts that name it: the same draw, and noise on the side of texts."""

    card = ModelCard(name="drawn", model_id="drawn@1", image_spec=ImageSpec(size_px=8), description="")
    has_dense = True

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        return [draw_tokens(np.random.default_rng(int(pixels_HWC[4, 4, 0])), 40) for pixels_HWC in pixels_BHWC]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [draw_query_tokens(text) if text.strip("?") else SparseVector((), ()) for text in texts]

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        return np.stack([draw_unit_vector(np.random.default_rng(int(pixels_HWC[4, 4, 0]))) for pixels_HWC in pixels_BHWC])

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        noisy = [
            draw_unit_vector(np.random.default_rng(parse_number(text))) + draw_unit_vector(seed_noise(text)) for text in texts
        ]
        return np.stack([row / np.linalg.norm(row) for row in noisy])


MODELS = [build_evaluated_model(GreyEncoder(), ModelSpec(name="drawn"))]


def draw_tokens(rng: np.random.Generator, count: int) -> SparseVector:
    chosen = rng.choice(TOKENS, count, replace=False)
    return SparseVector.from_pairs((f"w{number}", float(np.exp(rng.normal(-2, 1)))) for number in chosen)


def draw_query_tokens(text: str) -> SparseVector:
    own = draw_tokens(np.random.default_rng(parse_number(text)), 40).top(12).to_dict()
    noise = draw_tokens(seed_noise(text), 20).to_dict()
    return SparseVector.from_pairs((word, own.get(word, 0.0) + noise.get(word, 0.0)) for word in {*own, *noise})


def draw_unit_vector(rng: np.random.Generator) -> Floats:
    row: Floats = rng.normal(size=DIMENSIONS).astype(np.float32)
    return row / np.float32(np.linalg.norm(row))


def parse_number(text: str) -> int:
    return int("0" + "".join(filter(str.isdecimal, text)))


def seed_noise(text: str) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(text.encode()))


@pytest.fixture(scope="module")
def caption_dataset(tmp_path_factory: pytest.TempPathFactory) -> CaptionDataset:
    """Two captions an image; one image has a third that no encoder understands, one file is no image."""
    folder = tmp_path_factory.mktemp("set")
    images = []
    for number in range(IMAGES):
        path = folder / f"{number}.png"
        Image.new("RGB", (8, 8), (number, number, number)).save(path)
        noun, color = NOUNS[number % 10], COLORS[number // 10]
        texts = (f"a {color} {noun} number {number}", f"the {noun} that is {color}, {number}")
        images.append(
            CaptionedImage(
                name=path.name, locator=FileLocator(to_file_uri(path)), captions=(*texts, "???") if number == 3 else texts
            )
        )
    broken = folder / "broken.png"
    broken.write_bytes(b"no image")
    images.append(CaptionedImage(name=broken.name, locator=FileLocator(to_file_uri(broken)), captions=("nothing",)))
    return CaptionDataset(name="drawn", form="drawn", images=tuple(images))


def evaluate_captions(url: str, caption_dataset: CaptionDataset, options: EvalOptions | None = None) -> RetrievalReport:
    options = options or EvalOptions()
    return evaluate_retrieval(caption_dataset, MODELS, Connection(url=url), options, progress=lambda *_: None)


def find_row(report: RetrievalReport, method: str, direction: str) -> MethodRow:
    [row] = [row for row in report.rows if (row.method, row.direction) == (method, direction)]
    return row


def read_comparison(row: MethodRow) -> tuple[RetrievalMetrics, RetrievalMetrics, RankingDiff]:
    """Return exact metrics, those of the engine and the differences of a row that has all of them."""
    assert row.exact is not None
    assert row.engine is not None
    assert row.differences is not None
    return row.exact, row.engine, row.differences


def list_eval_indices(url: str) -> list[str]:
    with Cluster(Connection(url=url)) as cluster:
        return list(cluster.client.indices.get(index="eval-*-drawn-1-*,eval-*-other-1-*"))


def check_token_rows(report: RetrievalReport) -> None:
    """Check that the engine's rankings by tokens are the exact ones, but for what 9 bits can swap."""
    for direction in ("text -> image", "image -> text"):
        row = find_row(report, "STAIR", direction)
        exact, engine, differences = read_comparison(row)
        assert (differences.unexplained, differences.truncated) == (0, 0)
        compared = engine.queries - row.queries_without_tokens
        assert differences.same + differences.explained == differences.queries == compared
        assert -1 / 256 - 1e-5 < differences.lowest < -1e-4  # the bits that it lacks are seen
        assert engine.mrr == pytest.approx(exact.mrr, abs=0.02)
        assert 0.5 < exact.hit[1] < 1.0
    row = find_row(report, "STAIR", "text -> image")
    assert row.queries_without_tokens == 1
    assert row.task is not None
    query_sizes = [len(vector) for vector in GreyEncoder().encode_texts(row.task.queries)]
    assert row.tokens == pytest.approx((40.0, fmean(query_sizes)))


def check_dense_rows(report: RetrievalReport) -> None:
    for direction in ("text -> image", "image -> text"):
        exact, engine, differences = read_comparison(find_row(report, "dense kNN", direction))
        assert differences.overlap > 0.95
        assert engine.mrr == pytest.approx(exact.mrr, abs=0.02)
        assert 0.5 < exact.hit[10] <= 1.0


def test_tokens_and_captions_on_engines_with_rank_features(rank_features_url: str, caption_dataset: CaptionDataset) -> None:
    report = evaluate_captions(rank_features_url, caption_dataset)
    assert (report.images, report.texts) == (IMAGES, 2 * IMAGES + 1)
    assert [problem.partition(":")[0] for problem in report.problems] == ["broken.png"]
    check_token_rows(report)
    bm25 = find_row(report, "BM25 on captions", "text -> image")
    assert bm25.engine is not None
    assert bm25.engine.queries == 2 * IMAGES + 1
    assert bm25.engine.hit[1] > 0.9  # number, noun and color are in the other caption
    assert bm25.exact is None
    assert find_row(report, "BM25 on captions", "image -> text").engine is None
    dense = find_row(report, "dense kNN", "text -> image")
    assert dense.exact is not None
    assert dense.engine is None
    assert ("plugin" in dense.engine_reason) == ("OpenSearch" in report.cluster)
    assert list_eval_indices(rank_features_url) == []


def test_metrics_match_the_cluster_for_each_query(node_url: str, caption_dataset: CaptionDataset) -> None:
    with Cluster(Connection(url=node_url)) as cluster:
        methods = select_engine_methods(cluster, caption_dataset)
        assert len(methods) >= 5
        for method in methods:
            check_rank_eval(cluster, method)


def select_engine_methods(cluster: Cluster, caption_dataset: CaptionDataset) -> list[RetrievalMethod]:
    """Return the methods without kNN, which the nodes with the module rank-eval don't have."""
    cluster_info = get_cluster_info(cluster)
    engine = EngineConfig(
        distribution=cluster_info.distribution,
        query_type="rank_features",
        max_clauses=cluster_info.max_clauses,
        depth=AT,
        analyzer=detect_analyzer(cluster),
        token_body=build_index_body(cluster_info, DocumentSettings(thumbnail_px=0)),
    )
    encoded = encode_dataset(caption_dataset, MODELS[0], lambda *_: None)
    methods = [*select_methods(encoded, MODELS[0], engine, lambda _: "no kNN"), *build_bm25_methods(encoded, engine)]
    return [method for method in methods if isinstance(method, RetrievalMethod) and method.corpus is not None]


def check_rank_eval(cluster: Cluster, method: RetrievalMethod) -> None:
    """Check that `_rank_eval` of the cluster has our metrics."""
    assert method.corpus is not None
    index_spec = IndexSpec(model_name="drawn", model_id=GreyEncoder.card.model_id, fit="pad", settings={})
    run = f"eval-rank-{uuid.uuid4().hex[:8]}"
    with create_temporary_index(cluster, method.corpus, run=run, index_spec=index_spec, keep=False) as index:
        queries = [method.build_query(query).clause for query in range(len(method.task.queries))]
        clauses = {query: clause for query, clause in enumerate(queries) if clause is not None}
        assert len(clauses) >= len(queries) - 1
        hits = list(index.search_queries(queries, AT))
        by_cluster = run_rank_eval(index, clauses, method.task.relevant)
        computed = {query: compute_metrics(hits[query], method.task.relevant[query]) for query in clauses}
    assert by_cluster == {query: pytest.approx(values, abs=1e-6) for query, values in computed.items()}, method.name
    for metric in ("recall@10", "MRR@10", "nDCG@10"):
        mean = fmean(values[metric] for values in by_cluster.values())
        assert 0.05 < mean <= 1.0 or method.name == "bag of words"


def test_sparse_vector_and_dense_vectors_on_elasticsearch(elasticsearch9_url: str, caption_dataset: CaptionDataset) -> None:
    report = evaluate_captions(elasticsearch9_url, caption_dataset, EvalOptions(vector="sparse_vector"))
    assert report.query_type == "sparse_vector"
    check_token_rows(report)
    check_dense_rows(report)
    assert list_eval_indices(elasticsearch9_url) == []


def test_dense_vectors_with_the_knn_plugin(plugin_url: str, caption_dataset: CaptionDataset) -> None:
    report = evaluate_captions(plugin_url, caption_dataset)
    check_token_rows(report)
    check_dense_rows(report)
    assert list_eval_indices(plugin_url) == []


def test_kept_indices_can_be_searched(node_url: str, client: OpenSearch, caption_dataset: CaptionDataset) -> None:
    report = evaluate_captions(node_url, caption_dataset, EvalOptions(keep_index=True))
    try:
        assert len(report.kept_indices) == 4
        [texts] = [name for name in report.kept_indices if "-texts-" in name]
        vector = GreyEncoder().encode_images(np.full((1, 8, 8, 3), 5, np.uint8))[0]
        with Searcher(Connection(url=node_url), texts, GreyEncoder.card.model_id) as searcher:
            hits = searcher.search(SearchQuery(vector=vector), k=2).hits
        assert {hit.source["caption"] for hit in hits} <= {text for image in caption_dataset.images for text in image.captions}
        assert any(" 5" in hit.source["caption"] for hit in hits)
    finally:
        client.indices.delete(index=",".join(report.kept_indices))


def test_several_models_share_a_run(node_url: str, caption_dataset: CaptionDataset) -> None:
    class OtherEncoder(GreyEncoder):
        card = replace(GreyEncoder.card, model_id="other@1")

    models = [*MODELS, build_evaluated_model(OtherEncoder(), ModelSpec(name="other"))]
    report = evaluate_retrieval(caption_dataset, models, Connection(url=node_url), EvalOptions(), progress=lambda *_: None)
    assert (report.model, report.compared) == ("drawn@1", ("other@1",))
    by_model = {row.model: row for row in report.rows if (row.method, row.direction) == ("STAIR", "text -> image")}
    assert by_model["drawn@1"].engine == by_model["other@1"].engine
    assert by_model["drawn@1"].engine is not None
    assert [row.model for row in report.rows if row.method == "BM25 on captions"] == ["", ""]
    reasons = {row.engine_reason for row in report.rows if (row.method, row.model) == ("dense kNN", "other@1")}
    [reason] = reasons
    assert any(reason in line and "other@1" in line for line in render_retrieval_report(report).splitlines())
    assert list_eval_indices(node_url) == []


def test_an_interrupted_run_leaves_no_index(node_url: str, caption_dataset: CaptionDataset) -> None:
    def interrupt_queries(what: str, done: int, total: int) -> None:
        if what == "queries" and done == 7:
            seen.extend(list_eval_indices(node_url))
            raise KeyboardInterrupt

    seen: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        evaluate_retrieval(caption_dataset, MODELS, Connection(url=node_url), EvalOptions(), progress=interrupt_queries)
    assert len(seen) == 1
    assert list_eval_indices(node_url) == []


def test_a_rejected_caption_fails_only_its_method(node_url: str, caption_dataset: CaptionDataset) -> None:
    first, *others = caption_dataset.images
    essay = " ".join(f"{a}{b}{c}" for a in "abcdefghij" for b in "klmnopqrst" for c in "uvwxyzabcdef")  # 1,200 different words
    longer = replace(first, captions=(*first.captions, essay))
    report = evaluate_captions(node_url, replace(caption_dataset, images=(longer, *others)))
    bm25 = find_row(report, "BM25 on captions", "text -> image")
    assert bm25.engine is None
    assert "1024" in bm25.engine_reason
    assert bm25.engine_reason in render_retrieval_report(report)
    assert find_row(report, "STAIR", "text -> image").engine is not None
    assert find_row(report, "bag of words", "image -> text").engine is not None
    assert list_eval_indices(node_url) == []


def test_truncated_queries_are_not_counted_as_differences(exclusive_node_url: str, caption_dataset: CaptionDataset) -> None:
    with Cluster(Connection(url=exclusive_node_url)) as cluster:
        settings = cluster.client.cluster
        settings.put_settings(body={"transient": {"indices.query.bool.max_clause_count": 30}})
        try:
            report = evaluate_captions(exclusive_node_url, caption_dataset)
        finally:
            settings.put_settings(body={"transient": {"indices.query.bool.max_clause_count": None}})
    row = find_row(report, "STAIR", "image -> text")
    assert row.differences is not None
    assert (row.differences.truncated, row.differences.queries) == (IMAGES, 0)

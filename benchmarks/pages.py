"""Measure an index of document pages as V-SPLADE encodes them: 552 tokens a page, beside BM25 over OCR text and dense HNSW.

    python benchmarks/pages.py --docs 10000 --docs 100000

All pages are generated: no weights of the model and no document are needed. A page has one of 200 topics. Its 552 different
tokens, as many as the model's README shows for a page, are drawn from 50,368 by Zipf's law, one half in an order that all pages
share, the other in that of the topic. A query of 15 tokens then reads about 1.5 postings a page, which is what the authors
publish for theirs. A weight is `log(1 + x)`, with `x` drawn from an exponential distribution whose largest of 552 is, on average,
what that README shows (1.84). The OCR text of a page has 500 words, drawn in the same way from 100,000. The dense vector has 768
dimensions: a topic and noise in 32 dimensions, projected.

A query is a page that isn't in the corpus: 5 or 15 of its tokens against as many of its words, or all of both; the dense query is
its vector. The search is measured as in `query.py`, in one shard merged to one segment.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from uuid import uuid4

import numpy as np
import orjson
from harness.http import Body, Http
from harness.program import build_parser, publish_result, save_result
from harness.result import Ratio, ReportTable, Result
from numpy.typing import NDArray
from search.arms import EF_SEARCH, Arm, build_ids_request, build_tokens_request, search_knn
from search.corpus import BATCH, DECIMALS, Words
from search.indices import Loaded, build_kinds, delete_index, make_uri, write_index
from search.measure import Row, measure_arms
from search.nodes import open_node
from search.queries import ExactSearch, Queries, compute_dense_truth
from search.tables import BM25, MIN_RECALL, WHOLE

from stair_es.feature_names import escape_feature
from stair_es.types import Floats, SparseVector

TOKENS, VOCABULARY = 552, 50_368
WORDS, TEXT_VOCABULARY = 500, 100_000
DIMENSIONS, LATENT = 768, 32
TOPICS, COMMON_SHARE = 200, 0.5
ACTIVATION = 0.84
"""Mean of what a weight is the logarithm of: the largest of 552 is 6.3 times as much."""
QUERY_TOKENS = (5, 15, TOKENS)
SEED, FIRST_UNUSED, WARM_UP_DOCS = 7, 900_000_000, 2000
SIDES = {"tokens": "token weights", "bm25": "BM25 over OCR text", "dense": "dense kNN (HNSW)"}
"""Kind of index -> its name in the tables."""
ARMS = {"tokens": WHOLE, "bm25": BM25, "dense": "kNN"}


@dataclass(frozen=True, kw_only=True)
class Pages:
    """Generated pages."""

    word_ids_NW: Words
    """Tokens of each page, all different and in random order."""
    weights_NW: Floats
    text_NW: NDArray[np.int32]
    """Words of each text, in order."""
    dense_ND: Floats

    def __len__(self) -> int:
        return len(self.word_ids_NW)


@dataclass(frozen=True, kw_only=True)
class Report:
    """One corpus on one node."""

    docs: int
    loaded: dict[str, Loaded]
    rows: list[Row]
    postings: dict[int, float]
    """Number of tokens of a query -> its postings per page."""


class PageCorpus:
    """Generates pages. Each batch has its own seed, so that whole batches are the beginning of a larger corpus."""

    def __init__(self) -> None:
        """Draw what all pages share."""
        rng = np.random.default_rng(SEED)
        self.vocabulary, self.words = make_words(VOCABULARY, rng), make_words(TEXT_VOCABULARY, rng)
        self._token_orders_TV = np.stack([rng.permutation(VOCABULARY).astype(np.int32) for _ in range(TOPICS)])
        self._word_orders_TV = np.stack([rng.permutation(TEXT_VOCABULARY).astype(np.int32) for _ in range(TOPICS)])
        self._token_shares, self._word_shares = sum_zipf(VOCABULARY), sum_zipf(TEXT_VOCABULARY)
        self._centers_TL = rng.standard_normal((TOPICS, LATENT), np.float32)
        self._projection_LD = rng.standard_normal((LATENT, DIMENSIONS), np.float32)

    def draw_batches(self, count: int) -> Iterator[Pages]:
        """Yield pages in batches of `BATCH`."""
        for first in range(0, count, BATCH):
            yield self.draw(min(BATCH, count - first), np.random.default_rng((SEED, first)))

    def draw(self, count: int, rng: np.random.Generator) -> Pages:
        """Generate pages."""
        topics = rng.integers(TOPICS, size=count)
        latent_NL = self._centers_TL[topics] + rng.standard_normal((count, LATENT), np.float32)
        dense_ND = latent_NL @ self._projection_LD
        return Pages(
            word_ids_NW=np.stack([self._draw_tokens(topic, rng) for topic in topics]).astype(np.uint16),
            weights_NW=np.log1p(rng.exponential(ACTIVATION, (count, TOKENS))).clip(10**-DECIMALS).astype(np.float32),
            text_NW=np.stack([draw_ranks(self._word_shares, self._word_orders_TV[topic], WORDS, rng) for topic in topics]),
            dense_ND=dense_ND / np.linalg.norm(dense_ND, axis=1, keepdims=True),
        )

    def _draw_tokens(self, topic: int, rng: np.random.Generator) -> NDArray[np.int32]:
        """Return different tokens, those of high ranks first to come, in random order."""
        drawn = np.empty(0, np.int32)
        while len(drawn) < TOKENS:
            more = draw_ranks(self._token_shares, self._token_orders_TV[topic], 2 * TOKENS, rng)
            different, first = np.unique(np.concatenate([drawn, more]), return_index=True)
            drawn = different[np.argsort(first)]
        return rng.permutation(drawn[:TOKENS])

    def make_vectors(self, pages: Pages, size: int = TOKENS) -> Iterator[SparseVector]:
        """Yield the vectors of pages, of `size` of their tokens."""
        for ids_W, weights_W in zip(pages.word_ids_NW[:, :size], pages.weights_NW[:, :size], strict=True):
            tokens = [self.vocabulary[i] for i in ids_W]
            yield SparseVector.from_pairs(zip(tokens, (round(weight, DECIMALS) for weight in weights_W.tolist()), strict=True))

    def make_texts(self, pages: Pages) -> list[str]:
        """Return the OCR texts."""
        return [" ".join([self.words[i] for i in text_W]) for text_W in pages.text_NW]


def make_words(count: int, rng: np.random.Generator) -> list[str]:
    """Return different words of 2 to about 12 letters."""
    words: dict[str, None] = {}
    while len(words) < count:
        letters = rng.integers(97, 123, (count, 12), np.uint8)
        lengths = 2 + rng.poisson(4, count).clip(0, 10)
        words |= dict.fromkeys(row.tobytes()[:length].decode() for row, length in zip(letters, lengths, strict=True))
    return list(words)[:count]


def sum_zipf(count: int) -> NDArray[np.float64]:
    """Return the cumulative shares of ranks by Zipf's law."""
    shares = 1 / np.arange(1, count + 1)
    summed_V: NDArray[np.float64] = np.cumsum(shares) / shares.sum()
    return summed_V


def draw_ranks(
    summed_V: NDArray[np.float64], order_V: NDArray[np.int32], count: int, rng: np.random.Generator
) -> NDArray[np.int32]:
    """Draw by Zipf's law, one part in the order of all pages, the rest in that of a topic."""
    ranks = np.searchsorted(summed_V, rng.random(count)).clip(0, len(order_V) - 1).astype(np.int32)
    return np.where(rng.random(count) < COMMON_SHARE, ranks, order_V[ranks])


def build_bodies(corpus: PageCorpus, batches: Sequence[Pages], kind: str) -> Iterator[bytes]:
    """Yield the `_bulk` requests of one kind of index."""
    for number, pages in enumerate(batches):
        lines = []
        for place, fields in enumerate(_build_fields(corpus, pages, kind), number * BATCH):
            lines.append(b'{"index":{"_id":"%d"}}' % place)
            lines.append(orjson.dumps({**fields, "uri": make_uri(place)}, option=orjson.OPT_SERIALIZE_NUMPY))
        yield b"\n".join(lines) + b"\n"


def _build_fields(corpus: PageCorpus, pages: Pages, kind: str) -> Iterator[Body]:
    if kind == "tokens":
        for vector in corpus.make_vectors(pages):
            yield {"tokens": {escape_feature(token): weight for token, weight in vector}}
    elif kind == "bm25":
        for text in corpus.make_texts(pages):
            yield {"words": text}
    else:
        for dense_D in pages.dense_ND:
            yield {"dense": dense_D}


def make_queries(corpus: PageCorpus, count: int) -> Iterator[tuple[Queries, dict[SparseVector, str]]]:
    """Yield the queries of each size, and the text of each vector, of as many different words as the vector has tokens."""
    pages, rng = corpus.draw(count, np.random.default_rng((SEED, FIRST_UNUSED))), np.random.default_rng(SEED)
    shuffled = [rng.permutation(np.unique(text_W)) for text_W in pages.text_NW]
    for size in QUERY_TOKENS:
        vectors = tuple(corpus.make_vectors(pages, size))
        texts = [" ".join([corpus.words[i] for i in ids[:size]]) for ids in shuffled]
        yield Queries(size=size, vectors=vectors, dense_QD=pages.dense_ND), dict(zip(vectors, texts, strict=True))


def build_arms(texts: Mapping[SparseVector, str]) -> list[Arm]:
    """Return the search methods."""

    def match_text(vector: SparseVector, _dense: list[float]) -> Body:
        return build_ids_request({"match": {"words": texts[vector]}})

    return [
        Arm(name=BM25, kind="bm25", body=match_text, truth=None),
        Arm(name=WHOLE, kind="tokens", body=lambda vector, _dense: build_tokens_request(vector)),
        *(Arm(name=f"kNN ef {ef}", kind="dense", body=search_knn(ef), truth="dense") for ef in EF_SEARCH),
    ]


def measure_corpus(http: Http, corpus: PageCorpus, docs: int, count: int, rounds: int) -> Report:
    """Load one corpus and measure."""
    prefix, kinds, loaded = f"bench-pages-{uuid4().hex[:8]}", build_kinds(DIMENSIONS), dict[str, Loaded]()
    batches = list(corpus.draw_batches(docs))
    try:
        for name in SIDES:
            loaded[name] = write_index(http, f"{prefix}-{name}", kinds[name], build_bodies(corpus, batches, name), docs)
            print(
                f"{docs} pages, {name}: {loaded[name].docs_per_s:.0f} docs/s, merged in {loaded[name].merge_s:.0f} s", flush=True
            )
        dense_ND = np.concatenate([pages.dense_ND for pages in batches])
        ids_NW, weights_NW = (
            np.concatenate([getattr(pages, name) for pages in batches]) for name in ("word_ids_NW", "weights_NW")
        )
        exact, rows, postings = ExactSearch(corpus.vocabulary, ids_NW, weights_NW), list[Row](), {}
        for queries, texts in make_queries(corpus, count):
            truths = {
                "tokens": [exact.compute_truth(vector) for vector in queries.vectors],
                "dense": [compute_dense_truth(dense_ND, query_D) for query_D in queries.dense_QD],
            }
            rows += measure_arms(http, prefix, build_arms(texts), queries, truths, rounds=rounds)
            postings[queries.size] = float(np.mean([exact.count_postings(vector) for vector in queries.vectors])) / docs
    finally:
        for name in SIDES:
            delete_index(http, f"{prefix}-{name}")
    return Report(docs=docs, loaded=loaded, rows=rows, postings=postings)


def build_result(reports: Sequence[Report], about: str) -> Result:
    """Return the tables and ratios of all corpora."""
    counts = ", ".join(f"{size} tokens {count:.2f}" for size, count in reports[0].postings.items())
    return Result(
        about=about,
        tables=tuple(_tabulate(report) for report in reports),
        ratios=tuple(ratio for report in reports for ratio in _compare(report)),
        remarks=(
            "Search times are for whole requests over one connection: the median over the queries, in the best round.",
            f"The figures of kNN are those of the fastest `ef_search` that finds {100 * MIN_RECALL:.0f} % of the exact ten best.",
            f"Postings of a query per page, {reports[0].docs:,} pages: {counts}.",
            "How well pages are found isn't measured: pages and queries are generated.",
        ),
        figures={"reports": [asdict(report) for report in reports]},
    )


def _tabulate(report: Report) -> ReportTable:
    head = ("", "indexing, pages/s", "including the merge", "bulk bytes per page", "index bytes per page")
    times = tuple(f"{_describe_size(size)}, ms · recall@10" for size in QUERY_TOKENS)
    rows = []
    for name, label in SIDES.items():
        loaded = report.loaded[name]
        cells = (f"{loaded.sent_bytes_a_document:,.0f}", f"{loaded.bytes_a_document:,.0f}")
        searches = (_format_search(_find_row(report, name, size)) for size in QUERY_TOKENS)
        rows.append((label, f"{loaded.docs_per_s:,.0f}", f"{_compute_merged_rate(report, name):,.0f}", *cells, *searches))
    return ReportTable(heading=f"{report.docs:,} pages in one node", head=(*head, *times), rows=tuple(rows))


def _describe_size(size: int) -> str:
    return "a page" if size == TOKENS else f"{size} tokens"


def _format_search(row: Row) -> str:
    recall = "n/a" if row.recall_9_bits is None else f"{row.recall_9_bits:.3f}"
    return f"{row.best_p50_ms:.2f} · {recall}"


def _find_row(report: Report, kind: str, size: int) -> Row:
    """Return the row of a side; for kNN, that of the fastest arm with enough recall, if none has, that with the most."""
    rows = [row for row in report.rows if row.size == size and row.arm.startswith(ARMS[kind])]
    enough = [row for row in rows if row.recall_9_bits is None or row.recall_9_bits >= MIN_RECALL]
    return min(enough, key=lambda row: row.best_p50_ms) if enough else max(rows, key=lambda row: row.recall_9_bits or 0)


def _compute_merged_rate(report: Report, name: str) -> float:
    loaded = report.loaded[name]
    return report.docs / (report.docs / loaded.docs_per_s + loaded.merge_s)


def _compare(report: Report) -> Iterator[Ratio]:
    """Yield our values divided by those of the others."""
    ours, pages = report.loaded["tokens"], f"{report.docs:,} pages"
    for name, against in list(SIDES.items())[1:]:
        for size in QUERY_TOKENS:
            times = [_find_row(report, kind, size).best_p50_ms for kind in ("tokens", name)]
            yield Ratio(
                what=f"search time, {_describe_size(size)}, {pages}", against=against, value=times[0] / times[1], at_most=True
            )
        speed = _compute_merged_rate(report, "tokens") / _compute_merged_rate(report, name)
        size_ratio = ours.bytes_a_document / report.loaded[name].bytes_a_document
        yield Ratio(what=f"indexing including the merge, {pages}", against=against, value=speed)
        yield Ratio(what=f"index bytes, {pages}", against=against, value=size_ratio, at_most=True)


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--docs", type=int, action="append", help="size of a corpus; repeat for several (10000)")
    parser.add_argument("--queries", type=int, default=60, help="for each number of tokens")
    parser.add_argument("--rounds", type=int, default=3, help="how often each query is sent")
    parser.add_argument("--url", help="your cluster with k-NN (default: start a node)")
    parser.add_argument("--heap", default="2g", help="heap of the started node")
    args = parser.parse_args()
    args.plugins, corpus, reports = True, PageCorpus(), list[Report]()
    about = f"{TOKENS} tokens a page, {args.queries} queries for each number of tokens, {args.rounds} rounds"
    with open_node(args) as http:
        measure_corpus(http, corpus, WARM_UP_DOCS, args.queries, rounds=0)  # until the JVM has compiled the hot code
        for docs in args.docs or [10_000]:
            reports.append(measure_corpus(http, corpus, docs, args.queries, args.rounds))
            save_result(build_result(reports, about), args.json)  # after each corpus, because the larger ones take long
    publish_result(build_result(reports, about), args.json)


if __name__ == "__main__":
    main()

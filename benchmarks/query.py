"""How long a search takes, and how many of the ten best it finds: token weights beside BM25, dense kNN and SEISMIC.

    python benchmarks/query.py --docs 10000 --docs 100000      # OpenSearch 3.6.0 with its plugins, started for it
    python benchmarks/query.py --stamps DIR                    # R@1/5/10 too, on photographs: see model_quality.py
    python benchmarks/query.py --docs 1000000 --no-knn         # without dense vectors, which take half an hour to index
    python benchmarks/query.py --no-knn --no-seismic           # the embedded node's version, without plugins
    python benchmarks/query.py --url http://127.0.0.1:9200 --no-knn --no-seismic  # a cluster of yours

The corpus is drawn (`query_corpus.py` says how, and how far it resembles real photos), the questions are real texts through the
model's text tower, and images (`query_questions.py`). One shard, merged to one segment unless `--unmerged`; one client over one
connection; every way is warm, and they take turns, in random order for each question, so that whatever else the machine does hits
all alike. Times are of the whole request, in ms. Percentiles are over all requests; "best" is the median over the questions of
the best of `--rounds` times, for machines that are busy with other things, too: ratios and goals are of that.

Recall is against the exact ranking by all words of the question (for kNN: by the exact inner products). An engine keeps 9 bits of
a weight: in the second figure a document counts that is at most 0.39 % below the tenth best, the same for all ways. The goals
are judged by that one. SEISMIC searches every segment approximately here, as it does from `approximate_threshold` documents on.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import numpy as np
from common import options, publish, save
from model_quality import Gallery, read_photos
from query_arms import Arm, arms
from query_corpus import BATCH, Corpus, Documents, load
from query_load import Http, Kind, Loaded, delete, kinds
from query_load import load as load_index
from query_measure import Report, Row, measure
from query_questions import FEATURES, Exact, Questions, Truth, all_questions, dense_truth
from query_table import result

from stair_es.config.defaults import DataDir
from stair_es.embedded_node import NodeSpec, start_node, stop_node
from stair_es.types import Floats

PHOTO_ARMS = {"tokens": "rank_features", "bm25": "BM25", "dense": "kNN ef 100"}


def truths(corpus: Corpus, documents: Documents, questions: Questions, exact: Exact, *, dense: bool) -> dict[str, list[Truth]]:
    """The exact answers."""
    sparse = [exact.truth(vector) for vector in questions.vectors]
    if not dense:
        return {"tokens": sparse}
    vectors_ND = all_dense(corpus, documents)
    return {"tokens": sparse, "dense": [dense_truth(vectors_ND, question_D) for question_D in questions.dense_QD]}


def all_dense(corpus: Corpus, documents: Documents) -> Floats:
    """The dense vectors of all documents."""
    starts = range(0, len(documents), BATCH)
    return np.concatenate([corpus.dense(documents.part(first, first + BATCH), first) for first in starts])


def run(http: Http, docs: int, gallery: Gallery | None, given: argparse.Namespace) -> Report:
    """Load one corpus and measure."""
    prefix = f"bench-{uuid4().hex[:8]}"
    corpus, documents = load(docs, given.cache)
    possible = kinds(corpus.vocabulary)
    wanted = {n: k for n, k in possible.items() if (given.knn or not k.dense) and (given.seismic or not k.seismic)}
    ways = arms(wanted, corpus.vocabulary)
    try:
        loaded = {name: _load(http, prefix, kind, corpus, documents, given) for name, kind in wanted.items()}
        exact = Exact(corpus, documents)
        rows: list[Row] = []
        asked = all_questions(corpus, FEATURES, given.questions)
        for questions in asked:  # until the JVM has compiled what there is to compile
            measure(http, prefix, [replace(way, truth=None) for way in ways], questions, {}, rounds=0)
        for questions in asked:
            answers = truths(corpus, documents, questions, exact, dense=given.knn)
            rows += measure(http, prefix, ways, questions, answers, rounds=given.rounds)
        segments = {name: _segments(http, f"{prefix}-{name}") for name in wanted}
    finally:
        for name in wanted:
            delete(http, f"{prefix}-{name}")
    photos = _photos(http, prefix, wanted, ways, gallery) if gallery else {}
    return Report(docs=docs, engine=_engine(http), segments=segments, loaded=loaded, rows=rows, photos=photos)


def _photos(http: Http, prefix: str, wanted: dict[str, Kind], ways: list[Arm], gallery: Gallery) -> dict[str, list[float]]:
    from query_photos import recalls

    named = {arm.name: arm for arm in ways}
    return recalls(http, prefix, wanted, {kind: named[name] for kind, name in PHOTO_ARMS.items() if kind in wanted}, gallery)


def _load(http: Http, prefix: str, kind: Kind, corpus: Corpus, documents: Documents, given: argparse.Namespace) -> Loaded:
    loaded = load_index(http, f"{prefix}-{kind.name}", kind, corpus, documents, merge=not given.unmerged)
    print(
        f"{len(documents)} documents, {kind.name}: {loaded.docs_per_s:.0f} docs/s, merged in {loaded.merge_s:.0f} s", flush=True
    )
    return loaded


def _segments(http: Http, index: str) -> int:
    return len(http.ask("GET", f"/_cat/segments/{index}?format=json&h=segment"))


def _engine(http: Http) -> str:
    version = http.ask("GET", "/")["version"]
    plugins = ", ".join(f"{p['component']} {p['version']}" for p in http.ask("GET", "/_cat/plugins?format=json"))
    return f"{version.get('distribution', 'elasticsearch')} {version['number']}{' with ' if plugins else ''}{plugins}"


@contextmanager
def node(given: argparse.Namespace) -> Iterator[Http]:
    """The user's cluster, or a node of its own."""
    with tempfile.TemporaryDirectory(prefix="stair-es-query-") as folder:
        if given.url:
            http = Http(given.url)
            yield http
            http.close()
        elif given.plugins:
            sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
            from support.nodes.opensearch_nodes import plugin_node

            with plugin_node(Path(folder), heap=given.heap, full_jit=True) as search_node:
                http = Http(search_node.url)
                yield http
                http.close()
        else:
            spec = NodeSpec(
                dist=DataDir.from_env().dist,
                base=Path(folder) / "node",
                port=0,
                heap=given.heap,
                jit="full",
                die_with_parent=True,
            )
            try:
                http = Http(start_node(spec))
                yield http
                http.close()
            finally:
                stop_node(spec)


def main() -> None:
    """Parse, measure, print."""
    parser = options(__doc__)
    parser.add_argument("--docs", type=int, action="append", help="size of a corpus; several times for several (10000)")
    parser.add_argument("--questions", type=int, default=200, help="for each number of words")
    parser.add_argument("--rounds", type=int, default=3, help="how often each question is asked")
    parser.add_argument("--url", help="a cluster of yours; else a node is started")
    parser.add_argument("--no-knn", dest="knn", action="store_false", help="without dense vectors")
    parser.add_argument("--no-seismic", dest="seismic", action="store_false", help="without OpenSearch's approximate search")
    parser.add_argument("--unmerged", action="store_true", help="leave the segments as they come")
    parser.add_argument("--heap", default="2g", help="of the node that is started")
    parser.add_argument(
        "--cache", type=Path, default=Path(tempfile.gettempdir()) / "stair-es-corpora", help="where drawn corpora stay"
    )
    parser.add_argument("--stamps", type=Path, help="the unpacked Debian package of model_quality.py: R@k on photographs")
    given = parser.parse_args()
    given.plugins = given.knn or given.seismic
    reports: list[Report] = []
    about = f"{given.questions} questions for each number of words, {given.rounds} rounds"
    gallery = read_photos(given.stamps) if given.stamps else None
    with node(given) as http:
        for docs in given.docs or [10_000]:
            reports.append(run(http, docs, gallery, given))
            save(result(reports, about), given.json)  # after each: the larger ones take long
    publish(result(reports, about), given.json)


if __name__ == "__main__":
    main()

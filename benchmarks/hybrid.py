"""Measure how the words of a query and the texts of images are best combined, on a shop of photographs of clothes.

    python benchmarks/hybrid.py                  # fetches the photographs from GitHub, 75 MB
    python benchmarks/hybrid.py --images DIR     # uses a checkout of clothing-dataset-small (CC0)

The titles are made up: a brand, a name and, for half of the products, the kind ("Nordlys Frida dress", "Okavi Tovar"). Brands and
names are only in titles, and half of the kinds are only in pictures. Colors are in no title: they are those that ingest measures.

The pictures are a part of `train`, chosen by a hash of their names. `DEFAULT_CAPTION_WEIGHT` and the weight of unknown words were
chosen before, on `test` and `validation`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path
from statistics import fmean
from typing import TypeAlias

from harness.cluster import open_cluster
from harness.program import add_url_option, build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from small_sets.fetch import CLOTHES, unpack_package

from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import DEFAULT_CAPTION_WEIGHT, DEFAULT_MODEL
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch, QueryInputs, Searcher, SearchOptions, SearchQuery
from stair_es.search.query import EMPTY_VECTOR
from stair_es.search.query_encoder import build_search_query
from stair_es.sources.base import SourceOptions
from stair_es.sources.registry import open_source

KINDS = {
    "dress": "dress",
    "hat": "hat",
    "longsleeve": "long-sleeve top",
    "outwear": "coat",
    "pants": "trousers",
    "shirt": "shirt",
    "shoes": "shoes",
    "shorts": "shorts",
    "skirt": "skirt",
    "t-shirt": "t-shirt",
}
"""Folder -> the words for its products."""
BRANDS = ("Nordlys", "Halvik", "Castellan", "Mirador", "Okavi")
NAMES = ("Frida", "Melka", "Olena", "Tovar", "Bexley", "Juno", "Ravel", "Sennen")
COLUMNS = ("kind", "brand", "brand and kind", "name and kind", "color and kind")
BM25_WEIGHTS = (0.1, 0.5, 1.0, 2.0)
RRF_WEIGHTS = (1.0, 2.0, 4.0)
SHARES = (*((weight, unknown) for unknown in (1.0, 2.0) for weight in (0.4, 0.6, 0.8, 1.0)), (1.5, 2.0), (0.8, 4.0))
"""Weights of captions, and of a word that the model doesn't know."""
CHOSEN = (DEFAULT_CAPTION_WEIGHT, 2.0)
FIRST_HITS = 10
PICTURES, TITLES, BM25, RRF = "pictures alone", "titles alone (BM25)", "sum with BM25", "ranks (RRF)"


@dataclass(frozen=True, kw_only=True)
class Product:
    """A photograph with a made-up title."""

    file: Path
    kind: str
    brand: str
    name: str
    title: str


Answers: TypeAlias = Mapping[str, Mapping[str, Set[str]]]
"""Column -> text of a query -> URIs of the right products."""
Measured: TypeAlias = Mapping[str, tuple[float, ...]]
"""Column -> shares of right products: among the first ten hits, and among as many hits as there are right products."""


@dataclass(frozen=True, kw_only=True)
class Way:
    """A way to combine tokens and titles."""

    name: str
    adapt: Callable[[SearchQuery], SearchQuery | None]
    """Adapts the query that `stair-es search` sends; None if nothing is left to search for."""
    fuses_ranks: bool = False
    reads_colors: bool = True
    """Whether colors are conditions, not words."""


def read_products(folder: Path, count: int) -> list[Product]:
    """Read the first products of `train` in the order of a hash.

    Raises:
        SystemExit: If the folder has too few pictures.
    """
    files = sorted(folder.glob("train/*/*.jpg"), key=lambda file: _hash_name(file))[:count]
    if len(files) < count:
        raise SystemExit(f"{folder} has only {len(files)} pictures in train/: give the folder of a checkout of {CLOTHES.name}")
    return list(map(_make_product, files))


def _make_product(file: Path) -> Product:
    number, kind = _hash_name(file), KINDS[file.parent.name]
    number, brand = divmod(number, len(BRANDS))
    number, name = divmod(number, len(NAMES))
    title = f"{BRANDS[brand]} {NAMES[name]}" + (f" {kind}" if number % 2 else "")
    return Product(file=file, kind=kind, brand=BRANDS[brand], name=NAMES[name], title=title)


def _hash_name(file: Path) -> int:
    return int(sha256(file.name.encode()).hexdigest(), 16)


def ingest_products(products: Sequence[Product], connection: Connection, alias: str) -> None:
    """Write the products into an index."""
    with tempfile.TemporaryDirectory() as temporary:
        table = Path(temporary, "products.jsonl")
        rows = ({"file": str(product.file.resolve()), "caption": product.title} for product in products)
        table.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        source = open_source(str(table), SourceOptions(image_column="file"))
        options = IngestOptions(alias=alias, model=ModelSpec(name=DEFAULT_MODEL), runner="local")
        report = run_ingest([source], connection, options, progress=lambda _: None)
    if report.written != len(products):
        raise SystemExit(f"not all products were written: {report}")


def list_answers(products: Sequence[Product], colors: Mapping[str, Sequence[str]]) -> Answers:
    """List the queries and the URIs of the right products. `colors` are those of each URI."""
    answers: dict[str, defaultdict[str, set[str]]] = {column: defaultdict(set) for column in COLUMNS}
    for product in products:
        uri, kind = product.file.resolve().as_uri(), product.kind
        answers["kind"][kind].add(uri)
        answers["brand"][product.brand].add(uri)
        answers["brand and kind"][f"{product.brand} {kind}"].add(uri)
        answers["name and kind"][f"{product.name} {kind}"].add(uri)
        for color in colors[uri]:
            answers["color and kind"][f"{color} {kind}"].add(uri)
    return answers


def drop_captions(query: SearchQuery) -> SearchQuery | None:
    """Return the query for pictures alone; None if the model knows none of its words."""
    return replace(query, caption="", caption_words=()) if len(query.vector) else None


def drop_tokens(query: SearchQuery) -> SearchQuery:
    """Return the query for captions alone, by BM25."""
    return replace(query, vector=EMPTY_VECTOR, caption_words=())


def add_bm25(query: SearchQuery, weight: float) -> SearchQuery:
    """Return the query with the BM25 score instead of the shares of words."""
    return replace(query, caption_words=(), caption_weight=weight)


def share_weight(query: SearchQuery, *, weight: float, unknown_word_weight: float) -> SearchQuery:
    """Return the query with another weight of captions, and another share for the words that the model doesn't know."""
    unknown = {word.word for word in query.unknown_words if not word.searched_for}
    weights = [unknown_word_weight if {*word.text.split()} & unknown else 1.0 for word in query.caption_words]
    words = zip(query.caption_words, weights, strict=True)
    shares = tuple(word._replace(share=part / sum(weights)) for word, part in words)
    return replace(query, caption_words=shares, caption_weight=weight)


def list_ways() -> Iterator[Way]:
    """List the rows of the table."""
    yield Way(name=PICTURES, adapt=drop_captions)
    yield Way(name=TITLES, adapt=drop_tokens)
    for weight in BM25_WEIGHTS:
        yield Way(name=f"{BM25}, weight {weight:g}", adapt=partial(add_bm25, weight=weight))
    for weight in RRF_WEIGHTS:
        yield Way(name=f"{RRF}, weight {weight:g}", adapt=partial(replace, caption_weight=weight), fuses_ranks=True)
    for weight, unknown in SHARES:
        adapt = partial(share_weight, weight=weight, unknown_word_weight=unknown)
        yield Way(name=name_shares(weight, unknown), adapt=adapt)
    yield Way(name="the default, colors read as words", adapt=lambda query: query, reads_colors=False)


def name_shares(weight: float, unknown_word_weight: float) -> str:
    """Return the name of the row."""
    return f"shares of words, weight {weight:g}, unknown words x {unknown_word_weight:g}"


def build_queries(search: ImageSearch, answers: Answers, *, reads_colors: bool) -> dict[str, SearchQuery]:
    """Build the query of each text as `stair-es search` does."""
    fields = search.searcher.list_search_fields()
    if not reads_colors:
        fields = replace(fields, colors="")
    texts = [text for right_of in answers.values() for text in right_of]
    built = {text: build_search_query(search.encoder, QueryInputs(query_string=text), fields=fields) for text in texts}
    return {text: search.searcher.refine_query(query, SearchOptions()) for text, query in built.items()}


def measure_way(way: Way, searcher: Searcher, queries: Mapping[str, SearchQuery], answers: Answers) -> Measured:
    """Measure the queries of each column, and average over them."""
    measured = {}
    for column, right_of in answers.items():
        found = [measure_query(way, searcher, queries[text], right) for text, right in right_of.items()]
        measured[column] = tuple(map(fmean, zip(*found, strict=True)))
    return measured


def measure_query(way: Way, searcher: Searcher, query: SearchQuery, right: Set[str]) -> tuple[float, float]:
    """Return the shares of right products among the first hits, which are at most as many as there are right ones."""
    adapted = way.adapt(query)
    if adapted is None:
        return 0.0, 0.0
    fuses_ranks = way.fuses_ranks and len(adapted.vector)  # otherwise there is only one ranking
    options = SearchOptions(fusion="rrf" if fuses_ranks else "sum")
    hits = searcher.search(adapted, len(right), options=options).hits
    is_right = [hit.uri in right for hit in hits]
    first = min(len(right), FIRST_HITS)
    return sum(is_right[:first]) / first, sum(is_right) / len(right)


def tabulate(heading: str, measured: Mapping[str, Measured], place: int) -> ReportTable:
    """Return the table of one of the two shares."""
    rows = []
    for name, of_columns in measured.items():
        shares = [values[place] for values in of_columns.values()]
        rows.append((name, *(f"{100 * share:.1f}" for share in (*shares, fmean(shares)))))
    return ReportTable(heading=heading, head=("", *COLUMNS, "mean"), rows=tuple(rows))


def compare_means(measured: Mapping[str, Measured]) -> Iterator[Ratio]:
    """Compare the default with the best of each other way, by the mean over all columns among the first hits."""
    means = {name: fmean(values[0] for values in of_columns.values()) for name, of_columns in measured.items()}
    ours = means[name_shares(*CHOSEN)]
    for other in (PICTURES, TITLES, BM25, RRF):
        name = max((name for name in means if name.startswith(other)), key=lambda name: means[name])
        yield Ratio(what=f"right among the first {FIRST_HITS} hits, words and text", against=name, value=ours / means[name])


def measure(args: argparse.Namespace, photographs: Path) -> Result:
    """Ingest the products, and measure each way."""
    products = read_products(photographs, args.products)
    with open_cluster(args.url) as (cluster, name), ImageSearch(name, connection=cluster.connection) as search:
        ingest_products(products, cluster.connection, name)
        body = {"size": len(products), "_source": ["uri", "colors"]}
        documents = [hit["_source"] for hit in cluster.client.search(index=name, body=body)["hits"]["hits"]]
        answers = list_answers(products, {each["uri"]: each.get("colors") or [] for each in documents})
        queries = {reads: build_queries(search, answers, reads_colors=reads) for reads in (True, False)}
        measured = {way.name: measure_way(way, search.searcher, queries[way.reads_colors], answers) for way in list_ways()}
    counts = ", ".join(f"{len(right_of)} of {column}" for column, right_of in answers.items())
    headings = (f"Right among the first {FIRST_HITS} hits", "Right among as many hits as there are right products")
    return Result(
        about=f"{len(products)} products; queries: {counts}; percent, averaged over the queries",
        tables=tuple(tabulate(heading, measured, place) for place, heading in enumerate(headings)),
        ratios=tuple(compare_means(measured)),
        remarks=(
            "if fewer than ten products are right, only as many hits are considered",
            f"the default is {name_shares(*CHOSEN)}. It was chosen on other pictures of the data set",
            "titles are never wrong here, which favors large weights",
            "the right colors are those that ingest measured, on which the condition is, so the last column is about kinds",
        ),
        figures={"measured": measured},
    )


def main() -> None:
    """Print the table."""
    parser = build_parser(__doc__)
    add_url_option(parser)
    parser.add_argument("--images", type=Path, metavar="DIR", help=f"folder of a checkout of {CLOTHES.name}")
    parser.add_argument("--products", type=int, default=800, help="number of photographs (default: %(default)s)")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        photographs = args.images or unpack_package(CLOTHES, Path(temporary), Path(temporary))
        publish_result(measure(args, photographs), args.json)


if __name__ == "__main__":
    main()

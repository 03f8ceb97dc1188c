"""Cost of sparse vectors: tokens per item, multiplications per comparison, balance of the posting lists; and its report.

Shape suffixes: N items, V tokens.
"""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from stair_es.errors import UsageError
from stair_es.eval.datasets.captions import CaptionDataset
from stair_es.eval.datasets.image_folder import list_image_files
from stair_es.eval.encode import encode_images, encode_texts
from stair_es.eval.models import EvaluatedModel, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.sources.base import Locator
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import to_file_uri
from stair_es.types import PartProgressCallback, SparseVector


@dataclass(frozen=True, kw_only=True)
class VectorSizes:
    """Number of tokens per item."""

    items: int
    mean: float
    p50: float
    p95: float
    max: int
    without_tokens: int
    """Items without tokens."""


@dataclass(frozen=True, kw_only=True)
class PostingStats:
    """Posting lists of an inverted index."""

    tokens: int
    """Tokens with a list."""
    vocabulary: int | None
    """Tokens that vectors can have; None if the model doesn't list them."""
    longest: int
    longest_token: str
    top_share: float
    """Fraction of all postings in the longest 1 % of the lists, at least one list; 1 % of the vocabulary, if it is known."""
    gini: float
    """0 for lists of equal length, near 1 if few hold everything; tokens of the vocabulary without a list count."""

    @property
    def unused(self) -> int | None:
        """Tokens that no item has."""
        return None if self.vocabulary is None else self.vocabulary - self.tokens


def measure_sizes(vectors: Sequence[SparseVector]) -> VectorSizes:
    """Compute the statistics of at least one vector."""
    counts = [len(vector) for vector in vectors]
    p50, p95 = np.percentile(counts, [50, 95])
    return VectorSizes(
        items=len(counts), mean=fmean(counts), p50=float(p50), p95=float(p95), max=max(counts), without_tokens=counts.count(0)
    )


def compute_flops(items: Sequence[SparseVector], queries: Sequence[SparseVector]) -> float:
    """Return the mean number of multiplications of a query with an item: `sum_v p_v q_v`, from the probabilities of each token.

    Paria et al., "Minimizing FLOPs to Learn Efficient Sparse Representations", 2020.
    """
    item_shares, query_shares = _compute_shares(items), _compute_shares(queries)
    return math.fsum(share * query_shares.get(token, 0.0) for token, share in item_shares.items())


def compute_weighted_flops(items: Sequence[SparseVector], queries: Sequence[SparseVector]) -> float:
    """Return `sum_v mean|w_v| mean|w_v|`, which training minimizes instead of the FLOPs, which have no gradient (same source)."""
    item_means, query_means = _compute_means(items), _compute_means(queries)
    return math.fsum(mean * query_means.get(token, 0.0) for token, mean in item_means.items())


def measure_postings(vectors: Sequence[SparseVector], vocabulary: Sequence[str] | None) -> PostingStats:
    """Compute the statistics of the posting lists.

    Args:
        vectors: Vectors of the items.
        vocabulary: Tokens of the vocabulary, if it is known.
    """
    document_counts = Counter(token for vector in vectors for token in vector.tokens)
    unused = len(set(vocabulary) - set(document_counts)) if vocabulary is not None else 0
    lengths = sorted([*document_counts.values(), *[0] * unused], reverse=True)
    longest_token, longest = min(document_counts.items(), key=lambda pair: (-pair[1], pair[0]), default=("", 0))
    top = lengths[: math.ceil(len(lengths) / 100)]
    return PostingStats(
        tokens=len(document_counts),
        vocabulary=None if vocabulary is None else len(document_counts) + unused,
        longest=longest,
        longest_token=longest_token,
        top_share=sum(top) / max(sum(lengths), 1),
        gini=compute_gini(lengths),
    )


def compute_gini(lengths: Sequence[int]) -> float:
    """Compute the Gini coefficient: mean absolute difference over twice the mean; 0 if there are no postings."""
    ascending = sorted(lengths)
    total = sum(ascending)
    if not total:
        return 0.0
    count = len(ascending)
    return sum((2 * rank - count - 1) * length for rank, length in enumerate(ascending, 1)) / (count * total)


def _compute_shares(vectors: Sequence[SparseVector]) -> dict[str, float]:
    document_counts = Counter(token for vector in vectors for token in vector.tokens)
    return {token: items / len(vectors) for token, items in document_counts.items()}


def _compute_means(vectors: Sequence[SparseVector]) -> dict[str, float]:
    weights = defaultdict[str, list[float]](list)
    for vector in vectors:
        for token, weight in vector:
            weights[token].append(weight)
    return {token: math.fsum(each) / len(vectors) for token, each in weights.items()}


_SIZES = ("side", "model", "items", "mean", "p50", "p95", "max", "without tokens")
_COST = ("vectors", "model", "pair", "multiplications", "weighted")
_LISTS = ("side", "model", "tokens", "unused", "longest list", "in the longest 1 %", "Gini")


@dataclass(frozen=True, kw_only=True)
class SparsityDataset:
    """Images and texts to encode."""

    name: str
    images: tuple[str, ...]
    """Names of the images."""
    locators: tuple[Locator, ...]
    texts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def build_sparsity_dataset(captions: CaptionDataset) -> SparsityDataset:
    """Build the dataset of the images and distinct captions of a caption dataset."""
    return SparsityDataset(
        name=captions.name,
        images=tuple(image.name for image in captions.images),
        locators=tuple(image.locator for image in captions.images),
        texts=tuple(dict.fromkeys(text for image in captions.images for text in image.captions)),
        problems=captions.problems,
    )


def read_sparsity_folder(folder: Path, limit: int | None = None) -> SparsityDataset:
    """List the images below a folder.

    Raises:
        UsageError: If there are none.
    """
    files = list_image_files(folder)[:limit]
    if not files:
        raise UsageError(f"no images below {folder}", "Specify a folder with images in it, or a caption set.", code="no-images")
    return SparsityDataset(
        name=folder.name or str(folder),
        images=tuple(map(str, files)),
        locators=tuple(FileLocator(to_file_uri(path)) for path in files),
    )


@dataclass(frozen=True, kw_only=True)
class _ModelCost:
    label: str
    sizes: dict[str, VectorSizes]
    lists: dict[str, PostingStats]
    flops: dict[str, tuple[float, float]]
    """Pair of sides -> multiplications, and the weighted form."""
    dimensions: int | None
    """Dimensions of its dense vectors."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.label,
            "items": {side: asdict(each) for side, each in self.sizes.items()},
            "postings": {side: {**asdict(each), "unused": each.unused} for side, each in self.lists.items()},
            "flops": {pair: {"multiplications": plain, "weighted": weighted} for pair, (plain, weighted) in self.flops.items()},
            "dense_dimensions": self.dimensions,
        }


def evaluate_sparsity(data: SparsityDataset, models: Sequence[EvaluatedModel], *, progress: PartProgressCallback) -> TableReport:
    """Measure tokens per item, multiplications per pair, and balance of the posting lists for each model.

    Raises:
        UsageError: If no image is readable.
        ModelError: If the first model fails.
    """
    start = time.perf_counter()
    problems = list(data.problems)

    def measure_model(model: EvaluatedModel) -> list[_ModelCost]:
        if not model.has_tokens:
            return [_build_cost(model, {}, _count_dimensions(model))]
        readable = encode_images(data.locators, model, progress, dense=False)
        problems.extend(f"{data.images[position]}: {reason}" for position, reason in readable.problems.items())
        sides = {"images": readable.vectors.sparse or ()}
        if data.texts:
            sides["texts"] = encode_texts(data.texts, model, progress, dense=False).sparse or ()
        return [_build_cost(model, sides, None)]

    costs = run_for_each_model(models, measure_model, problems)
    return TableReport(
        title=f"{data.name}: {len(data.images)} images, {len(data.texts)} texts",
        about=(
            "Tokens per item; mean multiplications of a query with an item (sum of p q over the tokens), and the"
            " same with mean weights, as in training; balance of the posting lists."
        ),
        tables=_build_tables(costs),
        values={"dataset": data.name, "rows": [each.to_dict() for each in costs]},
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def _count_dimensions(model: EvaluatedModel) -> int | None:
    """Return the dimensions of dense vectors, from a text: images have as many."""
    return model.dense.encode_texts_dense(["a"]).shape[1] if model.dense is not None else None


def _build_cost(model: EvaluatedModel, sides: dict[str, tuple[SparseVector, ...]], dimensions: int | None) -> _ModelCost:
    encoded = {side: vectors for side, vectors in sides.items() if vectors}
    pairs = [("texts", "images"), ("images", "images")]
    return _ModelCost(
        label=model.label,
        sizes={side: measure_sizes(vectors) for side, vectors in encoded.items()},
        lists={side: measure_postings(vectors, model.tokens) for side, vectors in encoded.items()},
        flops={
            f"{query_side} -> {item_side}": (
                compute_flops(encoded[item_side], encoded[query_side]),
                compute_weighted_flops(encoded[item_side], encoded[query_side]),
            )
            for query_side, item_side in pairs
            if query_side in encoded and item_side in encoded
        },
        dimensions=dimensions,
    )


def _build_tables(costs: Sequence[_ModelCost]) -> tuple[ReportTable, ...]:
    sizes = [(side, model.label, *_format_sizes(each)) for model in costs for side, each in model.sizes.items()]
    flops = [
        ("tokens", model.label, pair, f"{plain:.2f}", f"{weighted:.4g}")
        for model in costs
        for pair, (plain, weighted) in model.flops.items()
    ]
    flops += [("dense", model.label, "any", str(model.dimensions), "") for model in costs if model.dimensions]
    balance = [(side, model.label, *_format_postings(each)) for model in costs for side, each in model.lists.items()]
    tables = (("Tokens per item", _SIZES, sizes), ("Multiplications", _COST, flops), ("Posting lists", _LISTS, balance))
    return tuple(ReportTable(heading=heading, head=head, rows=tuple(rows)) for heading, head, rows in tables if rows)


def _format_sizes(sizes: VectorSizes) -> tuple[str, ...]:
    return (str(sizes.items), f"{sizes.mean:.1f}", f"{sizes.p50:g}", f"{sizes.p95:g}", str(sizes.max), str(sizes.without_tokens))


def _format_postings(postings: PostingStats) -> tuple[str, ...]:
    unused = f"{postings.unused:,} of {postings.vocabulary:,}" if postings.vocabulary is not None else "n/a"
    longest = f"{postings.longest} ({postings.longest_token})"
    return (f"{postings.tokens:,}", unused, longest, f"{format_percent(postings.top_share)} %", f"{postings.gini:.3f}")

"""Compare the generated corpora of the other benchmarks with real photos.

    python benchmarks/query_corpus.py

`search/corpus.py` describes how they are generated. Views of the bundled photos are compared with as many generated documents
whose likeliest classes are the same. Shape suffixes are those of that module.
"""

from __future__ import annotations

import numpy as np
from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result
from numpy.typing import NDArray
from search.corpus import Corpus, Words, crop_photos, score_photos

from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.model.stair_mini.plugin import KIND
from stair_es.types import Floats


def _summarize(weights_NW: Floats, ids_NW: Words, near: tuple[float, ...]) -> list[str]:
    """Return one column of the comparison."""
    used = weights_NW > 0
    counts = np.sort(np.bincount(ids_NW[used]))[::-1] / len(weights_NW)
    dense_NV = np.zeros((len(weights_NW), int(ids_NW.max()) + 1), np.float32)
    dense_NV[np.nonzero(used)[0], ids_NW[used]] = weights_NW[used]
    dots = (dense_NV @ dense_NV.T)[np.triu_indices(len(dense_NV), 1)]
    return [
        " ".join(f"{value:.2f}" for value in near),
        " ".join(f"{np.mean(weights_NW[:, rank]):.3f}" for rank in (0, 1, 3, 7, 15, 31)),
        f"{used.sum(1).mean():.1f}; {' '.join(f'{count:.0f}' for count in np.percentile(used.sum(1), (10, 50, 90)))}",
        f"{np.count_nonzero(counts)}",
        " ".join(f"{100 * counts[rank]:.0f}" for rank in (0, 3, 10, 31, 100, 316)),
        f"{dots.mean():.3f}, {np.percentile(dots, 90):.3f}, {np.percentile(dots, 99):.3f}",
    ]


def _compute_likeness(classes_NR: NDArray[np.int64], embeddings_KD: Floats) -> tuple[float, ...]:
    first_ND = embeddings_KD[classes_NR[:, 0]]
    return tuple(float((first_ND * embeddings_KD[classes_NR[:, rank]]).sum(1).mean()) for rank in (1, 2, 3, 5, 9))


def main() -> None:
    """Compare the views with as many generated documents whose likeliest classes are the same."""
    args = build_parser(__doc__).parse_args()
    views = score_photos()
    corpus, encoder = Corpus(views), StairMiniEncoder(ModelSpec(name=KIND.card.name))
    order_BK = np.argsort(-views.posteriors_BK, axis=1)
    real_ids_BW, real_weights_BW = corpus.tabulate(encoder.encode_images(crop_photos()))
    drawn = corpus.draw(order_BK[:, 0], np.random.default_rng(1))
    columns = [
        _summarize(real_weights_BW, real_ids_BW, _compute_likeness(order_BK, corpus.embeddings_KD)),
        _summarize(
            drawn.weights_NW, drawn.word_ids_NW, _compute_likeness(drawn.classes_NC.astype(np.int64), corpus.embeddings_KD)
        ),
    ]
    rows = (
        "similarity of classes 2 3 4 6 10 to the first (cosine)",
        "mean weight of tokens 1 2 4 8 16 32",
        "tokens per image: mean; p10 p50 p90",
        "distinct tokens",
        "% of images that have token 1 4 11 32 101 317 (by frequency)",
        "dot product of two images: mean, p90, p99",
    )
    lines = tuple((name, *both) for name, *both in zip(rows, *columns, strict=True))
    about = f"{len(order_BK)} views of the bundled photos, and as many generated documents"
    publish_result(Result(about=about, tables=(ReportTable(head=("", "real", "generated"), rows=lines),)), args.json)


if __name__ == "__main__":
    main()

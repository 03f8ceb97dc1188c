"""Measure the effect of muting stop-word candidates on retrieval: by uniformity, and by simpler rules that mute as many tokens.

    python benchmarks/stop_words.py                   # fetches the Debian package of the photographs, as model_quality.py does
    python benchmarks/stop_words.py --tuxpaint DIR    # uses an unpacked package
    python benchmarks/stop_words.py --sets SETS       # also on the drawings of small_sets/build.py

Images and texts are those of `model_quality.py`, and the model is stair-mini. The statistics of the tokens come from the gallery
itself, as in `stair-es words`. Muted tokens are removed from the images, as a token policy does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result
from retrieval.galleries import Gallery, add_gallery_options, read_galleries
from retrieval.ranks import compare_recalls, compute_best_ranks, compute_recalls, compute_sparse_scores

from stair_es.feature_names import escape_feature
from stair_es.inspection.token_stats import StatsAccumulator, TokenStats, find_stop_words, sort_token_stats
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

THRESHOLDS = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def compute_stats(images: Sequence[SparseVector]) -> tuple[TokenStats, ...]:
    """Return the statistics of each token."""
    tally = StatsAccumulator()
    for image in images:
        tally.add_image({escape_feature(word): weight for word, weight in image}, "")
    return tally.compute_stats()


def list_rules(stats: Sequence[TokenStats], images: int) -> Iterator[tuple[str, list[str]]]:
    """Yield the muted tokens: by each threshold of uniformity, and by other rules that mute as many tokens as the default."""
    for threshold in THRESHOLDS:
        yield f"uniformity >= {threshold}", [row.token for row in find_stop_words(stats, images, threshold)]
    many = len(find_stop_words(stats, images))
    yield "as many tokens by frequency (or idf)", [row.token for row in sort_token_stats(stats, "df")[:many]]
    yield "as many tokens by share of all weight", [row.token for row in sort_token_stats(stats, "share")[:many]]
    yield "as many tokens by mean weight", [row.token for row in sort_token_stats(stats, "mean")[:many]]


def measure_gallery(gallery: Gallery) -> ReportTable:
    """Return the table of one gallery."""
    model = StairMiniEncoder(ModelSpec(name="stair-mini"))
    images, texts = model.encode_images(gallery.pixels_BHWC), model.encode_texts(list(gallery.queries))
    stats = compute_stats(images)
    share = {row.token: row.weight_share for row in stats}
    before = compute_best_ranks(compute_sparse_scores(texts, images), gallery)[0]
    rows = [("none", "0", "0.0 %", " / ".join(map(str, compute_recalls(before))), "")]
    for name, words in list_rules(stats, len(images)):
        policy = TokenPolicy(mute=tuple(words))
        after = compute_best_ranks(compute_sparse_scores(texts, [policy.apply(image).vector for image in images]), gallery)[0]
        gain, low, high = compare_recalls(after, before, 10)
        weight = 100 * sum(share[word] for word in words)
        cells = " / ".join(map(str, compute_recalls(after)))
        rows.append((name, f"{len(words)}", f"{weight:.1f} %", cells, f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"))
    return ReportTable(
        heading=f"{gallery.name}: {len(images)} images, {len(texts)} texts, {len(stats)} tokens",
        head=("muted", "tokens", "share of all weight", "text -> image R@1/5/10", "R@10 minus none (95 %)"),
        rows=tuple(rows),
    )


def main() -> None:
    """Print a table for each gallery."""
    parser = build_parser(__doc__)
    add_gallery_options(parser)
    args = parser.parse_args()
    tables = tuple(map(measure_gallery, read_galleries(args)))
    publish_result(Result(about="stair-mini", tables=tables), args.json)


if __name__ == "__main__":
    main()

"""What muting stop-word candidates does to retrieval: by flatness, and by simpler rules that mute as many words.

    python benchmarks/words_stop.py                 # fetches the Debian package of the photographs, as model_quality.py
    python benchmarks/words_stop.py --stamps DIR    # of an unpacked package
    python benchmarks/words_stop.py --sets SETS     # also on the drawings of small_sets/build.py

Images and texts are those of `model_quality.py`, the model is stair-mini. The figures of the words come from the gallery
itself, as `stair-es words` would see it. Muted words are taken out of the images, as a token policy does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common import options, publish
from model_quality import Gallery, add_galleries, apart, best_ranks, galleries, recalls, sparse_scores
from result import ReportTable, Result

from stair_es.feature_names import escape_feature
from stair_es.inspection.stop_words import find_stop_words
from stair_es.inspection.token_stats import StatsAccumulator, TokenStats, sort_token_stats
from stair_es.model.base import ModelSpec
from stair_es.model.stair_mini.encoder import StairMiniEncoder
from stair_es.token_policy import TokenPolicy
from stair_es.types import SparseVector

FLOORS = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def figures(images: Sequence[SparseVector]) -> tuple[TokenStats, ...]:
    """Of each word."""
    tally = StatsAccumulator()
    for image in images:
        tally.add_image({escape_feature(word): weight for word, weight in image}, "")
    return tally.compute_stats()


def rules(found: Sequence[TokenStats], images: int) -> Iterator[tuple[str, list[str]]]:
    """What is muted: by each floor of flatness, and as many words as the default's by other rules."""
    for floor in FLOORS:
        yield f"flatness >= {floor}", [row.token for row in find_stop_words(found, images, floor)]
    many = len(find_stop_words(found, images))
    yield "as many by frequency (or idf)", [row.token for row in sort_token_stats(found, "df")[:many]]
    yield "as many by share of all weight", [row.token for row in sort_token_stats(found, "share")[:many]]
    yield "as many by mean weight", [row.token for row in sort_token_stats(found, "mean")[:many]]


def measured(gallery: Gallery) -> ReportTable:
    """Of one gallery."""
    model = StairMiniEncoder(ModelSpec(name="stair-mini"))
    images, texts = model.encode_images(gallery.pixels_BHWC), model.encode_texts(list(gallery.queries))
    found = figures(images)
    share = {row.token: row.weight_share for row in found}
    before = best_ranks(sparse_scores(texts, images), gallery)[0]
    rows = [("none", "0", "0.0 %", " / ".join(map(str, recalls(before))), "")]
    for name, words in rules(found, len(images)):
        policy = TokenPolicy(mute=tuple(words))
        after = best_ranks(sparse_scores(texts, [policy.apply(image).vector for image in images]), gallery)[0]
        gain, low, high = apart(after, before, 10)
        weight = 100 * sum(share[word] for word in words)
        cells = " / ".join(map(str, recalls(after)))
        rows.append((name, f"{len(words)}", f"{weight:.1f} %", cells, f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"))
    return ReportTable(
        heading=f"{gallery.name}: {len(images)} images, {len(texts)} texts, {len(found)} words",
        head=("muted", "words", "of all weight", "text -> image R@1/5/10", "R@10 against none (95 %)"),
        rows=tuple(rows),
    )


def main() -> None:
    """One table a gallery."""
    parser = options(__doc__)
    add_galleries(parser)
    given = parser.parse_args()
    tables = tuple(map(measured, galleries(given)))
    publish(Result(about="stair-mini", tables=tables), given.json)


if __name__ == "__main__":
    main()

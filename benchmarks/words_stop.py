"""What muting stop-word candidates does to retrieval: by flatness, and by simpler rules that mute as many words.

    python benchmarks/words_stop.py                 # fetches the Debian package of the photographs, as model_quality.py
    python benchmarks/words_stop.py --stamps DIR    # of an unpacked package
    python benchmarks/words_stop.py --sets SETS     # also on the drawings of small_sets/build.py

Images and texts are those of `model_quality.py`, the model is stair-mini. The figures of the words come from the gallery
itself, as `stair-es words` would see it. Muted words are taken out of the images, as a word policy does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from common import options, publish
from model_quality import Gallery, add_galleries, apart, best_ranks, galleries, recalls, sparse_scores
from result import Result, Table

from stair_es.inspection.figures import Tally, WordFigures, ordered
from stair_es.inspection.muting import stop_words
from stair_es.model.encoder import ModelSpec
from stair_es.model.stair_mini import StairMini
from stair_es.policy import WordPolicy
from stair_es.types import SparseVector
from stair_es.vocab import escape

FLOORS = (0.7, 0.6, 0.5, 0.4, 0.3, 0.2)


def figures(images: Sequence[SparseVector]) -> tuple[WordFigures, ...]:
    """Of each word."""
    tally = Tally()
    for image in images:
        tally.add({escape(word): weight for word, weight in image}, "")
    return tally.figures()


def rules(found: Sequence[WordFigures], images: int) -> Iterator[tuple[str, list[str]]]:
    """What is muted: by each floor of flatness, and as many words as the default's by other rules."""
    for floor in FLOORS:
        yield f"flatness >= {floor}", [row.word for row in stop_words(found, images, floor)]
    many = len(stop_words(found, images))
    yield "as many by frequency (or idf)", [row.word for row in ordered(found, "df")[:many]]
    yield "as many by share of all weight", [row.word for row in ordered(found, "share")[:many]]
    yield "as many by mean weight", [row.word for row in ordered(found, "mean")[:many]]


def measured(gallery: Gallery) -> Table:
    """Of one gallery."""
    model = StairMini(ModelSpec(name="stair-mini"))
    images, texts = model.encode_images(gallery.pixels_BHWC), model.encode_texts(list(gallery.queries))
    found = figures(images)
    share = {row.word: row.weight_share for row in found}
    before = best_ranks(sparse_scores(texts, images), gallery)[0]
    rows = [("none", "0", "0.0 %", " / ".join(map(str, recalls(before))), "")]
    for name, words in rules(found, len(images)):
        policy = WordPolicy(mute=tuple(words))
        after = best_ranks(sparse_scores(texts, [policy.apply(image).vector for image in images]), gallery)[0]
        gain, low, high = apart(after, before, 10)
        weight = 100 * sum(share[word] for word in words)
        cells = " / ".join(map(str, recalls(after)))
        rows.append((name, f"{len(words)}", f"{weight:.1f} %", cells, f"{gain:+.1f} [{low:+.1f}, {high:+.1f}]"))
    return Table(
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

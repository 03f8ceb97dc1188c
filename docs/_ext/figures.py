"""The drawn pictures of the documentation. Words and weights in them are those of the real model and the bundled photos.

::

    python docs/_ext/figures.py

`layers.svg` shows what `tests/unit/test_guards.py` allows; a test says when it is out of date.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path

from svg import arrow, box, photo, picture, rect, text

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import SparseVector

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
QUERY = "a bear in a tree"
MODEL = "stair-mini"
SHOWN = 14
"""Words of an image in the picture of a vector."""
COLUMNS = ("giant-panda", "koala", "red-panda", "bison", "dairy-cow", "tabby-cat")
"""Photos in the picture of the index."""
ROWS = 4
"""Words of the query in it: the heaviest that one of the photos has."""
ACROSS = {
    **{"sizing": 0.0, "telemetry": 0.0, "api": 0.0, "sources": 1.0, "ingest": 0.9, "eval": 1.4, "training": 1.4},
    **{"model": 2.0, "search": 2.5, "inspection": 2.9, "web": 2.9, "cluster": 3.0},
    **{"dashboards": 3.9, "embedded_node": 5.0, "doctor": 5.0},
}
"""Where the layers stand, so that no arrow runs behind one; how high, their imports say. Another one comes to the right."""


def image_vector(encoder: Encoder, name: str) -> SparseVector:
    """The words of a bundled photo."""
    decoded = decode_image((PHOTOS / f"{name}.jpg").read_bytes(), encoder.image_spec, DecodeLimits(), thumbnail_px=0)
    return encoder.encode_images(decoded.pixels_HWC[None])[0]


def vector(encoder: Encoder) -> str:
    """A photo and its heaviest words."""
    words = image_vector(encoder, "giant-panda")
    step, left, full = 21, 380, 270
    heaviest = words.weights[0]
    parts = [photo(0, 8, 260, 200, PHOTOS / "giant-panda.jpg"), text(0, 228, "giant-panda.jpg", "soft")]
    for i, (word, weight) in enumerate(words.top(SHOWN)):
        y = 8 + step * i
        parts += [
            text(left - 8, y + 14, word, anchor="end"),
            rect(left, y + 3, full * weight / heaviest, 14, "bar", 2),
            text(left + full * weight / heaviest + 6, y + 14, f"{weight:.3f}", "soft"),
        ]
    lighter = len(words) - SHOWN
    foot = max(8 + step * min(SHOWN, len(words)) + 18, 228)
    parts.append(
        text(
            left,
            foot,
            f"and {lighter} lighter words; all others have none" if lighter > 0 else "all other words have none",
            "soft",
        )
    )
    return picture(760, foot + 10, "A photo of a giant panda and its heaviest words as bars", parts)


def postings(encoder: Encoder) -> str:
    """The query's heaviest words as rows, photos as columns: a cell is an entry of a posting list, a column's sum is a score."""
    [query] = encoder.encode_texts([QUERY])
    images = {name: image_vector(encoder, name) for name in COLUMNS}
    left, width, top, height = 160, 100, 96, 44
    largest = max(vector.dot(query) for vector in images.values())
    first, _, second = QUERY.partition(" in ")
    known = {word for vector in images.values() for word in vector.tokens}
    drawn = [(word, weight) for word, weight in query if word in known][:ROWS]
    parts = [text(0, 24, f"“{first}", "strong"), text(0, 42, f"in {second}”", "strong"), text(0, 89, "word × weight", "soft")]
    for column, name in enumerate(COLUMNS):
        parts.append(photo(left + width * column + 6, 8, 88, 66, PHOTOS / f"{name}.jpg"))
        parts.append(text(left + width * column + 50, 89, name, "soft", "middle"))
    for row, (word, weight) in enumerate(drawn):
        y = top + height * row
        parts += [text(0, y + 28, word, "strong"), text(140, y + 28, f"{weight:.3f}", "soft", "end")]
        parts.append(f'<path class="thin" d="M0 {y + height}H760"/>')
        for column, vector_of in enumerate(images.values()):
            if has := vector_of.to_dict().get(word):
                x = left + width * column + 6
                parts += [rect(x, y + 8, 88 * has / 0.6, 9, "bar", 2), text(x, y + 34, f"× {has:.3f}", "soft")]
    y = top + height * ROWS
    parts.append(text(0, y + 28, "score", "strong accent"))
    parts.append(text(0, y + 46, f"all {len(query)} words", "soft"))
    for column, vector_of in enumerate(images.values()):
        score, x = vector_of.dot(query), left + width * column + 6
        parts += [rect(x, y + 8, max(1, 88 * score / largest), 9, "accent", 2), text(x, y + 34, f"{score:.3f}", "strong accent")]
    return picture(760, y + 56, "Posting lists of the words of a query, and the scores that they add up to", parts)


def flow(encoder: Encoder) -> str:
    """What happens to an image and to a query."""
    [query] = encoder.encode_texts([QUERY])
    images = {name: image_vector(encoder, name) for name in COLUMNS}
    lists = {word: [name for name in COLUMNS if word in images[name].tokens] for word in ("bear", "tree", "mammal")}
    parts = [
        photo(0, 10, 120, 90, PHOTOS / "giant-panda.jpg"),
        text(60, 118, "an image", "soft", "middle"),
        arrow("M126 55H166"),
        box(172, 22, 104, 66, "image tower"),
        arrow("M282 55H322"),
        box(328, 10, 126, 90, *_lines(images["giant-panda"])),
        arrow("M460 55H500"),
        box(506, 10, 254, 214, "your cluster", "an inverted index:", *(_posting(word, names) for word, names in lists.items())),
        box(0, 134, 120, 90, "a query", "“a bear", "in a tree”"),
        arrow("M126 179H166"),
        box(172, 146, 104, 66, "text tower"),
        arrow("M282 179H322"),
        box(328, 134, 126, 90, *_lines(query)),
        arrow("M460 179H500"),
    ]
    return picture(760, 234, "Images and queries become weighted words; the cluster multiplies and adds", parts)


def _lines(vector: SparseVector) -> list[str]:
    return [*(f"{word} {weight:.3f}" for word, weight in vector.top(3)), "..."]


def _posting(word: str, names: list[str]) -> str:
    return f"{word}: {', '.join(names[:2])}{' ...' if names[2:] else ''}"


def alias() -> str:
    """An index that is built beside the one in use, and the alias that moves."""
    parts = [
        text(0, 20, "while the new index is built", "soft"),
        box(0, 34, 110, 50, "photos", "alias"),
        box(190, 34, 190, 50, "photos-A-1000", "40 of 40 images"),
        arrow("M116 59H184"),
        box(190, 104, 190, 50, "photos-B-1030", "23 of 40 images", kind="box dashed"),
        text(410, 20, "after one atomic request", "soft"),
        box(410, 34, 110, 50, "photos", "alias"),
        box(570, 34, 190, 50, "photos-A-1000", "kept (--retain-indices 1)", kind="box dashed"),
        box(570, 104, 190, 50, "photos-B-1030", "40 of 40 images"),
        arrow("M465 90V129H564"),
    ]
    return picture(760, 164, "An alias moves from the old index to the new one when that is complete", parts)


def read_guard(name: str) -> ast.expr:
    """Return the value of a constant of `tests/unit/test_guards.py`."""
    tree = ast.parse((ROOT / "tests" / "unit" / "test_guards.py").read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    ]
    return value


def shared() -> tuple[str, ...]:
    """Return the rooms that every layer may import."""
    return tuple(ast.literal_eval(read_guard("SHARED")))


def allowed() -> dict[str, set[str]]:
    """Layer -> the layers that it may import, as the guard has it."""
    value = read_guard("ALLOWED")
    assert isinstance(value, ast.Dict)
    named = zip(value.keys, value.values, strict=True)
    return {ast.literal_eval(key): set(ast.literal_eval(of)) if isinstance(of, ast.Set) else set() for key, of in named if key}


def layers() -> str:
    """The layers of the code, each above those that it may import; arrows that a longer way implies are left out."""
    below = allowed()
    depth: dict[str, int] = {}
    while len(depth) < len(below):
        depth |= {
            name: 1 + max((depth[other] for other in uses), default=-1) for name, uses in below.items() if uses <= depth.keys()
        }
    step, width, height = 84, 104, 40
    tall = step * (max(depth.values()) + 1) + 110
    place = {name: (58 + 128.8 * ACROSS.get(name, 5.0), tall - 20 - step * (level + 1)) for name, level in depth.items()}
    parts = [
        box(0, 4, 760, 34, "cli: the command line, imports any layer"),
        box(0, tall - 38, 760, 34, "stair_es/*.py, config, system: values, errors, settings, the machine"),
    ]
    for name, uses in below.items():
        for other in sorted(uses - {far for near in uses for far in below[near]}):
            (x, y), (to_x, to_y) = place[name], place[other]
            parts.append(arrow(f"M{x:g} {y + height:g}C{x:g} {y + height + 30:g} {to_x:g} {to_y - 30:g} {to_x:g} {to_y - 2:g}"))
    parts += [box(x - width / 2, y, width, height, name) for name, (x, y) in place.items()]
    return picture(760, tall, "Layers of the code and what each may import", parts)


DRAWN: dict[str, Callable[[Encoder], str]] = {
    "vector": vector,
    "postings": postings,
    "flow": flow,
    "alias": lambda _: alias(),
    "layers": lambda _: layers(),
}


def main() -> None:
    """Draw them."""
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    asking.add_argument("names", nargs="*", help=f"some of {', '.join(DRAWN)}; all without")
    given = asking.parse_args()
    encoder = registry.load_encoder(ModelSpec(name=MODEL))
    for name in given.names or DRAWN:
        svg = DRAWN[name](encoder)
        (given.out / f"{name}.svg").write_text(svg)
        print(f"{name}.svg: {len(svg) / 1000:,.0f} kB")


if __name__ == "__main__":
    main()

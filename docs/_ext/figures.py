"""Draw the figures of the documentation, with tokens and weights of the shipped model for the bundled photos.

::

    python docs/_ext/figures.py

`layers.svg` shows the imports that `tests/unit/test_guards.py` allows; a test fails if it is out of date.
"""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from pathlib import Path

from svg import build_svg, draw_arrow, draw_box, draw_photo, draw_rect, draw_text

from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import SparseVector

ROOT = Path(__file__).parents[2]
PHOTOS = ROOT / "examples" / "photos"
QUERY = "a bear in a tree"
MODEL = "stair-mini"
VECTOR_TOKENS = 14
"""Number of tokens in the figure of a vector."""
INDEX_PHOTOS = ("giant-panda", "koala", "red-panda", "bison", "dairy-cow", "tabby-cat")
"""Photos in the figures of the index."""
QUERY_TOKENS = 4
"""Number of query tokens in the figure of the posting lists: the heaviest ones that a photo has, too."""
LAYER_COLUMNS = {
    **{"telemetry": 0.0, "api": 0.0, "sources": 1.0, "ingest": 0.9, "eval": 1.4, "training": 1.4, "distill": 1.4},
    **{"model": 2.0, "search": 2.5, "inspection": 2.9, "web": 2.9, "cluster": 3.0},
    **{"dashboards": 3.9, "embedded_node": 5.0, "doctor": 5.0},
}
"""Horizontal positions of layers, chosen so that no arrow runs behind a layer; a layer that isn't here is drawn at the right."""


def encode_photo(encoder: Encoder, name: str) -> SparseVector:
    """Return the vector of a bundled photo."""
    decoded = decode_image((PHOTOS / f"{name}.jpg").read_bytes(), encoder.image_spec, DecodeLimits(), thumbnail_px=0)
    return encoder.encode_images(decoded.pixels_HWC[None])[0]


def draw_vector(encoder: Encoder) -> str:
    """Draw a photo and its heaviest tokens."""
    vector = encode_photo(encoder, "giant-panda")
    step, left, full = 21, 380, 270
    heaviest = vector.weights[0]
    parts = [draw_photo(0, 8, 260, 200, PHOTOS / "giant-panda.jpg"), draw_text(0, 228, "giant-panda.jpg", "soft")]
    for i, (token, weight) in enumerate(vector.top(VECTOR_TOKENS)):
        y = 8 + step * i
        parts += [
            draw_text(left - 8, y + 14, token, anchor="end"),
            draw_rect(left, y + 3, full * weight / heaviest, 14, "bar", 2),
            draw_text(left + full * weight / heaviest + 6, y + 14, f"{weight:.3f}", "soft"),
        ]
    lighter = len(vector) - VECTOR_TOKENS
    bottom = max(8 + step * min(VECTOR_TOKENS, len(vector)) + 18, 228)
    rest = f"and {lighter} lighter words; all others have none" if lighter > 0 else "all other words have none"
    parts.append(draw_text(left, bottom, rest, "soft"))
    return build_svg(760, bottom + 10, "A photo of a giant panda and its heaviest words as bars", parts)


def draw_postings(encoder: Encoder) -> str:
    """Draw query tokens as rows and photos as columns: a cell is a posting, the sum of a column is a score."""
    [query] = encoder.encode_texts([QUERY])
    images = {name: encode_photo(encoder, name) for name in INDEX_PHOTOS}
    left, width, top, height = 160, 100, 96, 44
    largest = max(vector.dot(query) for vector in images.values())
    first, _, second = QUERY.partition(" in ")
    known = {token for vector in images.values() for token in vector.tokens}
    rows = [(token, weight) for token, weight in query if token in known][:QUERY_TOKENS]
    parts = [draw_text(0, 24, f"“{first}", "strong"), draw_text(0, 42, f"in {second}”", "strong")]
    parts.append(draw_text(0, 89, "word × weight", "soft"))
    for column, name in enumerate(INDEX_PHOTOS):
        parts.append(draw_photo(left + width * column + 6, 8, 88, 66, PHOTOS / f"{name}.jpg"))
        parts.append(draw_text(left + width * column + 50, 89, name, "soft", "middle"))
    for row, (token, weight) in enumerate(rows):
        y = top + height * row
        parts += [draw_text(0, y + 28, token, "strong"), draw_text(140, y + 28, f"{weight:.3f}", "soft", "end")]
        parts.append(f'<path class="thin" d="M0 {y + height}H760"/>')
        for column, vector in enumerate(images.values()):
            if image_weight := vector.to_dict().get(token):
                x = left + width * column + 6
                parts.append(draw_rect(x, y + 8, 88 * image_weight / 0.6, 9, "bar", 2))
                parts.append(draw_text(x, y + 34, f"× {image_weight:.3f}", "soft"))
    y = top + height * QUERY_TOKENS
    parts.append(draw_text(0, y + 28, "score", "strong accent"))
    parts.append(draw_text(0, y + 46, f"all {len(query)} words", "soft"))
    for column, vector in enumerate(images.values()):
        score, x = vector.dot(query), left + width * column + 6
        parts.append(draw_rect(x, y + 8, max(1, 88 * score / largest), 9, "accent", 2))
        parts.append(draw_text(x, y + 34, f"{score:.3f}", "strong accent"))
    return build_svg(760, y + 56, "Posting lists of the words of a query, and the scores that they add up to", parts)


def draw_flow(encoder: Encoder) -> str:
    """Draw the way of an image and of a query into the cluster."""
    [query] = encoder.encode_texts([QUERY])
    images = {name: encode_photo(encoder, name) for name in INDEX_PHOTOS}
    postings = {token: [name for name in INDEX_PHOTOS if token in images[name].tokens] for token in ("bear", "tree", "mammal")}
    lists = [_format_postings(token, names) for token, names in postings.items()]
    parts = [
        draw_photo(0, 10, 120, 90, PHOTOS / "giant-panda.jpg"),
        draw_text(60, 118, "an image", "soft", "middle"),
        draw_arrow("M126 55H166"),
        draw_box(172, 22, 104, 66, "image tower"),
        draw_arrow("M282 55H322"),
        draw_box(328, 10, 126, 90, *_format_tokens(images["giant-panda"])),
        draw_arrow("M460 55H500"),
        draw_box(506, 10, 254, 214, "your cluster", "an inverted index:", *lists),
        draw_box(0, 134, 120, 90, "a query", "“a bear", "in a tree”"),
        draw_arrow("M126 179H166"),
        draw_box(172, 146, 104, 66, "text tower"),
        draw_arrow("M282 179H322"),
        draw_box(328, 134, 126, 90, *_format_tokens(query)),
        draw_arrow("M460 179H500"),
    ]
    return build_svg(760, 234, "Images and queries become weighted words; the cluster multiplies and adds", parts)


def _format_tokens(vector: SparseVector) -> list[str]:
    return [*(f"{token} {weight:.3f}" for token, weight in vector.top(3)), "..."]


def _format_postings(token: str, names: list[str]) -> str:
    return f"{token}: {', '.join(names[:2])}{' ...' if names[2:] else ''}"


def draw_alias() -> str:
    """Draw an index that is built beside the one in use, and the alias that moves."""
    parts = [
        draw_text(0, 20, "while the new index is built", "soft"),
        draw_box(0, 34, 110, 50, "photos", "alias"),
        draw_box(190, 34, 190, 50, "photos-A-1000", "40 of 40 images"),
        draw_arrow("M116 59H184"),
        draw_box(190, 104, 190, 50, "photos-B-1030", "23 of 40 images", kind="box dashed"),
        draw_text(410, 20, "after one atomic request", "soft"),
        draw_box(410, 34, 110, 50, "photos", "alias"),
        draw_box(570, 34, 190, 50, "photos-A-1000", "kept (--retain-indices 1)", kind="box dashed"),
        draw_box(570, 104, 190, 50, "photos-B-1030", "40 of 40 images"),
        draw_arrow("M465 90V129H564"),
    ]
    return build_svg(760, 164, "An alias moves from the old index to the new one when that is complete", parts)


def read_guard_constant(name: str) -> ast.expr:
    """Return the value of a constant of `tests/unit/test_guards.py`."""
    tree = ast.parse((ROOT / "tests" / "unit" / "test_guards.py").read_text())
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name
    ]
    return value


def read_shared_packages() -> tuple[str, ...]:
    """Return the packages that every layer may import."""
    return tuple(ast.literal_eval(read_guard_constant("SHARED")))


def read_allowed_imports() -> dict[str, set[str]]:
    """Return, for each layer, the layers that it may import."""
    value = read_guard_constant("ALLOWED")
    assert isinstance(value, ast.Dict)
    named = zip(value.keys, value.values, strict=True)
    return {ast.literal_eval(key): set(ast.literal_eval(of)) if isinstance(of, ast.Set) else set() for key, of in named if key}


def draw_layers() -> str:
    """Draw the layers of the code, each above those that it may import, without the arrows that a longer path implies."""
    imports = read_allowed_imports()
    depth: dict[str, int] = {}
    while len(depth) < len(imports):
        depth |= {
            name: 1 + max((depth[other] for other in uses), default=-1) for name, uses in imports.items() if uses <= depth.keys()
        }
    step, width, height = 84, 104, 40
    bottom = step * (max(depth.values()) + 1) + 110
    columns = {name: 58 + 128.8 * LAYER_COLUMNS.get(name, 5.0) for name in depth}
    positions = {name: (columns[name], bottom - 20 - step * (level + 1)) for name, level in depth.items()}
    parts = [
        draw_box(0, 4, 760, 34, "cli: the command line, imports any layer"),
        draw_box(0, bottom - 38, 760, 34, "stair_es/*.py, config, system: values, errors, settings, the machine"),
    ]
    for name, uses in imports.items():
        for other in sorted(uses - {far for near in uses for far in imports[near]}):
            (x, y), (to_x, to_y) = positions[name], positions[other]
            curve = f"C{x:g} {y + height + 30:g} {to_x:g} {to_y - 30:g} {to_x:g} {to_y - 2:g}"
            parts.append(draw_arrow(f"M{x:g} {y + height:g}{curve}"))
    for name, (x, y) in positions.items():
        parts.append(draw_box(x - width / 2, y, width, height, *name.replace("_", "_ ").split()))
    return build_svg(760, bottom, "Layers of the code and what each may import", parts)


FIGURES: dict[str, Callable[[Encoder], str]] = {
    "vector": draw_vector,
    "postings": draw_postings,
    "flow": draw_flow,
    "alias": lambda _: draw_alias(),
    "layers": lambda _: draw_layers(),
}


def main() -> None:
    """Draw the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    parser.add_argument("names", nargs="*", help=f"of {', '.join(FIGURES)} (default: all)")
    args = parser.parse_args()
    encoder = registry.load_encoder(ModelSpec(name=MODEL))
    for name in args.names or FIGURES:
        svg = FIGURES[name](encoder)
        (args.out / f"{name}.svg").write_text(svg)
        print(f"{name}.svg: {len(svg) / 1000:,.0f} kB")


if __name__ == "__main__":
    main()

"""`evaluate sparsity`: what the vectors of a caption set, or of a folder of images, cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stair_es.errors import UsageError
from stair_es.eval.contenders import Contender, in_turn
from stair_es.eval.encode import Progress, encode_images, encode_texts
from stair_es.eval.sparsity import Lists, Sizes, flops, lists, sizes, weighted_flops
from stair_es.eval.tables import Report, Table, percent
from stair_es.sources.local_file import FileAt
from stair_es.sources.paths import IMAGE_SUFFIXES, uri_of

if TYPE_CHECKING:
    from stair_es.eval.captions import CaptionSet
    from stair_es.sources.item import Place
    from stair_es.types import SparseVector

_SIZES = ("side", "model", "items", "mean", "p50", "p95", "most", "without a word")
_COST = ("vectors", "model", "pair", "multiplications", "weighted")
_LISTS = ("side", "model", "words", "dead", "longest list", "in the longest 1 %", "Gini")


@dataclass(frozen=True, kw_only=True)
class Items:
    """What is encoded."""

    name: str
    images: tuple[str, ...]
    """Their names."""
    places: tuple[Place, ...]
    texts: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def of_captions(captions: CaptionSet) -> Items:
    """Images and their different captions."""
    return Items(
        name=captions.name,
        images=tuple(image.name for image in captions.images),
        places=tuple(image.place for image in captions.images),
        texts=tuple(dict.fromkeys(text for image in captions.images for text in image.captions)),
        problems=captions.problems,
    )


def of_folder(folder: Path, limit: int | None = None) -> Items:
    """The images below a folder.

    Raises:
        UsageError: There are none.
    """
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())[:limit]
    if not files:
        raise UsageError(f"no images below {folder}", "Name a folder with images in it, or a caption set.")
    return Items(
        name=folder.name or str(folder), images=tuple(map(str, files)), places=tuple(FileAt(uri_of(path)) for path in files)
    )


@dataclass(frozen=True, kw_only=True)
class _Model:
    label: str
    sizes: dict[str, Sizes]
    lists: dict[str, Lists]
    flops: dict[str, tuple[float, float]]
    """Pair of sides -> multiplications, and the weighted form."""
    dimensions: int | None
    """Of its dense vectors."""

    def to_dict(self) -> dict[str, Any]:
        return {
            "model": self.label,
            "items": {side: asdict(each) for side, each in self.sizes.items()},
            "lists": {side: {**asdict(each), "dead": each.dead} for side, each in self.lists.items()},
            "flops": {pair: {"multiplications": plain, "weighted": weighted} for pair, (plain, weighted) in self.flops.items()},
            "dense_dimensions": self.dimensions,
        }


def sparsity(items: Items, models: Sequence[Contender], *, say: Callable[[str], None], progress: Progress) -> Report:
    """Words an item, multiplications a pair, balance of the lists, of each model.

    Raises:
        UsageError: Not one image can be read.
        ModelError: The first model fails.
    """
    start = time.perf_counter()
    problems = list(items.problems)

    def work(model: Contender) -> list[_Model]:
        if not model.has_words:
            return [_measured(model, {}, _dimensions(model))]
        pictures = encode_images(items.places, model, progress, dense=False)
        problems.extend(f"{items.images[position]}: {reason}" for position, reason in pictures.problems.items())
        sides = {"images": pictures.vectors.words or ()}
        if items.texts:
            sides["texts"] = encode_texts(items.texts, model, progress, dense=False).words or ()
        return [_measured(model, sides, None)]

    found = in_turn(models, work, problems, say)
    return Report(
        title=f"{items.name}: {len(items.images)} images, {len(items.texts)} texts",
        about=(
            "Words an item; multiplications that a query costs with one item on average (sum of p q over the words), and the"
            " same with mean weights, as it is trained; how even the lists of an inverted index are."
        ),
        tables=_tables(found),
        values={"set": items.name, "rows": [each.to_dict() for each in found]},
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def _dimensions(model: Contender) -> int | None:
    """Of dense vectors: any text has as many as any image."""
    return model.dense.encode_texts_dense(["a"]).shape[1] if model.dense is not None else None


def _measured(model: Contender, sides: dict[str, tuple[SparseVector, ...]], dimensions: int | None) -> _Model:
    there = {side: vectors for side, vectors in sides.items() if vectors}
    pairs = [("texts", "images"), ("images", "images")]
    return _Model(
        label=model.label,
        sizes={side: sizes(vectors) for side, vectors in there.items()},
        lists={side: lists(vectors, model.features) for side, vectors in there.items()},
        flops={
            f"{asking} -> {asked}": (flops(there[asked], there[asking]), weighted_flops(there[asked], there[asking]))
            for asking, asked in pairs
            if asking in there and asked in there
        },
        dimensions=dimensions,
    )


def _tables(found: Sequence[_Model]) -> tuple[Table, ...]:
    items = [(side, model.label, *_sizes(each)) for model in found for side, each in model.sizes.items()]
    cost = [
        ("words", model.label, pair, f"{plain:.2f}", f"{weighted:.4g}")
        for model in found
        for pair, (plain, weighted) in model.flops.items()
    ]
    cost += [("dense", model.label, "any", str(model.dimensions), "") for model in found if model.dimensions]
    balance = [(side, model.label, *_lists(each)) for model in found for side, each in model.lists.items()]
    tables = (("Words an item", _SIZES, items), ("Multiplications", _COST, cost), ("Lists", _LISTS, balance))
    return tuple(Table(heading=heading, head=head, rows=tuple(rows)) for heading, head, rows in tables if rows)


def _sizes(each: Sizes) -> tuple[str, ...]:
    return (str(each.items), f"{each.mean:.1f}", f"{each.p50:g}", f"{each.p95:g}", str(each.most), str(each.empty))


def _lists(each: Lists) -> tuple[str, ...]:
    known = f"{each.dead:,} of {each.vocabulary:,}" if each.vocabulary is not None else "n/a"
    longest = f"{each.longest} ({each.longest_word})"
    return (f"{each.words:,}", known, longest, f"{percent(each.top_share)} %", f"{each.gini:.3f}")

"""`evaluate words`: from a folder of classes, or from a caption set, to a report of what the words mean."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from stair_es.errors import UsageError
from stair_es.eval.contenders import Contender, LabelSpace, in_turn, label_space
from stair_es.eval.encode import Progress, encode_images, encode_texts
from stair_es.eval.interpret import CUTS, ByWeight, Found, Ranking, by_cosine, found
from stair_es.eval.tables import Report, Table, percent
from stair_es.eval.words import spelt

if TYPE_CHECKING:
    from stair_es.eval.captions import CaptionSet
    from stair_es.eval.class_folders import LabelledSet
    from stair_es.sources.item import Place
    from stair_es.types import SparseVector

_HEAD = ("vectors", "model", "vocabulary", *(f"top {cut}" for cut in CUTS), "chance at 20", "images")
_TIES = "In percent; tokens of the same score come first. Chance: the words of other images."


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What should be found in images."""

    name: str
    about: str
    protocol: str
    """For people."""
    images: tuple[str, ...]
    """Their names."""
    places: tuple[Place, ...]
    texts: tuple[tuple[str, ...], ...]
    """Of each image: the names of its class, or its captions."""
    problems: tuple[str, ...] = ()


def of_classes(labelled: LabelledSet) -> Wanted:
    """The class of each image should be found."""
    return Wanted(
        name=labelled.name,
        about=labelled.about(),
        protocol=f"Which word of the whole vocabulary names an image: the class counts by the best of its words. {_TIES}",
        images=tuple(map(str, labelled.files)),
        places=tuple(labelled.places),
        texts=tuple(labelled.names[label] for label in labelled.labels),
    )


def of_captions(captions: CaptionSet) -> Wanted:
    """A word of its captions should be found in each image."""
    return Wanted(
        name=captions.name,
        about=f"{len(captions.images)} images",
        protocol=f"Whether a word of an image's captions (no stop word) is among its first words. {_TIES}",
        images=tuple(image.name for image in captions.images),
        places=tuple(image.place for image in captions.images),
        texts=tuple(image.captions for image in captions.images),
        problems=captions.problems,
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    kind: str
    model: str
    vocabulary: int
    found: Found

    def cells(self) -> tuple[str, ...]:
        chance = percent(self.found.chance[20]) if self.found.chance else "n/a"
        shares = map(percent, self.found.at.values())
        return (self.kind, self.model, f"{self.vocabulary:,}", *shares, chance, str(self.found.images))

    def to_dict(self) -> dict[str, Any]:
        return {"vectors": self.kind, "model": self.model, "vocabulary": self.vocabulary, **asdict(self.found)}


def interpret(
    wanted: Wanted,
    models: Sequence[Contender],
    *,
    prompt: str = "{}",
    dense: bool = False,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """How often the right words are among the first, by words; by dense vectors, of models without words.

    Args:
        wanted: The images, and what should be found in them.
        models: At least one. Models without words of their own take those of the first model that has some, else BERT's.
        prompt: In which a token is encoded for dense vectors.
        dense: Whether the dense vectors of models with words are measured, too: a text for each word of the vocabulary.
        say: Gets remarks for people.
        progress: Is told how far it is.

    Raises:
        UsageError: Not one image can be read, or the prompt has no place for a word.
        ModelError: The first model fails.
    """
    if "{}" not in prompt:
        raise UsageError(f"the prompt {prompt!r} has no place for the word", "Write {} where the word goes: a photo of a {}.")
    start = time.perf_counter()
    shared = label_space(models)
    problems = list(wanted.problems)

    def work(model: Contender) -> list[_Row]:
        pictures = encode_images(wanted.places, model, progress, dense=dense or not model.has_words)
        problems.extend(f"{wanted.images[position]}: {reason}" for position, reason in pictures.problems.items())
        texts = [wanted.texts[position] for position in pictures.kept]
        rows = []
        if pictures.vectors.words is not None:
            space = _own_space(model, pictures.vectors.words, texts)
            rankings: Iterator[Ranking] = _by_weight(pictures.vectors.words, space)
            rows.append(_row("words", model, space, rankings, texts))
        if pictures.vectors.dense is not None:
            tokens = [prompt.replace("{}", written(word)) for word in shared.words]
            read = encode_texts(tokens, model, _as_tokens(progress), words=False).dense
            if read is not None:
                rows.append(_row("dense", model, shared, by_cosine(pictures.vectors.dense, shared.words, read), texts))
        return rows

    rows = in_turn(models, work, problems, say)
    return Report(
        title=f"{wanted.name}: {wanted.about}",
        about=wanted.protocol,
        tables=(Table(head=_HEAD, rows=tuple(row.cells() for row in rows)),),
        values={"set": wanted.name, "prompt": prompt, "rows": [row.to_dict() for row in rows]},
        remarks=tuple(
            f"{row.kind} of {row.model}: {row.found.unknown} images have no word that is in the vocabulary, and are never found"
            for row in rows
            if row.found.unknown
        ),
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def written(feature: str) -> str:
    """A word of a vocabulary without the mark of a piece that goes on, `##s`: the only one that adapters leave."""
    return feature.removeprefix("##") or feature


def _row(kind: str, model: Contender, space: LabelSpace, rankings: Iterator[Ranking], texts: Sequence[Sequence[str]]) -> _Row:
    known: dict[tuple[str, ...], tuple[str, ...]] = {}
    for own in map(tuple, texts):
        if own not in known:
            known[own] = tuple(dict.fromkeys(feature for text in own for feature in _features(text, space)))
    return _Row(
        kind=kind,
        model=model.label,
        vocabulary=len(space.words),
        found=found(rankings, [known[tuple(own)] for own in texts]),
    )


def _features(text: str, space: LabelSpace) -> Collection[str]:
    """Those of its words; of a text that is nothing but stop words (a class called `can`), of these."""
    return spelt(text, space.speller) or (space.speller.spell(text) if space.speller else (text.lower(),))


def _own_space(model: Contender, vectors: Sequence[SparseVector], texts: Sequence[Sequence[str]]) -> LabelSpace:
    """The model's vocabulary; of one that doesn't tell it, the words that were seen."""
    words = model.features
    if words is None:
        seen = {word for vector in vectors for word in vector.features}
        words = tuple(sorted(seen | {feature for own in texts for text in own for feature in spelt(text, model.speller)}))
    return LabelSpace(words=words, speller=model.speller)


def _by_weight(vectors: Sequence[SparseVector], space: LabelSpace) -> Iterator[ByWeight]:
    vocabulary = frozenset(space.words)
    return (ByWeight(vector, vocabulary) for vector in vectors)


def _as_tokens(progress: Progress) -> Progress:
    return lambda _, done, total: progress("vocabulary", done, total)

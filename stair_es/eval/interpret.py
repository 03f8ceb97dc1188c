"""What words mean: whether those of an image are the ones that people use for it, among all words of the vocabulary. Pure.

The protocol follows STAIR (Chen et al., 2023): every token of the vocabulary is scored for an image (by its weight,
or by the cosine with the dense vector of that token), a class by the best of its tokens, and it is found at k if fewer than
k tokens of the others are as good. Captions are judged in the same way, by the best of their words that are no stop words.

Shape suffixes: V words of the vocabulary, D dimensions.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from stair_es.errors import UsageError
from stair_es.eval.contenders import Contender, LabelSpace, in_turn, label_space
from stair_es.eval.encode import Progress, encode_images, encode_texts
from stair_es.eval.metrics import Doubles
from stair_es.eval.tables import Report, Table, percent
from stair_es.eval.words import spelt
from stair_es.types import Floats, SparseVector

if TYPE_CHECKING:
    from stair_es.eval.captions import CaptionSet
    from stair_es.eval.class_folders import LabelledSet
    from stair_es.sources.item import Place

CUTS = (1, 5, 20, 100)
_ROUNDS = 10


class Ranking(Protocol):
    """All words of the vocabulary, as one image ranks them."""

    def rank(self, own: Collection[str]) -> int | None:
        """The rank of the best of some words among all others, those of the same score before it; None without a known one."""


class ByWeight:
    """The words of a vector; those that it hasn't have the score 0."""

    def __init__(self, vector: SparseVector, vocabulary: Collection[str]) -> None:
        """The weights.

        Args:
            vector: Of an image.
            vocabulary: All words that a vector can have.
        """
        self._weights, self._vocabulary = vector.to_dict(), vocabulary
        self._weights_N = np.array(vector.weights)

    def rank(self, own: Collection[str]) -> int | None:
        """See `Ranking`."""
        known = [word for word in own if word in self._vocabulary]
        if not known:
            return None
        weights = [self._weights.get(word, 0.0) for word in known]
        best = max(weights)
        if not best:
            return len(self._vocabulary) - len(known) + 1
        return int(np.count_nonzero(self._weights_N >= best)) - sum(weight >= best for weight in weights) + 1


class ByCosine:
    """Dense vectors of all words against that of an image."""

    def __init__(self, scores_V: Doubles, places: dict[str, int]) -> None:
        """The scores of the words, and the place of each among them."""
        self._scores_V, self._places = scores_V, places

    def rank(self, own: Collection[str]) -> int | None:
        """See `Ranking`."""
        known = [self._places[word] for word in own if word in self._places]
        if not known:
            return None
        mine = self._scores_V[known]
        best = mine.max()
        return int(np.count_nonzero(self._scores_V >= best) - np.count_nonzero(mine >= best)) + 1


def by_cosine(images_ND: Floats, words: Sequence[str], words_VD: Floats) -> Iterator[ByCosine]:
    """The rankings of images by dense vectors, one after another."""
    places = {word: place for place, word in enumerate(words)}
    wide_VD = words_VD.astype(np.float64)
    for image_D in images_ND.astype(np.float64):
        yield ByCosine(wide_VD @ image_D, places)


@dataclass(frozen=True, kw_only=True)
class Found:
    """Shares of the images, 0..1."""

    images: int
    unknown: int
    """Images of which no word is in the vocabulary: never found."""
    at: dict[int, float]
    """Cut -> images with one of their own words among so many."""
    chance: dict[int, float] | None
    """The same for the words of other images, drawn; None where all images have the same words."""


def found(rankings: Iterator[Ranking], own: Sequence[Collection[str]]) -> Found:
    """How often an image's own words are among its first, and those of others.

    Args:
        rankings: One an image.
        own: For each image what should be found.
    """
    others = strangers(own)
    hits: list[int | None] = []
    misses: list[int | None] = []
    for image, ranking in enumerate(rankings):
        hits.append(ranking.rank(own[image]))
        misses += [ranking.rank(own[other]) for other in others[image]]
    return Found(images=len(hits), unknown=hits.count(None), at=_shares(hits), chance=_shares(misses) if misses else None)


def strangers(own: Sequence[Collection[str]]) -> list[list[int]]:
    """For each image some others, drawn, that should be found by other words."""
    rng = np.random.default_rng(0)
    rounds = [rng.permutation(len(own)).tolist() for _ in range(_ROUNDS)]
    sets = [frozenset(words) for words in own]
    return [[each[image] for each in rounds if sets[each[image]] != sets[image]] for image in range(len(own))]


def _shares(ranks: Sequence[int | None]) -> dict[int, float]:
    return {cut: fmean(rank is not None and rank <= cut for rank in ranks) for cut in CUTS}


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

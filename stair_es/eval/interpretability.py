"""Interpretability of tokens: whether an image's top tokens, of the whole vocabulary, are the words people use for it.

The protocol follows STAIR (Chen et al., 2023): every token of the vocabulary is scored for an image (by its weight, or by the
cosine with the token's dense vector), a class by the best of its tokens, and it is found at k if fewer than k other tokens have
at least that score. Captions are judged in the same way, by the best of their words, without stop words.

Shape suffixes: N images, V tokens of the vocabulary.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import Any

import numpy as np

from stair_es.errors import ConfigError
from stair_es.eval.bag_of_words import tokenize_words
from stair_es.eval.datasets.captions import CaptionDataset
from stair_es.eval.datasets.image_folder import LabeledDataset
from stair_es.eval.encode import encode_images, encode_texts
from stair_es.eval.metrics import DenseIndex, Doubles
from stair_es.eval.models import EvaluatedModel, LabelSpace, choose_label_space, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.model.vocabularies.readable import CONTINUATION_PREFIX
from stair_es.sources.base import Locator
from stair_es.types import Floats, PartProgressCallback, SparseVector

TOKEN_CUTS = (1, 5, 20, 100)
_ROUNDS = 10


def rank_best_token(scores_V: Doubles, positions: Sequence[int]) -> int | None:
    """Return the best rank of some tokens of the vocabulary among all others, which win ties; None for no tokens."""
    if not positions:
        return None
    target_scores = scores_V[list(positions)]
    best = target_scores.max()
    return int(np.count_nonzero(scores_V >= best) - np.count_nonzero(target_scores >= best)) + 1


@dataclass(frozen=True, kw_only=True)
class HitRates:
    """Hit rates over images, 0..1."""

    images: int
    unknown: int
    """Images without a token in the vocabulary, which are never found."""
    at: dict[int, float]
    """Cut -> fraction of images with an own token among the first `cut`."""
    chance: dict[int, float] | None
    """The same for sampled tokens of other images; None if all images have the same tokens."""


def compute_hit_rates(scores_NV: Iterable[Doubles], tokens: Sequence[str], targets: Sequence[Collection[str]]) -> HitRates:
    """Compute how often an image's own tokens are among its first, and those of other images for comparison.

    Args:
        scores_NV: Scores of all tokens, image by image.
        tokens: The tokens of the vocabulary.
        targets: The own tokens of each image; those that aren't in the vocabulary are ignored.
    """
    positions = {token: position for position, token in enumerate(tokens)}
    known = [[positions[token] for token in group if token in positions] for group in targets]
    negatives = sample_negatives(targets)
    ranks: list[int | None] = []
    negative_ranks: list[int | None] = []
    for image, scores_V in enumerate(scores_NV):
        ranks.append(rank_best_token(scores_V, known[image]))
        negative_ranks += [rank_best_token(scores_V, known[other]) for other in negatives[image]]
    return HitRates(
        images=len(ranks),
        unknown=ranks.count(None),
        at=_compute_shares(ranks),
        chance=_compute_shares(negative_ranks) if negative_ranks else None,
    )


def sample_negatives(targets: Sequence[Collection[str]]) -> list[list[int]]:
    """Sample for each image others that have different tokens."""
    rng = np.random.default_rng(0)
    permutations = [rng.permutation(len(targets)).tolist() for _ in range(_ROUNDS)]
    sets = [frozenset(tokens) for tokens in targets]
    return [[each[image] for each in permutations if sets[each[image]] != sets[image]] for image in range(len(targets))]


def _compute_shares(ranks: Sequence[int | None]) -> dict[int, float]:
    return {cut: fmean(rank is not None and rank <= cut for rank in ranks) for cut in TOKEN_CUTS}


_HEAD = ("vectors", "model", "vocabulary", *(f"top {cut}" for cut in TOKEN_CUTS), "chance at 20", "images")
_TIES = "In percent; other tokens win ties. Chance: the tokens of other images."


@dataclass(frozen=True, kw_only=True)
class InterpretabilityTask:
    """Images, and the texts that should be found for them."""

    name: str
    about: str
    protocol: str
    """Description of the measurement for readers."""
    images: tuple[str, ...]
    """Names of the images."""
    locators: tuple[Locator, ...]
    texts: tuple[tuple[str, ...], ...]
    """Per image: the names of its class, or its captions."""
    problems: tuple[str, ...] = ()


def build_class_task(labeled: LabeledDataset) -> InterpretabilityTask:
    """Build the task of finding the class of each image."""
    return InterpretabilityTask(
        name=labeled.name,
        about=labeled.describe_size(),
        protocol=f"Rank of an image's class among all tokens of the vocabulary, by the best of its tokens. {_TIES}",
        images=tuple(map(str, labeled.files)),
        locators=tuple(labeled.locators),
        texts=tuple(labeled.names[label] for label in labeled.labels),
    )


def build_caption_task(captions: CaptionDataset) -> InterpretabilityTask:
    """Build the task of finding a word of its captions for each image."""
    return InterpretabilityTask(
        name=captions.name,
        about=f"{len(captions.images)} images",
        protocol=f"Whether a word of an image's captions (without stop words) is among its first tokens. {_TIES}",
        images=tuple(image.name for image in captions.images),
        locators=tuple(image.locator for image in captions.images),
        texts=tuple(image.captions for image in captions.images),
        problems=captions.problems,
    )


@dataclass(frozen=True, kw_only=True)
class _Row:
    kind: str
    model: str
    vocabulary: int
    rates: HitRates

    def format_cells(self) -> tuple[str, ...]:
        chance = format_percent(self.rates.chance[20]) if self.rates.chance else "n/a"
        shares = map(format_percent, self.rates.at.values())
        return (self.kind, self.model, f"{self.vocabulary:,}", *shares, chance, str(self.rates.images))

    def to_dict(self) -> dict[str, Any]:
        return {"vectors": self.kind, "model": self.model, "vocabulary": self.vocabulary, **asdict(self.rates)}


def evaluate_interpretability(
    task: InterpretabilityTask,
    models: Sequence[EvaluatedModel],
    *,
    prompt: str = "{}",
    dense: bool = False,
    progress: PartProgressCallback,
) -> TableReport:
    """Measure how often the right tokens are among the first: by token weights, or by dense vectors for models without tokens.

    Args:
        task: Images, and what should be found for them.
        models: At least one. Models without a vocabulary use that of the first model that has one, else BERT's.
        prompt: Prompt in which tokens are encoded for dense vectors.
        dense: Whether to measure dense vectors of models with tokens, too; this encodes one text per token of the vocabulary.
        progress: Progress callback.

    Raises:
        UsageError: If no image is readable, or the prompt has no placeholder.
        ModelError: If the first model fails.
    """
    check_prompt(prompt)
    start = time.perf_counter()
    shared_space = choose_label_space(models)
    problems = list(task.problems)

    def measure_model(model: EvaluatedModel) -> list[_Row]:
        readable = encode_images(task.locators, model, progress, dense=dense or not model.has_tokens)
        problems.extend(f"{task.images[position]}: {reason}" for position, reason in readable.problems.items())
        texts = [task.texts[position] for position in readable.kept]
        rows = []
        if readable.vectors.sparse is not None:
            space = _build_own_space(model, readable.vectors.sparse, texts)
            rows.append(_build_row("tokens", model, space, spread_weights(readable.vectors.sparse, space.tokens), texts))
        if readable.vectors.dense is not None:
            scores_NV = score_vocabulary(readable.vectors.dense, shared_space.tokens, model, prompt, progress)
            rows.append(_build_row("dense", model, shared_space, scores_NV, texts))
        return rows

    rows = run_for_each_model(models, measure_model, problems)
    return TableReport(
        title=f"{task.name}: {task.about}",
        about=task.protocol,
        tables=(ReportTable(head=_HEAD, rows=tuple(row.format_cells() for row in rows)),),
        values={"dataset": task.name, "prompt": prompt, "rows": [row.to_dict() for row in rows]},
        remarks=tuple(
            f"{row.kind} of {row.model}: {row.rates.unknown} images have no token in the vocabulary, and are never found"
            for row in rows
            if row.rates.unknown
        ),
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def check_prompt(prompt: str) -> None:
    """Check that a prompt has a place for the word.

    Raises:
        ConfigError: If it hasn't.
    """
    if "{}" not in prompt:
        raise ConfigError(
            f"the prompt {prompt!r} has no placeholder for the word", "Write {} where the word goes: a photo of a {}."
        )


def score_vocabulary(
    images_ND: Floats, tokens: Sequence[str], model: EvaluatedModel, prompt: str, progress: PartProgressCallback
) -> Iterator[Doubles]:
    """Yield the cosines [V] of all tokens, encoded in a prompt, with the dense vector of each image; none if no text has one."""
    texts = [prompt.replace("{}", strip_wordpiece_prefix(token)) for token in tokens]
    vectors_VD = encode_texts(texts, model, lambda _, *counts: progress("vocabulary", *counts), tokens=False).dense
    if vectors_VD is not None:
        yield from map(DenseIndex(vectors_VD).compute_scores, images_ND)


def strip_wordpiece_prefix(token: str) -> str:
    """Return a token without the prefix of word pieces, the only marker that adapters keep."""
    return token.removeprefix(CONTINUATION_PREFIX) or token


def _build_row(
    kind: str, model: EvaluatedModel, space: LabelSpace, scores_NV: Iterable[Doubles], texts: Sequence[Sequence[str]]
) -> _Row:
    targets: dict[tuple[str, ...], tuple[str, ...]] = {}
    for group in map(tuple, texts):
        if group not in targets:
            targets[group] = tuple(dict.fromkeys(token for text in group for token in _tokenize_text(text, space)))
    return _Row(
        kind=kind,
        model=model.label,
        vocabulary=len(space.tokens),
        rates=compute_hit_rates(scores_NV, space.tokens, [targets[tuple(group)] for group in texts]),
    )


def _tokenize_text(text: str, space: LabelSpace) -> Collection[str]:
    """Return the tokens of a text without stop words, or with them if there are no others (a class called `can`)."""
    return tokenize_words(text, space.split_word) or space.split_word(text)


def _build_own_space(model: EvaluatedModel, vectors: Sequence[SparseVector], texts: Sequence[Sequence[str]]) -> LabelSpace:
    """Return the model's vocabulary, or the tokens that occur if the model doesn't list it."""
    tokens = model.tokens
    if tokens is None:
        text_tokens = {token for group in texts for text in group for token in tokenize_words(text, model.split_word)}
        tokens = tuple(sorted(text_tokens.union(*(vector.tokens for vector in vectors))))
    return LabelSpace(tokens=tokens, split_word=model.split_word)


def spread_weights(vectors: Sequence[SparseVector], tokens: Sequence[str]) -> Iterator[Doubles]:
    """Yield the weights [V] of all tokens of the vocabulary, image by image; a token that the vector lacks has 0."""
    positions = {token: position for position, token in enumerate(tokens)}
    for vector in vectors:
        weights_V = np.zeros(len(tokens))
        known = [(positions[token], weight) for token, weight in vector if token in positions]
        weights_V[[position for position, _ in known]] = [weight for _, weight in known]
        yield weights_V

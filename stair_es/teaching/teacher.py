"""Teach words to an index: find the marked images, fit the word to their stored tokens, and preview it. Changes nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stair_es.errors import ReadError, UsageError
from stair_es.inspection.stored_document import (
    StoredImage,
    find_stored_by_content,
    find_stored_image,
    get_stored_images,
    parse_stored_image,
)
from stair_es.model.taught_encoder import teach_encoder
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.search.options import SearchOptions
from stair_es.search.query import SearchQuery
from stair_es.sources.base import ReadLimits
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import find_file, to_file_uri
from stair_es.taught_words import MATCH_WEIGHT, TAUGHT_PREFIX, TaughtMode, TaughtWord, normalize_word
from stair_es.teaching.fit import FittedWord, fit_word
from stair_es.types import SparseVector

if TYPE_CHECKING:
    from pathlib import Path

    from stair_es.cluster.client.cluster import Cluster
    from stair_es.model.base import Encoder
    from stair_es.search.index_cache import SearchTarget
    from stair_es.search.index_info import IndexInfo
    from stair_es.search.searcher import QueryRunner

MIN_MARKS, MAX_MARKS = 3, 20
"""Number of images that must show a word; maximum number of images that do, and of those that don't."""
PREVIEW_HITS = 50
_SAMPLE_SIZE = 1000
_SAMPLE_SEED = 39
_SAMPLE_FIELDS = ["uri", "tokens", "policy_undo"]


@dataclass(frozen=True, kw_only=True)
class PreviewHit:
    """An image that would get a word."""

    image: StoredImage
    weight: float

    @property
    def is_match(self) -> bool:
        """Whether it would be a match, not a weak one."""
        return self.weight >= MATCH_WEIGHT


@dataclass(frozen=True, kw_only=True)
class Lesson:
    """A word as it would be taught, and what it was taught from."""

    word: TaughtWord
    fitted: FittedWord
    yes: tuple[StoredImage, ...]
    no: tuple[StoredImage, ...]
    erased: int
    """Number of former marks that are no longer in the index."""
    images: int
    """Number of images of the index."""
    sampled: int
    """Number of images that the estimates come from."""
    match_share: float
    """Share of the sample that would match."""
    token_share: float
    """Share of the sample that would get the word at all."""


class Teacher:
    """Teaches words to one index. Read-only: `PolicyManager.change_words` applies what it returns."""

    def __init__(self, cluster: Cluster, index: str, info: IndexInfo, load_encoder: Callable[[], Encoder]) -> None:
        """Set the index and its metadata. `load_encoder` loads the encoder of its model, when a word is taught."""
        self._cluster, self._index, self._info = cluster, index, info
        self._load_encoder = load_encoder
        self._names: dict[str, str] = {}
        """Id -> how the user named the image, for messages."""

    @cached_property
    def _encoder(self) -> Encoder:
        return teach_encoder(self._load_encoder(), {})

    @property
    def taught_words(self) -> Mapping[str, TaughtWord]:
        """The words that the index was taught."""
        return self._info.taught_words

    def find_marks(self, references: Iterable[str]) -> list[str]:
        """Find the ids of images by path, URI or id, each once. A file may have moved: the same bytes suffice.

        Raises:
            UsageError: If one isn't in the index, or if there are more than can be marks.
        """
        references = list(references)
        if len(references) > MAX_MARKS:
            raise UsageError(
                f"{len(references)} images are marked; at most {MAX_MARKS} of each kind can be",
                "Mark the most typical ones.",
                code="too-many-marks",
            )
        return list(dict.fromkeys(self._find_mark(reference) for reference in references))

    def _find_mark(self, reference: str) -> str:
        file = find_file(reference)
        image = find_stored_image(self._cluster, self._index, to_file_uri(file) if file else reference)
        if image is None and file:
            image = find_stored_by_content(self._cluster, self._index, _hash_file(file))
        if image is None:
            raise UsageError(
                f"{reference!r} is not in the index {self._index!r}",
                "A word is taught from images of the index: ingest it first, or give the URI or id that `search` prints.",
                code="mark-not-in-index",
            )
        self._names[image.id] = reference
        return image.id

    def teach(
        self,
        word: str,
        yes: Sequence[str],
        no: Sequence[str] = (),
        *,
        mode: TaughtMode | None = None,
        former: TaughtWord | None = None,
    ) -> Lesson:
        """Fit a word to the stored tokens of marked images.

        Args:
            word: The word or phrase.
            yes: Ids of images that show it.
            no: Ids of images that don't.
            mode: Whether it replaces what the model makes of the word, or adds to it; by default what ranks the marks higher.
            former: The word as it was taught before: its marks count as well, unless they are marked otherwise now.

        Raises:
            UsageError: If there are too few or too many marks, they contradict each other, or have nothing in common.
        """
        name = self._check_word(word)
        self._check_contradictions(yes, no)
        if former is not None:
            yes = [*yes, *(id_ for id_ in former.yes if id_ not in {*yes, *no})]
            no = [*no, *(id_ for id_ in former.no if id_ not in {*yes, *no})]
        found = get_stored_images(self._cluster, self._index, [*yes, *no])
        yes_images, no_images = ([found[id_] for id_ in ids if id_ in found] for ids in (yes, no))
        _check_counts(yes_images, no_images)
        _check_copies(yes_images, no_images)
        sample, count = self._draw_sample(found)
        marked = {_restore(image) for image in found.values()}
        vectors = [vector for vector in map(_restore, sample) if vector not in marked]  # copies of marks tell nothing
        text = self._encoder.encode_texts([name])[0]
        fitted = fit_word([_restore(image) for image in yes_images], [_restore(image) for image in no_images], vectors, text)
        taught = TaughtWord(
            word=name,
            tokens=fitted.tokens,
            floor=fitted.floor,
            full=fitted.full,
            mode=mode or (former and former.mode) or fitted.mode,
            model=self._info.model,
            yes=tuple(image.id for image in yes_images),
            no=tuple(image.id for image in no_images),
            taught_at=datetime.now(UTC).isoformat(timespec="seconds"),
            precision=fitted.precision,
        )
        weights = [taught.compute_weight(vector) for vector in vectors]
        return Lesson(
            word=taught,
            fitted=fitted,
            yes=tuple(yes_images),
            no=tuple(no_images),
            erased=len({*yes, *no}) - len(found),
            images=count,
            sampled=len(sample),
            match_share=sum(weight >= MATCH_WEIGHT for weight in weights) / max(len(weights), 1),
            token_share=sum(weight > 0 for weight in weights) / max(len(weights), 1),
        )

    def _check_word(self, word: str) -> str:
        name = normalize_word(word)
        if load_stop_words().issuperset(name.split(" ")):
            raise UsageError(f"{word!r} has stop words only", "Teach another word.", code="not-a-teachable-word")
        if TAUGHT_PREFIX + name in self._encoder.tokens:
            problem = f"{TAUGHT_PREFIX}{name} is a token of the model {self._info.model}"
            raise UsageError(problem, "Teach another word.", code="not-a-teachable-word")
        return name

    def _check_contradictions(self, yes: Sequence[str], no: Sequence[str]) -> None:
        both = [id_ for id_ in yes if id_ in no]
        if both:
            raise UsageError(
                f"{self._names.get(both[0], both[0])!r} is marked as both: it shows the word, and it doesn't",
                "Mark it once.",
                code="contradicting-marks",
            )

    def _draw_sample(self, marked: Collection[str]) -> tuple[list[StoredImage], int]:
        """Draw a sample of the images that aren't marked; also returns the number of all images."""
        others = {"bool": {"must_not": [{"ids": {"values": list(marked)}}]}}
        query = {"function_score": {"query": others, "random_score": {"seed": _SAMPLE_SEED, "field": "uri"}}}
        body = {"size": _SAMPLE_SIZE, "query": query, "_source": _SAMPLE_FIELDS, "track_total_hits": True}
        hits = self._cluster.search(self._index, body)["hits"]
        return [parse_stored_image(hit) for hit in hits["hits"]], int(hits["total"]["value"]) + len(marked)

    def preview(self, word: TaughtWord, runner: QueryRunner, target: SearchTarget, k: int = PREVIEW_HITS) -> list[PreviewHit]:
        """Return the images that a word would find, best first, by the tokens that it was taught from."""
        query = SearchQuery(vector=word.vector)
        result = runner.search(target, query, k, None, SearchOptions(fold_duplicates=False))
        images = get_stored_images(self._cluster, self._index, [hit.id for hit in result.hits])
        hits = [PreviewHit(image=image, weight=word.compute_weight(_restore(image))) for image in images.values()]
        return sorted((hit for hit in hits if hit.weight), key=lambda hit: -hit.weight)

    def count_erased(self, words: Mapping[str, TaughtWord]) -> dict[str, int]:
        """Count the marks of words that are no longer in the index."""
        ids = sorted({id_ for word in words.values() for id_ in (*word.yes, *word.no)})
        found = self._find_existing(ids)
        return {name: len({*word.yes, *word.no} - found) for name, word in words.items()}

    def _find_existing(self, ids: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(ids), _SAMPLE_SIZE):
            part = ids[start : start + _SAMPLE_SIZE]
            body: dict[str, Any] = {"size": _SAMPLE_SIZE, "query": {"ids": {"values": part}}, "_source": False}
            found |= {hit["_id"] for hit in self._cluster.search(self._index, body)["hits"]["hits"]}
        return found


def _restore(image: StoredImage) -> SparseVector:
    """Return the vector that the model gave an image: words are taught from it, not from other taught words."""
    return image.undo.restore(image.vector)


def _hash_file(file: Path) -> str:
    try:
        read = FileLocator(to_file_uri(file)).read(ReadLimits())
    except ReadError as error:
        raise UsageError(f"{str(file)!r}: {error.message}", code=error.code) from error
    return hashlib.sha256(read.data if read else b"").hexdigest()


def _check_counts(yes: Sequence[StoredImage], no: Sequence[StoredImage]) -> None:
    if len(yes) < MIN_MARKS:
        raise UsageError(
            f"{len(yes)} images show it; at least {MIN_MARKS} must",
            "Mark more of them.",
            code="too-few-marks",
        )
    if max(len(yes), len(no)) > MAX_MARKS:
        raise UsageError(
            f"{len(yes)} images show it and {len(no)} don't; at most {MAX_MARKS} of each can be marked",
            "Mark the most typical ones.",
            code="too-many-marks",
        )


def _check_copies(yes: Sequence[StoredImage], no: Sequence[StoredImage]) -> None:
    """Raise UsageError if an image that shows the word has the same tokens as one that doesn't."""
    for image in yes:
        for other in no:
            if _restore(image) == _restore(other):
                raise UsageError(
                    f"{image.uri or image.id} shows it and {other.uri or other.id} doesn't, but both have the same tokens",
                    "Leave one of them out: nothing tells them apart.",
                    code="contradicting-marks",
                )

"""Teach the index of the page words from marked images: preview one, apply it, list them, take one back.

Its methods block. Those that change the index run one at a time.
"""

from __future__ import annotations

import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Annotated, Any

import orjson
from msgspec import Meta, Struct

from stair_es.cluster.policy.manager import PolicyManager
from stair_es.cluster.policy.update_by_query import UpdateLimits
from stair_es.errors import ResourceError, StairError, UsageError
from stair_es.feature_names import escape_feature
from stair_es.model.taught_encoder import teach_encoder
from stair_es.search.query import EMPTY_VECTOR
from stair_es.search.results import Hit, TokenContribution
from stair_es.taught_words import TaughtMode, TaughtWord, normalize_word
from stair_es.teaching.teacher import MAX_MARKS, MIN_MARKS, Lesson, PreviewHit, Teacher
from stair_es.types import SparseVector
from stair_es.web.errors import RequestRejected
from stair_es.web.request_body import parse_struct
from stair_es.web.search import serializers
from stair_es.web.search.params import MAX_ID_CHARS

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.search.index_cache import IndexCache, IndexState
    from stair_es.web.limits import ConcurrencyLimiter
    from stair_es.web.search.service import SearchService

_MAX_TYPED_CHARS = 200
"""More than a word that can be taught has: spaces around it don't count."""
_TypedWord = Annotated[str, Meta(max_length=_MAX_TYPED_CHARS)]
_Ids = Annotated[tuple[Annotated[str, Meta(max_length=MAX_ID_CHARS)], ...], Meta(max_length=MAX_MARKS)]
_REMEDIES = {
    "": f'Send an object, such as {{"word": "windmill", "yes": [ids of at least {MIN_MARKS} images]}}.',
    "yes": f"Mark the {MAX_MARKS} most typical images.",
    "no": f"Mark the {MAX_MARKS} most typical images.",
}


class TeachParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A word, and the images that it is taught from."""

    word: _TypedWord
    yes: _Ids
    """Ids of images that show it."""
    no: _Ids = ()
    """Ids of images that don't."""
    mode: TaughtMode | None = None
    """Whether it replaces what the model makes of the word; by default what ranks the marked images higher."""


class ForgetParams(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A word to take back."""

    word: _TypedWord


def parse_teach_params(body: bytes) -> TeachParams:
    """Parse the body of a request that teaches a word, or previews it."""
    return parse_struct(body, TeachParams, _REMEDIES, orjson.loads, 400)


def parse_forget_params(body: bytes) -> ForgetParams:
    """Parse the body of a request that takes a word back."""
    return parse_struct(body, ForgetParams, {"": 'Send an object, such as {"word": "windmill"}.'}, orjson.loads, 400)


class TeachingService:
    """Teaches words to the index of the page. Thread safe."""

    def __init__(
        self,
        index: str,
        cluster: Cluster,
        states: IndexCache[IndexState],
        search: SearchService,
        limiter: ConcurrencyLimiter,
    ) -> None:
        self._index, self._cluster, self._states, self._search, self._limiter = index, cluster, states, search, limiter
        self._turn = threading.Lock()

    def list_words(self) -> dict[str, Any]:
        """List the taught words with their marks."""
        teacher = self._create_teacher(self._states.get())
        erased = teacher.count_erased(teacher.taught_words)
        return {"words": [{**serialize_word(word), "erased": erased[name]} for name, word in teacher.taught_words.items()]}

    def preview(self, params: TeachParams) -> dict[str, Any]:
        """Fit a word, and find the images that it would match. Changes nothing."""
        state = self._states.get()
        teacher = self._create_teacher(state)
        with _reject_mistakes():
            lesson = self._teach(teacher, params)
            found = teacher.preview(lesson.word, self._search.runner, state)
        hits = [build_preview_hit(each, lesson.word) for each in found]
        unknown = teach_encoder(state.encoder, {}).list_unknown_words(lesson.word.word)
        return {
            **serialize_lesson(lesson),
            "known": not unknown,
            "taught": lesson.word.word in teacher.taught_words,
            "hits": self._search.serialize_hits(state, hits, "words", EMPTY_VECTOR),
        }

    def apply(self, params: TeachParams) -> dict[str, Any]:
        """Teach a word: every image of the index that has it gets its token."""
        with self._hold_turn(), _reject_mistakes():
            lesson = self._teach(self._create_teacher(self._states.get()), params)
            return {**serialize_lesson(lesson), **self._change_words({lesson.word.word: lesson.word})}

    def forget(self, params: ForgetParams) -> dict[str, Any]:
        """Take a word back: images lose its token, and queries mean again what the model makes of it."""
        with self._hold_turn(), _reject_mistakes():
            word = normalize_word(params.word)
            return {"word": word, **self._change_words({}, [word])}

    def _create_teacher(self, state: IndexState) -> Teacher:
        return Teacher(self._cluster, self._index, state.info, lambda: state.encoder)

    def _teach(self, teacher: Teacher, params: TeachParams) -> Lesson:
        with self._limiter():
            return teacher.teach(params.word, tuple(dict.fromkeys(params.yes)), tuple(dict.fromkeys(params.no)), mode=params.mode)

    def _change_words(self, taught: Mapping[str, TaughtWord], forgotten: Collection[str] = ()) -> dict[str, Any]:
        """Change the words of the index, and let the next search know them."""
        try:
            manager = PolicyManager(self._cluster, self._index)
            results = manager.change_words(taught, forgotten, UpdateLimits(), lambda _: None).values()
        finally:
            self._search.runner.forget_answers()
            with suppress(StairError):  # the error of the change is more informative
                self._states.refresh(self._states.get())
        failed = [reason for result in results for reason in result.failed.values()]
        return {
            "changed": sum(result.changed for result in results),
            "failed": len(failed),
            "failure": failed[0] if failed else None,
        }

    @contextmanager
    def _hold_turn(self) -> Iterator[None]:
        if not self._turn.acquire(blocking=False):
            raise RequestRejected(
                409, "another word is being taught or taken back", "Wait until that is done.", code="teaching-in-progress"
            )
        try:
            yield
        finally:
            self._turn.release()


@contextmanager
def _reject_mistakes() -> Iterator[None]:
    """Reject a request whose word or marks can't be used; on the command line, it would be a wrong option."""
    try:
        yield
    except (UsageError, ResourceError) as error:
        raise RequestRejected(400, error.message, error.remedy, code=error.code) from None


def build_preview_hit(found: PreviewHit, word: TaughtWord) -> Hit:
    """Build the hit of an image that would get a word: its score is the weight, next to the words that it comes from."""
    image = found.image
    vector = image.undo.restore(image.vector)
    contributions = [
        TokenContribution(token=token, query_weight=share, document_weight=weight, contribution=share * weight)
        for token, weight in vector
        if (share := word.tokens.get(token))
    ]
    return Hit(
        id=image.id,
        uri=image.uri,
        index=image.index,
        score=found.weight,
        weak=not found.is_match,
        contributions=tuple(sorted(contributions, key=lambda each: -each.contribution)),
        source={**image.source, "tokens": {escape_feature(token): weight for token, weight in vector}},
    )


def serialize_word(word: TaughtWord) -> dict[str, Any]:
    """Serialize a taught word with its marks."""
    return {
        "word": word.word,
        "mode": word.mode,
        "tokens": serializers.serialize_vector(SparseVector.from_mapping(word.tokens)),
        "precision": word.precision,
        "taught_at": word.taught_at,
        "yes": list(word.yes),
        "no": list(word.no),
    }


def serialize_lesson(lesson: Lesson) -> dict[str, Any]:
    """Serialize a word as it would be taught, with what is estimated of it."""
    fitted, marked = lesson.fitted, len(lesson.yes) + len(lesson.no)
    matching_marks = len(lesson.yes) - len(fitted.doubtful_yes) + len(fitted.matching_no)
    return {
        **serialize_word(lesson.word),
        "found_again": fitted.found_again,
        "doubtful_yes": [lesson.yes[place].id for place in fitted.doubtful_yes],
        "matching_no": [lesson.no[place].id for place in fitted.matching_no],
        "erased": lesson.erased,
        "images": lesson.images,
        "sampled": lesson.sampled,
        "matches": round(lesson.match_share * (lesson.images - marked)) + matching_marks,
    }

"""Coverage of a log of searches: what share of them an index answers, and which words it or its model lacks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

from stair_es._itertools import batched
from stair_es.errors import QueryError
from stair_es.eval.search_log import MAX_LOG_LINES, SearchLog
from stair_es.eval.tables import ReportTable, TableReport, format_percent, shorten_cell
from stair_es.model.vocabularies.unknown_words import UnknownWord, find_unknown_words
from stair_es.search.dsl.query_inputs import QueryInputs
from stair_es.search.dsl.query_words import list_word_tokens
from stair_es.search.options import SearchOptions
from stair_es.search.query import TokenGroup
from stair_es.search.query_encoder import build_search_query, encode_any_text

if TYPE_CHECKING:
    from stair_es.model.base import Encoder
    from stair_es.search.results import Hit
    from stair_es.search.searcher import Searcher
    from stair_es.types import PartProgressCallback, SparseVector

AnswerKind: TypeAlias = Literal["match", "only_weak", "nothing", "no_known_word", "error"]
WordGap: TypeAlias = Literal["unknown", "not_carried", "only_weak"]
"""What a word lacks: the model doesn't know it, no image carries it, or none of its searches has a match."""
_ANSWERS: Mapping[AnswerKind, str] = {
    "match": "a match",
    "only_weak": "only weak matches",
    "nothing": "no hit",
    "no_known_word": "no known word",
    "error": "an error",
}
_GAPS: Mapping[WordGap, str] = {
    "unknown": "Words that the model doesn't know",
    "not_carried": "Words that no image carries",
    "only_weak": "Other words without a match",
}
_INDEX_ERRORS = frozenset({"index-not-found", "other-model", "no-such-caption-field"})
"""Codes of errors that are about the index rather than one query."""
_HITS = 10
"""Hits that are looked at: a first page."""
_OPTIONS = SearchOptions(fold_duplicates=True)
_THREADS, _BATCH = 4, 256
_ENCODING = Lock()
_ResultT = TypeVar("_ResultT")


@dataclass(frozen=True, kw_only=True)
class SearchAnswer:
    """What a query finds."""

    kind: AnswerKind
    code: str = ""
    """The code of the error, if there was one."""
    unknown_words: Sequence[UnknownWord] = ()
    words: Mapping[str, TokenGroup] = field(default_factory=dict)
    """The known words with their tokens."""


@dataclass(kw_only=True)
class WordTraffic:
    """The searches with a word."""

    word: str
    unknown: UnknownWord | None = None
    """The word, if the model doesn't know it."""
    largest_weight: float | None = None
    """The largest weight of its tokens in the index; None for an unknown word, and if it can't be asked."""
    searches: int = 0
    matched: int = 0
    """Searches that have a match."""
    unexplained: int = 0
    """Searches without a match in which the model knows each word, and images carry it."""
    example: str = ""
    """The most frequent search; if there are any without a match, of those."""


@dataclass(frozen=True, kw_only=True)
class SearchCoverage:
    """The coverage of a log."""

    log: SearchLog
    answers: Mapping[str, SearchAnswer]
    """Query -> what it finds."""
    words: Mapping[WordGap, Sequence[WordTraffic]]
    """Words that lack something, those with the most searches first."""


def measure_coverage(
    log: SearchLog, encoder: Encoder, searcher: Searcher, inputs: QueryInputs, progress: PartProgressCallback
) -> SearchCoverage:
    """Search for each query of a log once, and ask once for each of its words whether images carry it.

    Args:
        log: The log.
        encoder: The encoder of the index.
        searcher: The searcher of the index.
        inputs: How a query is read; each becomes its `query_string`.
        progress: Is called after each query and each word.

    Raises:
        QueryError: If the index can't be searched with this encoder or these inputs.
        ClusterError: If the cluster can't be searched.
    """
    answers = dict(
        _run_in_threads(partial(answer_search, encoder, searcher, inputs), log.searches, partial(progress, "searches"))
    )
    words = {word: tokens for answer in answers.values() for word, tokens in answer.words.items()}
    weights = _run_in_threads(lambda word: searcher.find_largest_weight(words[word], _OPTIONS), words, partial(progress, "words"))
    thresholds = encoder.match_thresholds
    return compute_coverage(log, answers, dict(weights), min_weight=thresholds.carried_weight if thresholds else 0.0)


def answer_search(encoder: Encoder, searcher: Searcher, inputs: QueryInputs, query_string: str) -> SearchAnswer:
    """Search as `stair-es search` does, and look at the first page."""
    inputs, fields = replace(inputs, query_string=query_string), searcher.list_search_fields(inputs.price_field)
    unknown_words: Sequence[UnknownWord] = ()
    words: dict[str, TokenGroup] = {}
    try:
        text = inputs.understand(encoder, fields).text
        unknown_words = find_unknown_words(encoder, text)
        unknown = {each.word for each in unknown_words}
        words = {word: group for word, group in list_word_tokens(encoder, text).items() if group and word not in unknown}
        query = build_search_query(encoder, inputs, fields=fields, encode_text=_encode_alone)
        hits = searcher.search(query, _HITS, options=_OPTIONS).hits
    except QueryError as error:
        if error.code in _INDEX_ERRORS:
            raise
        kind: AnswerKind = "no_known_word" if error.code == "no-known-word" else "error"
        return SearchAnswer(kind=kind, code=error.code, unknown_words=unknown_words, words=words)
    return SearchAnswer(kind=_choose_kind(hits, words), unknown_words=unknown_words, words=words)


def _encode_alone(encoder: Encoder, text: str) -> SparseVector:
    """Encode a text while no other thread does: the threads of BLAS would take each other's time."""
    with _ENCODING:
        return encode_any_text(encoder, text)


def _choose_kind(hits: Sequence[Hit], known_words: Collection[str]) -> AnswerKind:
    if any(not hit.weak for hit in hits):
        return "match"
    if hits:
        return "only_weak"
    return "nothing" if known_words else "no_known_word"  # which isn't an error where captions are searched


def _run_in_threads(
    function: Callable[[str], _ResultT], texts: Mapping[str, object], progress: Callable[[int, int], None]
) -> Iterator[tuple[str, _ResultT]]:
    """Yield each text with the result of a function."""
    done = 0
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="searches") as pool:
        for batch in batched(texts, _BATCH):  # few wait in the pool if one fails
            for text, result in zip(batch, pool.map(function, batch), strict=True):
                done += 1
                progress(done, len(texts))
                yield text, result


def compute_coverage(
    log: SearchLog, answers: Mapping[str, SearchAnswer], weights: Mapping[str, float | None], *, min_weight: float
) -> SearchCoverage:
    """Count the searches with each word that lacks something. Pure.

    Args:
        log: The log.
        answers: What each query finds.
        weights: Known word -> the largest weight of its tokens in the index; None if it can't be asked.
        min_weight: The weight from which an image carries a word; 0 for any.
    """
    not_carried = {word for word, weight in weights.items() if weight is not None and (weight == 0 or weight < min_weight)}
    words: dict[str, WordTraffic] = {}
    for query, searches in log.searches.items():
        answer = answers[query]
        has_gap = not all(each.searched_for for each in answer.unknown_words) or not not_carried.isdisjoint(answer.words)
        found = [WordTraffic(word=each.word, unknown=each) for each in answer.unknown_words]
        found += [WordTraffic(word=word, largest_weight=weights[word]) for word in answer.words]
        for new in found:
            each = words.setdefault(new.word, new)
            is_matched = answer.kind == "match"
            if each.matched == each.searches and not (each.example and is_matched):
                each.example = query
            each.searches += searches
            each.matched += searches * is_matched
            each.unexplained += searches * (answer.kind in ("only_weak", "nothing") and not has_gap)
    by_gap: dict[WordGap, list[WordTraffic]] = {gap: [] for gap in _GAPS}
    for each in sorted(words.values(), key=lambda each: (-each.searches, each.word)):
        gap = _find_gap(each, not_carried)
        if gap is not None:
            by_gap[gap].append(each)
    return SearchCoverage(log=log, answers=answers, words=by_gap)


def _find_gap(each: WordTraffic, not_carried: Collection[str]) -> WordGap | None:
    if each.unknown is not None:
        return "unknown"
    if each.word in not_carried:
        return "not_carried"
    return "only_weak" if each.unexplained and not each.matched else None


def build_coverage_report(
    coverage: SearchCoverage, *, index: str, model_id: str, top: int, has_weak: bool, seconds: float
) -> TableReport:
    """Build the report. Pure.

    Args:
        coverage: The coverage.
        index: The name of the index.
        model_id: The model of the queries.
        top: Number of words in each table.
        has_weak: Whether weak matches can be told from others.
        seconds: How long the searches took.
    """
    log = coverage.log
    total = sum(log.searches.values())
    words = [_build_word_table(gap, found, total, top) for gap, found in coverage.words.items() if found]
    return TableReport(
        title=f"{index}: {total:,} searches, {len(log.searches):,} different",
        about=f"Model {model_id}; the first {_HITS} hits of each search. Shares of all searches in percent.",
        tables=(_build_answer_table(coverage, total), *words),
        values={"index": index, "model": model_id, **_build_values(coverage, total)},
        remarks=_list_remarks(coverage, has_weak=has_weak),
        seconds=seconds,
    )


def _count_answers(coverage: SearchCoverage) -> tuple[Counter[AnswerKind], Counter[AnswerKind], Counter[str]]:
    """Count the searches and the different queries by what they find, and the searches by the code of their error."""
    searches, queries, errors = Counter[AnswerKind](), Counter[AnswerKind](), Counter[str]()
    for query, count in coverage.log.searches.items():
        answer = coverage.answers[query]
        searches[answer.kind] += count
        queries[answer.kind] += 1
        if answer.kind == "error":
            errors[answer.code] += count
    return searches, queries, errors


def _build_answer_table(coverage: SearchCoverage, total: int) -> ReportTable:
    searches, queries, _ = _count_answers(coverage)
    return ReportTable(
        head=("searches with", "share", "searches", "different"),
        rows=tuple(
            (label, format_percent(searches[kind] / total), f"{searches[kind]:,}", f"{queries[kind]:,}")
            for kind, label in _ANSWERS.items()
        ),
    )


def _build_word_table(gap: WordGap, words: Sequence[WordTraffic], total: int, top: int) -> ReportTable:
    shown = f" ({top:,} of {len(words):,}: --top, --json)" if len(words) > top else ""
    return ReportTable(
        heading=_GAPS[gap] + shown,
        head=("word", "share", "searches", "matched", "instead" if gap == "unknown" else "largest weight", "for example"),
        rows=tuple(
            (
                each.word,
                format_percent(each.searches / total),
                f"{each.searches:,}",
                f"{each.matched:,}",
                _describe_note(each),
                shorten_cell(each.example),
            )
            for each in words[:top]
        ),
    )


def _describe_note(each: WordTraffic) -> str:
    if each.unknown is None:
        return "" if each.largest_weight is None else f"{each.largest_weight:.2f}"
    suggestions = each.unknown.suggestions
    return each.unknown.searched_for or (f"{' or '.join(suggestions)}?" if suggestions else "")


def _build_values(coverage: SearchCoverage, total: int) -> dict[str, Any]:
    log = coverage.log
    searches, queries, errors = _count_answers(coverage)
    return {
        "searches": total,
        "queries": len(log.searches),
        "answers": {
            kind: {"searches": searches[kind], "share": searches[kind] / total, "queries": queries[kind]} for kind in _ANSWERS
        },
        "errors": dict(errors),
        "words": {gap: [_build_word(each, total) for each in words] for gap, words in coverage.words.items()},
        "without_match": [
            {"query": query, "searches": count, "answer": coverage.answers[query].kind, "code": coverage.answers[query].code}
            for query, count in log.searches.items()
            if coverage.answers[query].kind != "match"
        ],
        "skipped": dict(log.skipped),
        "left_out": log.left_out,
    }


def _build_word(each: WordTraffic, total: int) -> dict[str, Any]:
    return {
        "word": each.word,
        "searches": each.searches,
        "share": each.searches / total,
        "matched": each.matched,
        "example": each.example,
        "largest_weight": each.largest_weight,
        "suggestions": list(each.unknown.suggestions) if each.unknown else [],
        "searched_for": (each.unknown and each.unknown.searched_for) or None,
    }


def _list_remarks(coverage: SearchCoverage, *, has_weak: bool) -> tuple[str, ...]:
    log, errors = coverage.log, _count_answers(coverage)[2]
    remarks = [f"searches with the error {code}: {count:,}" for code, count in errors.most_common()]
    remarks += [f"lines skipped ({reason}): {count:,}" for reason, count in log.skipped.items()]
    if log.left_out:
        remarks.append(f"lines left out (beyond the first {MAX_LOG_LINES:,} different ones): {log.left_out:,}")
    if not has_weak:
        remarks.append("no hit is called weak: the threshold of the model isn't known, or the index has no images")
    return tuple(remarks)

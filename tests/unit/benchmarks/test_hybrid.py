"""The benchmark of words and text."""

from __future__ import annotations

from support.benchmarks import import_benchmark

from stair_es.model.vocabularies.unknown_words import UnknownWord
from stair_es.search.dsl.query_words import split_caption_words
from stair_es.search.query import SearchQuery

bench = import_benchmark("hybrid")


def test_the_row_of_the_default_measures_the_default() -> None:
    words = split_caption_words("nordlys dress", (), {"nordlys"}, lambda _: ())
    unknown_words = [UnknownWord(word="nordlys", suggestions=(), searched_for="")]
    query = SearchQuery(caption="nordlys dress", caption_words=words, unknown_words=unknown_words)
    weight, unknown_word_weight = bench.CHOSEN
    assert bench.share_weight(query, weight=weight, unknown_word_weight=unknown_word_weight) == query
    assert bench.share_weight(query, weight=weight, unknown_word_weight=1.0) != query

"""Folding of hits that show the same picture."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from stair_es.search.query import EMPTY_VECTOR
from stair_es.search.ranking import MAX_BITS, MAX_EXTRA_REQUESTS, collect_pictures, fold_duplicates, is_same_picture
from stair_es.search.results import Hit, SearchResult

HASH = 0x0F1E2D3C4B5A6978
BEACH = {"beach": 2.0, "sea": 1.5, "sand": 1.0}


def make_source(bits: int = 0, **fields: Any) -> dict[str, Any]:  # noqa: ANN401  fields of a document
    """A document whose hash differs in the lowest of each byte's bits, which is the worst case for the search of candidates."""
    value = HASH
    for place in range(bits):
        value ^= 1 << (8 * (place % 8) + place // 8)
    return {"perceptual_hash": f"{value:016x}", "width": 800, "height": 600, "tokens": BEACH, **fields}


def make_hit(name: str, **source: Any) -> Hit:  # noqa: ANN401
    return Hit(id=name, uri=f"file:///{name}", score=1.0, contributions=(), source=source, index="i", cursor=[1.0, name])


def list_groups(hits: tuple[Hit, ...]) -> list[list[str]]:
    return [[hit.id, *(copy.id for copy in hit.duplicates)] for hit in hits]


def test_the_same_bytes_are_one_hit_and_the_best_stays_first() -> None:
    hits = [make_hit(name, sha256=digest) for name, digest in zip("abcde", ["1", "2", "1", "3", "1"], strict=True)]
    assert list_groups(fold_duplicates(hits)) == [["a", "c", "e"], ["b"], ["d"]]


def test_hits_without_the_fields_are_never_folded() -> None:
    assert list_groups(fold_duplicates([make_hit("a"), make_hit("b"), make_hit("c", sha256="")])) == [["a"], ["b"], ["c"]]


def make_page(document: str, number: int) -> Hit:
    uri = f"{document}#page={number}"
    hit = make_hit(f"{document[-5:]}{number}", uri=uri, parent=document, page=number, **make_source())
    return replace(hit, uri=uri)


def test_pages_of_a_document_are_one_hit() -> None:
    hits = (make_page("file:///a.pdf", 2), make_page("file:///b.pdf", 1), make_page("file:///a.pdf", 1))
    assert list_groups(fold_duplicates(hits)) == [["a.pdf2", "a.pdf1"], ["b.pdf1"]]


def test_pages_of_documents_that_look_alike_are_several() -> None:
    one, other = (make_page(f"file:///{name}.pdf", 1).source for name in "ab")
    assert not is_same_picture(one, other)
    assert is_same_picture({**one, "sha256": "1"}, {**other, "sha256": "1"})


def test_a_field_named_parent_folds_nothing() -> None:
    hits = [make_hit(name, parent="file:///shop", uri=f"file:///shop#{name}") for name in "ab"]
    assert list_groups(fold_duplicates(hits)) == [["a"], ["b"]]


@pytest.mark.parametrize("bits", range(9))
def test_near_duplicates_are_found_up_to_the_threshold(bits: int) -> None:
    groups = list_groups(fold_duplicates([make_hit("a", **make_source()), make_hit("b", **make_source(bits))]))
    assert groups == ([["a", "b"]] if bits <= MAX_BITS else [["a"], ["b"]])


@pytest.mark.parametrize(
    ("fields", "same"),
    [
        ({"width": 840}, True),  # a logarithm of 0.049
        ({"width": 842}, False),
        ({"tokens": {"beach": 2.0, "sea": 1.5, "sand": 1.0, "sky": 4.5}}, True),  # a cosine of 0.51
        ({"tokens": {"beach": 2.0, "sea": 1.5, "sand": 1.0, "sky": 4.8}}, False),
    ],
)
def test_shape_and_tokens_may_differ_a_little(fields: dict[str, Any], same: bool) -> None:
    assert is_same_picture(make_source(), make_source(**fields)) is same


def test_a_cosine_of_a_half_is_enough() -> None:
    assert is_same_picture(make_source(tokens={"a": 1.0}), make_source(tokens=dict.fromkeys("abcd", 1.0)))


@pytest.mark.parametrize(
    ("colors", "others", "same"),
    [
        (["red", "white"], ["red"], True),
        (["red", "brown"], ["brown", "red", "white"], True),
        (["red"], ["blue"], False),
        (["black", "white"], ["white"], False),
        (["red"], [], True),
        (["red"], None, True),
        ("red", ["blue"], True),  # not written by ingest
    ],
)
def test_images_of_other_colors_are_not_duplicates(colors: object, others: object, same: bool) -> None:
    pictures = make_source(colors=colors), make_source(1, colors=others)
    assert is_same_picture(*pictures) is is_same_picture(*reversed(pictures)) is same
    assert is_same_picture(*(picture | {"sha256": "1"} for picture in pictures))


@pytest.mark.parametrize(
    "fields",
    [
        {"width": 600, "height": 800},
        {"width": 900},
        {"tokens": {"beach": 2.0, "sea": 1.5, "forest": 9.0}},
        {"tokens": {}},
        {"tokens": None},
        {"tokens": {"beach": "many"}},
        {"width": None},
        {"height": 0},
        {"perceptual_hash": None},
        {"perceptual_hash": "0f1e2d3c4b5a697"},
        {"perceptual_hash": "0f1e2d3c4b5a697x"},
        {"perceptual_hash": 7},
    ],
)
def test_other_shapes_and_tokens_are_other_pictures(fields: dict[str, Any]) -> None:
    assert not is_same_picture(make_source(), make_source(**fields))
    assert not is_same_picture(make_source(**fields), make_source())


def test_a_resized_copy_may_differ_a_little() -> None:
    copy = make_source(2, width=267, height=199, tokens={"beach": 1.9, "sea": 1.4, "sand": 1.1, "sun": 0.2})
    assert is_same_picture(make_source(), copy)


def test_a_chain_of_copies_is_compared_with_the_best_hit_only() -> None:
    hits = [make_hit("a", **make_source()), make_hit("b", **make_source(MAX_BITS)), make_hit("c", **make_source(MAX_BITS + 2))]
    assert list_groups(fold_duplicates(hits)) == [["a", "b"], ["c"]]


class Ranking:
    """Pages of a ranking of pictures: hits of the same letter are copies."""

    def __init__(self, letters: str, *, paged: bool = True) -> None:
        self.hits = [make_hit(f"{letter}{place}", sha256=letter) for place, letter in enumerate(letters)]
        self.paged, self.requests = paged, 0

    def fetch_page(self, k: int, after: Any) -> SearchResult:  # noqa: ANN401  a cursor
        self.requests += 1
        start = 0 if after is None else 1 + [hit.cursor for hit in self.hits].index(after)
        page = self.hits[start : start + k]
        result = SearchResult(
            hits=tuple(page), took_ms=2, truncated=EMPTY_VECTOR, pruned=EMPTY_VECTOR, query_type="rank_features"
        )
        return replace(result, after=page[-1].cursor) if self.paged and len(page) == k else result

    def collect_page(self, k: int, after: Any = None) -> SearchResult:  # noqa: ANN401
        return collect_pictures(lambda cursor: self.fetch_page(k, cursor), k, after)


def test_k_pictures_are_collected_and_nothing_is_skipped() -> None:
    ranking = Ranking("aabacadbbefgghij")
    seen, after, pages = list[Hit](), None, 0
    while True:
        result = ranking.collect_page(3, after)
        assert len(result.hits) == 3 or result.after is None
        seen += [each for hit in result.hits for each in (hit, *hit.duplicates)]
        pages, after = pages + 1, result.after
        if after is None:
            break
    assert sorted(hit.id for hit in seen) == sorted(hit.id for hit in ranking.hits)
    assert pages == 4
    first = ranking.collect_page(3)
    assert list_groups(first.hits) == [["a0", "a1", "a3", "a5"], ["b2"], ["c4"]]
    assert (first.after, first.took_ms) == (ranking.hits[5].cursor, 4)


def test_without_copies_one_request_is_enough() -> None:
    ranking = Ranking("abcdef")
    result = ranking.collect_page(3)
    assert (list_groups(result.hits), result.after, ranking.requests) == ([["a0"], ["b1"], ["c2"]], ranking.hits[2].cursor, 1)


def test_a_folder_of_copies_is_not_read_to_its_end() -> None:
    ranking = Ranking("a" * 1000)
    result = ranking.collect_page(3)
    assert (len(result.hits), len(result.hits[0].duplicates)) == (1, 3 * (1 + MAX_EXTRA_REQUESTS) - 1)
    assert result.after == ranking.hits[3 * (1 + MAX_EXTRA_REQUESTS) - 1].cursor


def test_a_search_without_pages_has_fewer_hits() -> None:
    ranking = Ranking("aabbcc", paged=False)
    result = ranking.collect_page(4)
    assert (list_groups(result.hits), result.after, ranking.requests) == ([["a0", "a1"], ["b2", "b3"]], None, 1)

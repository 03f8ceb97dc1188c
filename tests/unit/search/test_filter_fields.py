"""The fields that a filter refers to, and the errors and remarks about them."""

from __future__ import annotations

import re

import pytest
from support.errors import expect_error

from stair_es.errors import QueryError
from stair_es.search.dsl.filters import FilterField, list_filter_fields, parse_filter
from stair_es.search.dsl.select import build_rank_features_query
from stair_es.search.index_info import IndexInfo
from stair_es.search.query import SearchQuery
from stair_es.types import SparseVector

VECTOR = SparseVector.from_mapping({"dog": 1.0})
TYPES = {
    "width": "integer",
    "price": "keyword",
    "caption": "text",
    "format": "keyword",
    "brand": "object",
    "exif.iso": "integer",
    "tokens": "rank_features",
}
INFO = IndexInfo(fields={}, model="m", model_name="m", field_names=frozenset(TYPES), field_types=TYPES)


def build_query(*filters: str) -> SearchQuery:
    return SearchQuery(vector=VECTOR, filters=[parse_filter(text) for text in filters])


@pytest.mark.parametrize(
    ("text", "fields"),
    [
        ("width:>800 AND format:JPEG", ["width>", "format"]),
        ("(width:[800 TO *] OR -price:{1 TO 2}) +brand.name:x", ["width>", "price>", "brand.name"]),
        ('uri:"file:///a b:c.jpg"', ["uri"]),
        ("uri:*Camera%202023*", ["uri"]),
        ("_exists_:price AND NOT (_exists_:size)", ["price", "size"]),
        ("_exists_: price", ["price"]),
        (r"Photo\ Credit:anna", ["Photo Credit"]),
        (r"caption:a\ b:c", ["caption"]),
        (r"price.\*:3", []),
        ("price: >3", ["price>"]),
        ("a dog", []),
        ("capt*:dog", []),
        ("caption:/file:x/", ["caption"]),
        ('{"term": {"price": {"value": 3, "boost": 2}}}', ["price"]),
        ('{"terms": {"price": [1, 2], "boost": 2}}', ["price"]),
        ('{"range": {"width": {"gte": 800}}}', ["width>"]),
        ('{"exists": {"field": "price"}}', ["price"]),
        (
            '{"bool": {"filter": [{"term": {"a": 1}}, {"query_string": {"query": "b:c"}}], "must_not": {"range": {"d": {}}}}}',
            ["a", "b", "d>"],
        ),
        ('{"constant_score": {"filter": {"prefix": {"a": "x"}}}}', ["a"]),
        ('{"ids": {"values": ["x"]}}', []),
        ('{"script": {"script": {"source": "x"}}}', []),
    ],
)
def test_the_fields_of_a_filter_are_found(text: str, fields: list[str]) -> None:
    expected = [FilterField(name.rstrip(">"), name.endswith(">")) for name in fields]
    assert list(list_filter_fields(parse_filter(text))) == expected


def test_unknown_fields_get_a_suggestion() -> None:
    with expect_error("no-such-filter-field", QueryError) as caught:
        INFO.check_filter_fields(build_query("widht:>800").filters)
    assert "'widht'" in caught.value.message
    assert re.findall(r"[\w.]+(?=[,.?])", caught.value.remedy) == ["width", *sorted(TYPES)]
    for valid in ("width:>800", "brand.name:x", "exif.iso:>100", "_id:7", "_exists_:price", "dog"):
        INFO.check_filter_fields(build_query(valid).filters)


def test_keyword_ranges_get_one_remark() -> None:
    [remark] = INFO.list_remarks(build_query("price:>20", "price:<9 AND width:>800", "format:JPEG"))
    assert "'price'" in remark
    assert "keyword" in remark


def test_internal_filters_need_no_index_fields() -> None:
    INFO.check_filter_fields([build_rank_features_query(VECTOR).clause])

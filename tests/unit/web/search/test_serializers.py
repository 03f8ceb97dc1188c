"""JSON responses for arbitrary documents."""

import json
import math
from typing import Any

import pytest

from stair_es.inspection.stored_document import parse_stored_image
from stair_es.search.results import parse_hit
from stair_es.types import SparseVector
from stair_es.web.search import serializers

HOSTILE = "</script><script>alert(1)</script>\u2028\ud800"


def hit(**source: Any) -> dict[str, Any]:  # noqa: ANN401
    raw_hit = {"_id": "a/b", "_index": "i", "_score": 1.5, "_source": {"tokens": {"car": 0.5, "a%2Eb": 0.25}, **source}}
    parsed = parse_hit(raw_hit, SparseVector.from_mapping({"car": 2.0, "sun": 1.0}))
    return serializers.serialize_hit(
        parsed, parsed.contributions, 0.0, serializers.build_thumbnail_url(parsed.id, source.get("fingerprint"))
    )


def test_a_hit_has_exactly_the_fields_that_the_page_reads() -> None:
    serialized = hit(uri="file:///p/a%20b.jpg", caption="red", width=3, height=4, fingerprint="f/1")
    assert serialized == {
        "id": "a/b",
        "uri": "file:///p/a%20b.jpg",
        "name": "a b.jpg",
        "caption": "red",
        "score": 1.5,
        "width": 3,
        "height": 4,
        "thumbnail": "thumb/a%2Fb?v=f%2F1",
        "contributions": [{"token": "car", "query_weight": 2.0, "document_weight": 0.5, "contribution": 1.0}],
        "text_score": 0.0,
        "tokens": [["car", 0.5], ["a.b", 0.25]],
    }


def test_a_document_without_anything_is_a_hit_all_the_same() -> None:
    serialized = hit(tokens=None)
    assert (serialized["name"], serialized["uri"], serialized["caption"], serialized["width"], serialized["tokens"]) == (
        "a/b",
        "",
        None,
        None,
        [],
    )
    assert serialized["thumbnail"] == "thumb/a%2Fb"


@pytest.mark.parametrize(
    ("caption", "shown"),
    [
        (None, None),
        ("", None),
        ([], None),
        (["a", "b"], "a / b"),
        (7, "7"),
        (True, "true"),
        ({"en": "cat"}, '{"en": "cat"}'),
        ([1, "a"], '[1, "a"]'),
        (math.inf, "null"),
    ],
)
def test_a_caption_that_is_not_text_is_converted(caption: object, shown: str | None) -> None:
    assert serializers.format_caption(caption) == shown


def test_json_is_ascii_without_html() -> None:
    raw = serializers.encode_json(hit(caption=HOSTILE, uri=f"file:///{HOSTILE}"))
    assert raw.isascii()
    assert json.loads(raw)["caption"] == HOSTILE


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///p/tabby%20cat.jpg", "tabby cat.jpg"),
        ("s3://bucket/x/y.png", "y.png"),
        ("file:///p/shard.tar#a/b.jpg", "shard.tar#a/b.jpg"),
        ("https://h/a.jpg?x=1", "a.jpg"),
        ("file:///p/", "p"),
        ("plain", "plain"),
        ("http://[", "http://["),
        ("", ""),
        ("file:///%ff.jpg", "\ufffd.jpg"),
    ],
)
def test_names_are_the_last_part_of_a_uri(uri: str, name: str) -> None:
    assert serializers.get_display_name(uri) == name


def test_image_pages_show_only_readable_fields() -> None:
    source = {
        "tokens": {"car": 0.5, "sun": 0.25, "bad": None},
        "top_tokens": ["car"],
        "impacts": "car|500",
        "thumbnail": "data:image/webp;base64,AAAA",
        "policy_undo": {"tokens": {}},
        "fingerprint": "f",
        "uri": "file:///p/a.jpg",
        "width": 3,
        "camera": {"make": "x", "iso": [100, 200]},
        "note": "y" * 5000,
        "odd": float("inf"),
        "vector": [0.5] * 2000,
        "none": None,
    }
    serialized = serializers.serialize_image(
        parse_stored_image({"_id": "1", "_index": "i", "_source": source}), None, "/original/1"
    )
    assert serialized["tokens"] == [["car", 0.5], ["sun", 0.25]]
    assert serialized["explain"] == {"sum_of_weights": 0.75, "token_count": 2}
    facts = serialized["facts"]
    assert set(facts) == {"index", "width", "camera", "note", "odd", "vector"}
    assert (facts["camera"], facts["odd"]) == ({"make": "x", "iso": [100, 200]}, None)
    assert len(facts["note"]) < 5000
    assert len(facts["vector"]) < 5000
    serializers.encode_json(serialized)


@pytest.mark.parametrize("value", [{}, {"none": None}, {"inf": math.inf, "zero": 0.0, "less": -1.0}])
def test_the_heaviest_words_are_the_beginning_of_all(value: dict[str, Any]) -> None:
    tokens = {"w00": 1.0, "a%2Eb": 9.0, **value, **{f"w{i:02}": 1.0 + i / 7 for i in range(1, 40)}}
    image = parse_stored_image({"_id": "1", "_source": {"tokens": tokens}})
    assert serializers.list_top_tokens(tokens, 12) == serializers.serialize_vector(image.vector)[:12]
    assert serializers.list_top_tokens({"one": 1.0, **value}, 12) == [["one", 1.0]]
    assert serializers.list_top_tokens(None, 12) == serializers.list_top_tokens(["a"], 12) == []


def test_facets_without_aggregations_are_empty() -> None:
    assert serializers.serialize_facets({"hits": {"total": {"value": 3}}}) == {
        "total": 3,
        "tokens": [],
        "colours": [],
        "sources": [],
    }

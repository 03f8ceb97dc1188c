"""JSON responses for arbitrary documents."""

import json
import math
from typing import Any

import pytest

from stair_es.inspection.stored_document import parse_stored_image
from stair_es.model.vocabularies.readable import is_piece
from stair_es.search.results import parse_hit
from stair_es.types import SparseVector
from stair_es.web.search import serializers

HOSTILE = "</script><script>alert(1)</script>\u2028\ud800"


def serialize_document(**source: Any) -> dict[str, Any]:  # noqa: ANN401
    raw_hit = {"_id": "a/b", "_index": "i", "_score": 1.5, "_source": {"tokens": {"car": 0.5, "a%2Eb": 0.25}, **source}}
    parsed = parse_hit(raw_hit, SparseVector.from_mapping({"car": 2.0, "sun": 1.0}))
    links = serializers.build_image_links(parsed.id, source.get("fingerprint"), has_thumbnail=True, has_original=True)
    return serializers.serialize_hit(parsed, parsed.contributions, 0.0, links, is_piece, "cost")


def test_a_hit_has_exactly_the_fields_that_the_page_reads() -> None:
    serialized = serialize_document(uri="file:///p/a%20b.jpg", caption="red", width=3, height=4, fingerprint="f/1")
    assert serialized == {
        "id": "a/b",
        "uri": "file:///p/a%20b.jpg",
        "name": "a b.jpg",
        "caption": "red",
        "title": None,
        "passages": [],
        "price": None,
        "score": 1.5,
        "weak": False,
        "width": 3,
        "height": 4,
        "bytes": None,
        "folder": None,
        "format": None,
        "taken_at": None,
        "modified_at": None,
        "sha256": None,
        "perceptual_hash": None,
        "document": None,
        "thumbnail": "thumb/a%2Fb?v=f%2F1",
        "thumbnail_2x": "thumb/a%2Fb?v=f%2F1&px=640",
        "original": "original/a%2Fb",
        "contributions": [{"token": "car", "query_weight": 2.0, "document_weight": 0.5, "contribution": 1.0}],
        "text_score": 0.0,
        "caption_words": [],
        "tokens": [["car", 0.5], ["a.b", 0.25]],
        "duplicates": [],
    }


def test_a_hit_tells_about_its_file() -> None:
    facts = {
        "name": "b.jpg",
        "folder": "s3://bucket/a",
        "bytes": 12345,
        "format": "JPEG",
        "taken_at": "2020-01-31T10:00:00",
        "modified_at": "2021-01-31T10:00:00Z",
        "sha256": "0" * 64,
        "perceptual_hash": "0" * 16,
    }
    serialized = serialize_document(uri="s3://bucket/a/other.jpg", **facts)
    assert {name: serialized[name] for name in facts} == facts
    odd = serialize_document(**{name: {"a": 1} for name in facts})
    assert {name: odd[name] for name in facts} == {**dict.fromkeys(facts), "name": "a/b"}


@pytest.mark.parametrize(
    ("cost", "price"),
    [(3, 3), (12.5, 12.5), (0, 0), ("12.5", None), (True, None), (math.inf, None), ([1, 2], None), (None, None)],
)
def test_a_price_is_a_number(cost: object, price: float | None) -> None:
    assert serialize_document(cost=cost, price=1)["price"] == price


def test_hidden_tokens_leave_room_for_others() -> None:
    tokens = {f"##p{i}": 9.0 for i in range(20)} | {"##": 8.0, "car": 0.5}
    assert serialize_document(tokens=tokens)["tokens"] == [["##", 8.0], ["car", 0.5]]


def test_a_document_without_anything_is_a_hit_all_the_same() -> None:
    serialized = serialize_document(tokens=None)
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


@pytest.mark.parametrize(
    ("text", "words", "passages"),
    [
        ("Invoice\nNo 4711", ["invoice"], [[("Invoice", True), (" No 4711", False)]]),
        ("the invoices", ["invoice"], []),
        ("blue  \n bus", ["blue bus", "bus"], [[("blue bus", True)]]),
        ("bus, bus", ["bus"], [[("bus", True), (", ", False), ("bus", True)]]),
        (HOSTILE, [], []),
        ("a(b", ["a(b", "("], [[("a(b", True)]]),
        ("無料駐車場あり", ["駐車場"], [[("無料", False), ("駐車場", True), ("あり", False)]]),
        (["bus"], ["bus"], []),
        (None, ["bus"], []),
    ],
)
def test_words_are_marked_in_the_text_of_a_picture(
    text: object, words: list[str], passages: list[list[tuple[str, bool]]]
) -> None:
    assert serializers.find_passages(text, words) == passages


def test_passages_of_a_long_text_are_few_and_short() -> None:
    passages = serializers.find_passages("bus " + "x" * 100 + " bus" * 5000, ["bus"])
    assert passages[0] == [("bus", True), (" " + "x" * 47, False)]
    assert len(passages) == 3
    assert max(sum(len(part) for part, _ in passage) for passage in passages) <= 160 + 48
    passages = serializers.find_passages(" the bus ".join("y" * 200 for _ in range(9)), ["bus"])
    assert passages == [[("the ", False), ("bus", True), (" " + "y" * 47, False)]] * 3


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        ({"text": "a\nb", "text_boxes": [{"text": "a", "box": [0, 0.1, 1, 0.2]}]}, [{"text": "a", "box": [0, 0.1, 1, 0.2]}]),
        ({"text": "a\nb"}, [{"text": "a", "box": None}, {"text": "b", "box": None}]),
        (
            {
                "text_boxes": [
                    {"text": "a", "box": box}
                    for box in ([0, 0, 1], ["0", 0, 1, 1], [0, 0, math.inf, 1], [1, 0, 0, 1], [0, 0, 10**400, 1], 7)
                ]
            },
            [{"text": "a", "box": None}] * 6,
        ),
        ({"text": 7, "text_boxes": [3, {"text": None}, {"text": ""}, {}]}, []),
        ({"text": {}, "text_boxes": {"text": "a"}}, []),
        ({"text_boxes": [{"text": "a" * 9000}] * 9}, [{"text": "a" * 4000, "box": None}] * 5),
        ({}, []),
    ],
)
def test_lines_of_a_picture_have_boxes_within_it(fields: dict[str, Any], lines: list[dict[str, Any]]) -> None:
    assert serializers.list_text_lines(fields) == lines


def test_lines_of_a_picture_are_bounded() -> None:
    assert len(serializers.list_text_lines({"text_boxes": [{"text": "a"}] * 1000})) == 400
    assert len(serializers.list_text_lines({"text": "a\n" * 1000})) == 400


def test_json_is_ascii_without_html() -> None:
    raw = serializers.encode_json(serialize_document(caption=HOSTILE, uri=f"file:///{HOSTILE}"))
    assert raw.isascii()
    assert json.loads(raw)["caption"] == HOSTILE


@pytest.mark.parametrize(
    ("uri", "name"),
    [
        ("file:///p/tabby%20cat.jpg", "tabby cat.jpg"),
        ("s3://bucket/x/y.png", "y.png"),
        ("file:///p/shard.tar#a/b.jpg", "b.jpg"),
        ("https://h/a.jpg?x=1", "a.jpg"),
        ("file:///p/", "file:///p/"),
        ("plain", "plain"),
        ("http://[", "["),
        ("", "a/b"),
        ("file:///%ff.jpg", "\ufffd.jpg"),
    ],
)
def test_a_document_without_a_name_has_that_of_its_uri_or_id(uri: str, name: str) -> None:
    assert serialize_document(uri=uri)["name"] == name


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
    links = serializers.build_image_links("1", None, has_thumbnail=False, has_original=True)
    serialized = serializers.serialize_image(parse_stored_image({"_id": "1", "_index": "i", "_source": source}), links)
    assert (serialized["thumbnail"], serialized["original"]) == (None, "original/1")
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
    assert serializers.list_top_tokens(tokens, 12, is_piece) == serializers.serialize_vector(image.vector)[:12]
    assert serializers.list_top_tokens({"one": 1.0, **value}, 12, is_piece) == [["one", 1.0]]
    assert serializers.list_top_tokens(None, 12, is_piece) == serializers.list_top_tokens(["a"], 12, is_piece) == []

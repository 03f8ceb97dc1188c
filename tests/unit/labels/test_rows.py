"""Rows of label files, in the forms that services and catalogs write."""

import json
from pathlib import Path
from typing import Any

import pytest
from support.errors import expect_error

from stair_es.errors import UsageError
from stair_es.labels.rows import (
    MAX_LABEL_CHARS,
    MAX_LABELS,
    LabeledImage,
    RowFailure,
    open_label_source,
    parse_label_row,
    read_label_files,
)

REKOGNITION = {
    "Image": {"S3Object": {"Bucket": "photos", "Name": "2024/dog.jpg"}},
    "Labels": [{"Name": "Dog", "Confidence": 99.1, "Parents": [{"Name": "Pet"}]}, {"Name": "Sofa", "Confidence": 0.8}],
}
CLARIFAI = {
    "outputs": [
        {
            "input": {"data": {"image": {"url": "https://x.example/a.jpg"}}},
            "data": {"concepts": [{"name": "dog", "value": 0.98}]},
        },
        {"input": {"data": {"image": {"url": "https://x.example/b.jpg"}}}, "data": {"concepts": []}},
    ]
}
VISION = {
    "responses": [
        {"labelAnnotations": [{"description": "Dog", "score": 0.97, "mid": "/m/0bt9lr"}], "context": {"uri": "gs://x/a.jpg"}}
    ]
}
OPENVERSE = {
    "id": "4bc43a04-ef46-4544-a0c1-63c63f56e276",
    "url": "https://x.example/a.jpg",
    "tags": [
        {"name": "dog", "accuracy": 0.94, "provider": "clarifai"},
        {"name": "my_dog", "accuracy": None, "provider": "flickr"},
    ],
}


def parse_row(row: dict[str, Any], scale: float | None = None) -> list[tuple[tuple[str, ...], dict[str, float]] | str]:
    parsed = parse_label_row(row, "here", scale)
    return [each.reason if isinstance(each, RowFailure) else (each.references, dict(each.labels)) for each in parsed]


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        (REKOGNITION, [(("s3://photos/2024/dog.jpg",), {"dog": 0.991, "sofa": 0.008})]),
        (CLARIFAI, [(("https://x.example/a.jpg",), {"dog": 0.98}), (("https://x.example/b.jpg",), {})]),
        (VISION, [(("gs://x/a.jpg",), {"dog": 0.97})]),
        (OPENVERSE, [(("https://x.example/a.jpg", OPENVERSE["id"]), {"dog": 0.94, "my dog": 1.0})]),
        ({"SourceFile": "./a.jpg", "Keywords": ["Dog", "New  York"]}, [(("./a.jpg",), {"dog": 1.0, "new york": 1.0})]),
        ({"file": "a.jpg", "labels": {"Dog": 87, "cat": 0.5}}, [(("a.jpg",), {"dog": 0.87, "cat": 0.005})]),
        ({"image": "a.jpg", "tags": "dog:0.9; cat | bird:0.25"}, [(("a.jpg",), {"dog": 0.9, "cat": 1.0, "bird": 0.25})]),
        ({"ImageID": "a", "LabelName": "Dog", "Confidence": "0.4"}, [(("a",), {"dog": 0.4})]),
        ({"uri": "a", "tags": [{"name": "cat", "confidence": 97}, {"name": "dog"}]}, [(("a",), {"cat": 0.97, "dog": 1.0})]),
        ({"uri": "a", "tags": "wide 16:9; dog"}, [(("a",), {"wide 16 9": 1.0, "dog": 1.0})]),
        (
            {"uri": "a", "labels": ["St. Bernard", "R&B", "T-shirt", "Clothing & Accessories"]},
            [(("a",), {"st bernard": 1.0, "r b": 1.0, "t-shirt": 1.0, "clothing accessories": 1.0})],
        ),
        ({"path": "a.jpg", "label": "dog", "score": "0.4"}, [(("a.jpg",), {"dog": 0.4})]),
        ({"uri": "a", "tagsResult": {"values": [{"name": "dog", "confidence": 0.5}]}}, [(("a",), {"dog": 0.5})]),
        ({"uri": "a", "labels": ["dog", "Dog", "DOG "]}, [(("a",), {"dog": 1.0})]),
        ({"uri": "a", "labels": [{"name": "dog", "score": 0}]}, [(("a",), {})]),
        ({"uri": "a", "labels": {f"{i}": 0.5 for i in range(MAX_LABELS)}}, [(("a",), {f"{i}": 0.5 for i in range(MAX_LABELS)})]),
        ({"uri": "a", "labels": ["x" * MAX_LABEL_CHARS]}, [(("a",), {"x" * MAX_LABEL_CHARS: 1.0})]),
    ],
)
def test_forms_of_services_and_catalogs(row: dict[str, Any], expected: list[Any]) -> None:
    assert parse_row(row) == expected


@pytest.mark.parametrize(
    ("row", "fragment"),
    [
        ({}, "names no image"),
        ({"labels": ["dog"]}, "names no image"),
        ({"uri": "a"}, "no labels"),
        ({"uri": "a", "labels": 7}, "no labels"),
        ({"uri": "a", "labels": [{"confidence": 1}]}, "no name"),
        ({"uri": "a", "labels": [None]}, "no name"),
        ({"uri": "a", "labels": [""]}, "not a label"),
        ({"uri": "a", "labels": ["x" * (MAX_LABEL_CHARS + 1)]}, "not a label"),
        ({"uri": "a", "labels": ["\ud800"]}, "not a label"),
        ({"uri": "a", "labels": {f"{i}": 0.5 for i in range(MAX_LABELS + 1)}}, "more than"),
        ({"uri": "a", "labels": {"dog": 101}}, "between 0 and 100"),
        ({"uri": "a", "labels": {"dog": -0.1}}, "between 0 and 1"),
        ({"uri": "a", "labels": {"dog": float("nan")}}, "between 0 and 1"),
        ({"uri": "a", "labels": {"dog": "much"}}, "not a confidence"),
        ({"uri": "a", "labels": {"dog": True}}, "not a confidence"),
        ({"uri": "a", "labels": {"dog": 10**400}}, "not a confidence"),
        ({"outputs": ["x"]}, "not an object"),
        ({"uri": "a", "labels": ["!?"]}, "not a label"),
        (json.loads('{"data":' * 50 + "{}" + "}" * 50), "names no image"),
    ],
)
def test_rows_that_fail_say_why(row: dict[str, Any], fragment: str) -> None:
    [reason] = parse_row(row)
    assert fragment in str(reason)


@pytest.mark.parametrize(("scale", "expected"), [(None, 0.8), (1.0, 0.8), (100.0, 0.008)])
def test_scale_can_be_given(scale: float | None, expected: float) -> None:
    assert parse_row({"uri": "a", "labels": {"dog": 0.8}}, scale) == [(("a",), {"dog": expected})]


def test_rows_in_a_row_about_one_image_are_one(tmp_path: Path) -> None:
    table = tmp_path / "labels.csv"
    table.write_text("image,label,score\na.jpg,dog,97\na.jpg,cat,1\na.jpg,dog,12\nb.jpg,dog,0.8\nb.jpg,cat\na.jpg,bird,0.7\n")
    rows = list(read_label_files([open_label_source(str(table))]))
    found = [(row.references, dict(row.labels)) if isinstance(row, LabeledImage) else "failed" for row in rows]
    assert found == [(("a.jpg",), {"dog": 0.97, "cat": 0.01}), "failed", (("b.jpg",), {"dog": 0.8}), (("a.jpg",), {"bird": 0.7})]


@pytest.mark.parametrize("name", ["labels.json", "labels.txt"])
def test_other_formats_are_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("[]")
    with expect_error("unknown-label-format", UsageError):
        open_label_source(str(tmp_path / name))

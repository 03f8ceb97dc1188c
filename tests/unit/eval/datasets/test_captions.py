"""Caption sets on disk: three forms, bad entries reported, wrong files refused with a remedy."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from stair_es.errors import UsageError
from stair_es.eval.datasets.captions import CaptionedImage, read_captions
from stair_es.eval.retrieval.tasks import build_image_to_text, build_leave_one_out, build_text_to_image
from stair_es.sources.io.local_file import FileLocator

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg", "val2014/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    return tmp_path


def put(path: Path, value: Any) -> Path:  # noqa: ANN401
    path.write_text(json.dumps(value))
    return path


def captions_of(path: Path, **more: Any) -> dict[str, tuple[str, ...]]:  # noqa: ANN401
    return {image.name: image.captions for image in read_captions(path, **more).images}


def test_the_bundled_photos_are_a_caption_set() -> None:
    result = read_captions(PHOTOS / "captions.jsonl")
    assert (len(result.images), result.problems, result.form) == (40, (), "JSON Lines")
    assert result.images[0].locator == FileLocator((PHOTOS / "airplane-from-above.jpg").as_uri())
    assert len(read_captions(PHOTOS / "captions.jsonl", limit=7).images) == 7


def test_json_lines(folder: Path) -> None:
    path = folder / "set.jsonl"
    lines = [
        '{"image": "a.jpg", "captions": ["one  two", " ", "one two", 3, "three"]}',
        "",
        '{"file": "b.jpg", "caption": "four"}',
        '{"image": "a.jpg", "caption": "five"}',
        "no json",
        "[]",
        '{"caption": "no image"}',
        '{"image": "c.jpg", "captions": []}',
        '{"image": "gone.jpg", "caption": "gone"}',
    ]
    path.write_text("\n".join(lines))
    result = read_captions(path)
    assert {image.name: image.captions for image in result.images} == {
        "a.jpg": ("one two", "three", "five"),
        "b.jpg": ("four",),
    }
    assert [problem.split(":")[0] for problem in result.problems] == ["line 5", "line 6", "line 7", "line 8", "gone.jpg"]


def test_impossible_file_names_are_skipped(folder: Path) -> None:
    names = ["a.jpg", "x" * 5000 + ".jpg", "a\0b.jpg", "."]
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps({"image": name, "caption": "one"}) + "\n" for name in names))
    result = read_captions(path)
    assert [image.name for image in result.images] == ["a.jpg"]
    assert len(result.problems) == 3


def test_coco(folder: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3}, {"id": 4, "file_name": "c.jpg"}]
    notes: list[Any] = [
        {"image_id": 1, "caption": "one"},
        {"image_id": 2, "caption": "two\n"},
        {"image_id": 1, "caption": "three"},
        {"caption": "whose?"},
        7,
        {"image_id": [], "caption": "four"},
    ]
    path = put(folder / "captions_val.json", {"images": images, "annotations": notes, "info": {}})
    result = read_captions(path)
    assert {image.name: image.captions for image in result.images} == {"a.jpg": ("one", "three"), "b.jpg": ("two",)}
    assert result.problems == ("3 annotations without image_id or caption", "image 3: no id or file_name", "c.jpg: no caption")
    assert captions_of(path, limit=1) == {"a.jpg": ("one", "three")}
    with pytest.raises(UsageError, match="one file per split"):
        read_captions(path, split="test")


def test_karpathy(folder: Path) -> None:
    def image(name: str, split: str, *texts: str, **more: str) -> dict[str, Any]:
        return {"filename": name, "split": split, "sentences": [{"raw": text, "tokens": text.split()} for text in texts], **more}

    images = [
        image("a.jpg", "test", "one", "two"),
        image("b.jpg", "val", "three"),
        image("d.jpg", "test", "four", filepath="val2014"),
        image("c.jpg", "test", "five", filepath="elsewhere"),
        {"split": "test"},
    ]
    path = put(folder / "dataset_x.json", {"images": images, "dataset": "x"})
    result = read_captions(path)
    assert result.form == "Karpathy, split test"
    assert {image.name: image.captions for image in result.images} == {
        "a.jpg": ("one", "two"),
        "val2014/d.jpg": ("four",),
        "elsewhere/c.jpg": ("five",),
    }
    assert result.problems == ("image 5: no filename",)
    assert captions_of(path, split="val") == {"b.jpg": ("three",)}
    with pytest.raises(UsageError, match="no split 'train'") as failed:
        read_captions(path, split="train")
    assert "test, val" in failed.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.json", "[1, 2]", "isn't a caption set"),
        ("x.json", '{"images": []}', "isn't a caption set"),
        ("x.json", "no json", "isn't JSON"),
        ("x.txt", "a caption", "isn't JSON"),
        ("x.jsonl", "", "no image with a caption"),
        ("x.jsonl", '{"image": "gone.jpg", "caption": "x"}', "gone.jpg: no such file"),
    ],
)
def test_an_unknown_caption_format_is_rejected(folder: Path, name: str, text: str, message: str) -> None:
    (folder / name).write_text(text)
    with pytest.raises(UsageError, match=message) as failed:
        read_captions(folder / name)
    assert failed.value.remedy
    with pytest.raises(UsageError):
        read_captions(folder / "gone.json")


def test_images_may_be_remote(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("other") / "set.jsonl"
    path.write_text('{"image": "a.jpg", "caption": "one"}')
    assert captions_of(path, images=folder) == {"a.jpg": ("one",)}
    with pytest.raises(UsageError) as failed:
        read_captions(path)
    assert "--images" in failed.value.remedy


def test_texts_that_images_share_are_right_for_each() -> None:
    images = [
        CaptionedImage(name=name, locator=FileLocator(name), captions=captions)
        for name, captions in {"a": ("x", "y"), "b": ("y", "z"), "c": ("w",)}.items()
    ]
    texts = ("x", "y", "z", "w")
    assert build_text_to_image(images, texts).relevant == ((0,), (0, 1), (1,), (2,))
    assert build_image_to_text(images, texts).relevant == ((0, 1), (1, 2), (3,))
    left = build_leave_one_out(images, texts)
    assert left is not None
    assert (left.task.queries, left.task.relevant) == (("x", "z"), ((0,), (1,)))
    assert left.fields == ("without_0", "without_1")
    asked = [left.documents[right[0]][field] for right, field in zip(left.task.relevant, left.fields, strict=True)]
    assert asked == ["y", "y"]  # what asks is never in what is found
    assert left.documents[2]["without_0"] == ""
    assert build_leave_one_out(images[2:], ("w",)) is None

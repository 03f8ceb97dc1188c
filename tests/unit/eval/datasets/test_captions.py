"""Caption sets in files, tables, tars and folders: captions, image bytes, problems, errors."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from support.errors import expect_error

from stair_es.eval.datasets.captions import CaptionDataset, CaptionedImage, read_captions, read_word_lists
from stair_es.eval.datasets.detect import has_accepted_words, is_caption_folder, read_entries
from stair_es.eval.datasets.entry import CaptionEntry, extract_captions, extract_tags
from stair_es.eval.retrieval.tasks import build_image_to_text, build_leave_one_out, build_text_to_image
from stair_es.sources.base import ReadLimits
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.limits import MAX_FIELDS_BYTES

PHOTOS = Path(__file__).parents[4] / "examples" / "photos"


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    write_files(tmp_path, {name: f"bytes of {name}" for name in ("a.jpg", "b.jpg", "c.jpg", "val2014/d.jpg")})
    return tmp_path


def write_files(folder: Path, files: Mapping[str, str | bytes]) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def build_parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=2)
    return buffer.getvalue()


def build_tar(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def list_captions(dataset: CaptionDataset) -> dict[str, tuple[str, ...]]:
    return {image.name: image.captions for image in dataset.images}


def list_problem_places(dataset: CaptionDataset) -> list[str]:
    """Return where the problems are: lines, files, rows or members."""
    return sorted(problem.split(":")[0] for problem in dataset.problems)


def read_images(images: Iterable[CaptionedImage]) -> list[bytes]:
    contents = [image.locator.read(ReadLimits()) for image in images]
    return [content.data for content in contents if content is not None]


def list_tags(path: Path) -> list[tuple[str, ...]]:
    return [entry.tags for entry in read_entries(path)[1] if isinstance(entry, CaptionEntry)]


JSON_LINES = """\
{"image": "a.jpg", "captions": ["one  two", " ", "one two", 3, "three"]}

{"file": "b.jpg", "caption": "four"}
{"image": "a.jpg", "caption": "five"}
no json
[]
{"caption": "no image"}
{"image": "c.jpg", "captions": []}
{"image": "gone.jpg", "caption": "gone"}
"""
CONCEPTUAL_CAPTIONS = b"""\
the 5" of a "smart" phone\ta.jpg
another\ta.jpg
only a caption
\tb.jpg
gone\tgone.jpg
not utf-8 \xff\tb.jpg
"a ""big"" dog"\tb.jpg"""
CSV = 'image,caption,tags\na.jpg,"one, two","x, y"\nb.jpg,three\nc.jpg,,\ngone.jpg,four,\n'
JSON_CAPTIONS = {"a.jpg": ("one two", "three", "five"), "b.jpg": ("four",)}
TSV_CAPTIONS = {"a.jpg": ('the 5" of a "smart" phone', "another"), "b.jpg": ('a "big" dog',)}


@pytest.mark.parametrize(
    ("name", "content", "form", "captions", "places"),
    [
        ("set.jsonl", JSON_LINES, "JSON Lines", JSON_CAPTIONS, ["c.jpg", "gone.jpg", "line 5", "line 6", "line 7"]),
        ("train.tsv", CONCEPTUAL_CAPTIONS, "TSV", TSV_CAPTIONS, ["gone.jpg", "line 3", "line 6"]),
        ("set.csv", CSV, "CSV", {"a.jpg": ("one, two",)}, ["c.jpg", "gone.jpg", "set.csv#line=3"]),
    ],
)
def test_lists_of_paths(
    image_folder: Path, name: str, content: str | bytes, form: str, captions: dict[str, tuple[str, ...]], places: list[str]
) -> None:
    write_files(image_folder, {name: content})
    result = read_captions(image_folder / name)
    assert (result.form, list_captions(result)) == (form, captions)
    assert list_problem_places(result) == places
    assert read_images(result.images) == [f"bytes of {image}".encode() for image in captions]


WORD_LISTS = """\
{"image": "a.jpg", "accepted": ["sky", " blue  sky", "sky"]}
{"file": "b.jpg", "accepted": ["fox"], "caption": "a fox"}
{"image": "a.jpg", "accepted": ["cloud"]}
{"image": "c.jpg", "accepted": "sky"}
{"image": "c.jpg", "accepted": ["sky", 3]}
{"image": "c.jpg", "accepted": []}
{"image": "c.jpg", "accepted": {"sky": 1}}
{"image": "val2014/d.jpg", "caption": "a caption", "accepted": true}
{"image": "gone.jpg", "accepted": ["sky"]}
"""


def test_lists_of_accepted_words(image_folder: Path) -> None:
    path = image_folder / "lists.jsonl"
    path.write_text(WORD_LISTS)
    result = read_word_lists(path)
    assert {image.name: image.accepted for image in result.images} == {"a.jpg": ("sky", "blue sky", "cloud"), "b.jpg": ("fox",)}
    places = [problem.split(":")[0] for problem in result.problems]
    assert sorted(places) == ["gone.jpg", "line 4", "line 5", "line 6", "line 7", "val2014/d.jpg"]
    without_images = read_word_lists(path, with_images=False)
    assert [(image.name, image.locator) for image in without_images.images][2:] == [("gone.jpg", None)]
    assert list_captions(read_captions(path)) == {"b.jpg": ("a fox",), "val2014/d.jpg": ("a caption",)}
    assert [image.name for image in read_word_lists(path, limit=1).images] == ["a.jpg"]


@pytest.mark.parametrize(
    ("text", "is_list"),
    [
        ('no json\n{"image": "a.jpg", "accepted": ["sky"]}', True),
        ('{"image": "a.jpg", "caption": "one", "accepted": ["sky"]}', True),
        (json.dumps({"image": "a.jpg", "accepted": ["sky" * 4_000_000]}), True),
        (json.dumps({"image": "a.jpg", "accepted": ["sky" * 8_000_000]}), False),  # longer than a line may be
        ('{"image": "a.jpg", "caption": "one", "accepted": true}', False),
        ('{"image": "a.jpg", "accepted": "sky"}', False),
        ("", False),
    ],
)
def test_lists_of_accepted_words_are_recognized(image_folder: Path, text: str, *, is_list: bool) -> None:
    path = image_folder / "lists.jsonl"
    path.write_text(text)
    assert has_accepted_words(path) is is_list
    assert not has_accepted_words(image_folder)
    if not is_list:
        with expect_error("dataset-error"):
            read_word_lists(path)


def test_tags_of_csv(image_folder: Path) -> None:
    write_files(image_folder, {"set.csv": CSV})
    assert list_tags(image_folder / "set.csv")[0] == ("x", "y")


@pytest.mark.parametrize("column", ["caption", "captions", "TEXT", "sentences"])
def test_parquet_of_paths(image_folder: Path, column: str) -> None:
    columns = {"image": ["a.jpg", "gone.jpg", None, "b.jpg"], column: ["one", "two", "three", ""]}
    write_files(image_folder, {"set.parquet": build_parquet(columns)})
    result = read_captions(image_folder / "set.parquet")
    assert (result.form, list_captions(result)) == ("Parquet", {"a.jpg": ("one",)})
    assert read_images(result.images) == [b"bytes of a.jpg"]
    assert list_problem_places(result) == ["b.jpg", "gone.jpg", "set.parquet#row=2"]


@pytest.mark.parametrize(
    "text",
    [
        "caption\turl\none\ta.jpg\ntwo\tb.jpg\n",
        "id\tFile\tText\n1\ta.jpg\tone\n2\tb.jpg\ttwo\n",
        "a.jpg\tone\nb.jpg\ttwo\n",
        "a.jpg#0\tone\nb.jpg#3\ttwo\n",
        "\ufeffone\ta.jpg\r\n\r\ntwo\tb.jpg\r\n",
    ],
)
def test_tsv_headers_and_column_orders(image_folder: Path, text: str) -> None:
    write_files(image_folder, {"set.tsv": text, "set.tsv.gz": gzip.compress(text.encode())})
    for name in ("set.tsv", "set.tsv.gz"):
        result = read_captions(image_folder / name)
        assert (list_captions(result), result.problems) == ({"a.jpg": ("one",), "b.jpg": ("two",)}, ())


def test_the_bundled_photos_are_a_caption_set() -> None:
    result = read_captions(PHOTOS / "captions.jsonl")
    assert (len(result.images), result.problems, result.form) == (40, (), "JSON Lines")
    assert result.images[0].locator == FileLocator((PHOTOS / "airplane-from-above.jpg").as_uri())
    assert len(read_captions(PHOTOS / "captions.jsonl", limit=7).images) == 7


def test_impossible_file_names_are_skipped(image_folder: Path) -> None:
    names = ["a.jpg", "x" * 5000 + ".jpg", "a\0b.jpg", "."]
    path = image_folder / "set.jsonl"
    path.write_text("".join(json.dumps({"image": name, "caption": "one"}) + "\n" for name in names))
    result = read_captions(path)
    assert [image.name for image in result.images] == ["a.jpg"]
    assert len(result.problems) == 3


def test_coco(image_folder: Path) -> None:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}, {"id": 3}, {"id": 4, "file_name": "c.jpg"}]
    annotations: list[Any] = [
        {"image_id": 1, "caption": "one"},
        {"image_id": 2, "caption": "two\n"},
        {"image_id": 1, "caption": "three"},
        {"image_id": 1, "caption": "one"},
        {"caption": "whose?"},
        7,
        {"image_id": [], "caption": "four"},
    ]
    path = image_folder / "captions_val.json"
    path.write_text(json.dumps({"images": images, "annotations": annotations, "info": {}}))
    result = read_captions(path)
    assert list_captions(result) == {"a.jpg": ("one", "three"), "b.jpg": ("two",)}
    without_image, *places = list_problem_places(result)
    assert (without_image.split()[0], places) == ("3", ["c.jpg", "image 3"])
    assert list_captions(read_captions(path, limit=1)) == {"a.jpg": ("one", "three")}
    with expect_error("dataset-error") as caught:
        read_captions(path, split="test")
    assert "--split" in caught.value.remedy


def test_karpathy(image_folder: Path) -> None:
    images = [
        {"filename": "a.jpg", "split": "test", "sentences": [{"raw": "one"}, {"raw": "two"}]},
        {"filename": "b.jpg", "split": "val", "sentences": [{"raw": "three"}]},
        {"filename": "d.jpg", "split": "test", "sentences": [{"raw": "four"}], "filepath": "val2014"},
        {"filename": "c.jpg", "split": "test", "sentences": [{"raw": "five"}], "filepath": "elsewhere"},
        {"split": "test"},
    ]
    path = image_folder / "dataset_x.json"
    path.write_text(json.dumps({"images": images, "dataset": "x"}))
    result = read_captions(path)
    assert result.form == "Karpathy, split test"
    assert list_captions(result) == {"a.jpg": ("one", "two"), "val2014/d.jpg": ("four",), "elsewhere/c.jpg": ("five",)}
    assert list_problem_places(result) == ["image 5"]
    assert list_captions(read_captions(path, split="val")) == {"b.jpg": ("three",)}


def test_karpathy_splits_of_a_training(image_folder: Path) -> None:
    splits = {"a.jpg": "train", "b.jpg": "restval", "c.jpg": "val"}
    images = [{"filename": name, "split": split, "sentences": [{"raw": name[0]}]} for name, split in splits.items()]
    path = image_folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    result = read_captions(path, split="train+restval")
    assert (result.form, list_captions(result)) == ("Karpathy, split train+restval", {"a.jpg": ("a",), "b.jpg": ("b",)})
    assert list(list_captions(read_captions(path, split="restval+train+val"))) == ["a.jpg", "b.jpg", "c.jpg"]
    for split in ("test", "train+test", "train+", "train,val"):
        with expect_error("dataset-error") as caught:
            read_captions(path, split=split)
        assert "restval, train, val" in caught.value.remedy


@pytest.mark.parametrize(
    ("name", "text", "fact"),
    [
        ("x.json", "[1, 2]", "caption set"),
        ("x.json", '{"images": []}', "caption set"),
        ("x.json", "no json", "line 1 column 1"),
        ("x.txt", "a caption", "line 1 column 1"),
        ("x.jsonl", "", "no image"),
        ("x.jsonl", '{"image": "gone.jpg", "caption": "x"}', "gone.jpg: "),
    ],
)
def test_an_unknown_caption_format_is_rejected(image_folder: Path, name: str, text: str, fact: str) -> None:
    (image_folder / name).write_text(text)
    with expect_error("dataset-error") as caught:
        read_captions(image_folder / name)
    assert (name in caught.value.message, fact in caught.value.message) == (True, True)
    assert caught.value.remedy


@pytest.mark.parametrize("name", ["set.json", "set.jsonl", "set.tsv", "set.csv", "set.parquet", "set.tar", "gone*.csv"])
def test_missing_files_are_rejected(tmp_path: Path, name: str) -> None:
    with expect_error("no-such-file" if name in ("set.parquet", "set.tar") else "dataset-error") as caught:
        read_captions(tmp_path / name)
    assert name in caught.value.message


@pytest.mark.parametrize("name", ["set.tsv", "set.csv", "set.parquet", "set.tar", "set.jsonl"])
def test_most_formats_have_no_splits(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"")
    with expect_error("dataset-error") as caught:
        read_captions(tmp_path / name, split="test")
    assert "--split" in caught.value.remedy


def test_images_may_be_in_another_folder(image_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("other") / "set.jsonl"
    path.write_text('{"image": "a.jpg", "caption": "one"}')
    assert list_captions(read_captions(path, images=image_folder)) == {"a.jpg": ("one",)}
    with expect_error("dataset-error") as caught:
        read_captions(path)
    assert "--images" in caught.value.remedy


def test_urls_are_the_downloaded_files(image_folder: Path) -> None:
    images = image_folder / "images"
    write_files(images, {name: name for name in ("one.example/x/1.jpg", "2 2.jpg", "3.jpg")})
    urls = {
        "whole": "https://one.example/x/1.jpg?w=3",
        "last part": "https://two.example/2%202.jpg",
        "ambiguous": "https://three.example/3.jpg",
        "ambiguous, too": "https://four.example/3.jpg",
    }
    path = image_folder / "set.tsv"
    path.write_text("".join(f"{caption}\t{url}\n" for caption, url in urls.items()))
    result = read_captions(path, images=images)
    assert [image.captions[0] for image in result.images] == ["whole", "last part"]
    assert read_images(result.images) == [b"one.example/x/1.jpg", b"2 2.jpg"]
    assert len(result.problems) == 2


def test_parquet_columns_without_captions_are_not_read(image_folder: Path) -> None:
    columns = {"image": ["a.jpg"], "caption": ["one"], "other": ["x" * (MAX_FIELDS_BYTES + 1)]}
    write_files(image_folder, {"set.parquet": build_parquet(columns)})
    assert list_captions(read_captions(image_folder / "set.parquet")) == {"a.jpg": ("one",)}


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    cells = [{"bytes": f"image {number}".encode(), "path": f"{number}.png"} for number in range(3)]
    columns = {"image": [*cells, {"bytes": None, "path": None}], "caption": [["one", "uno"], ["two"], [], ["four"]]}
    files = {
        "train-00000.parquet": build_parquet(columns),
        "train-00001.parquet": build_parquet({"image": [b"plain bytes"], "caption": [["five"]], "tags": [["t", "u"]]}),
    }
    write_files(tmp_path, files)
    result = read_captions(tmp_path / "train-*.parquet")
    assert list_captions(result) == {
        "train-00000.parquet#row=0": ("one", "uno"),
        "train-00000.parquet#row=1": ("two",),
        "train-00000.parquet#row=3": ("four",),
        "train-00001.parquet#row=0": ("five",),
    }
    assert list_problem_places(result) == ["train-00000.parquet#row=2"]
    first, second, empty, plain = result.images
    assert read_images([first, second, plain]) == [b"image 0", b"image 1", b"plain bytes"]
    with expect_error("not-an-image-reference"):
        read_images([empty])
    assert list_tags(tmp_path / "train-00001.parquet") == [("t", "u")]


def test_a_broken_parquet_file_among_others(tmp_path: Path) -> None:
    write_files(tmp_path, {"0.parquet": build_parquet({"image": [b"0"], "caption": ["zero"]}), "1.parquet": "no parquet"})
    result = read_captions(tmp_path)
    assert list_captions(result) == {"0.parquet#row=0": ("zero",)}
    assert list_problem_places(result) == ["1.parquet"]
    write_files(tmp_path, {"none.parquet": build_parquet({"key": ["x"], "caption": ["zero"]})})
    with expect_error("no-such-column"):
        read_captions(tmp_path / "none.parquet")


def test_webdataset(tmp_path: Path) -> None:
    complete = {"a.jpg": b"A", "a.txt": b" one\n", "b.json": b'{"caption": "two", "tags": ["x"]}', "b.jpg": b"B"}
    files = {
        "0000.tar": build_tar({**complete, "c.jpg": b"C", "d.jpg": b"D", "d.json": b"no json"}),
        "0001.tar": build_tar({"a.png": b"E", "a.caption": b"five"}),
        "0003.tar": b"broken" * 300,
    }
    write_files(tmp_path, files)
    result = read_captions(tmp_path / "{0000..0003}.tar")
    assert result.form == "webdataset"
    assert list_captions(result) == {"0000.tar#a.jpg": ("one",), "0000.tar#b.jpg": ("two",), "0001.tar#a.png": ("five",)}
    assert read_images(result.images) == [b"A", b"B", b"E"]
    assert set(list_problem_places(result)) == {"0000.tar#c.jpg", "0000.tar#d.json", "0000.tar#d.jpg", "0002.tar", "0003.tar"}
    (tmp_path / "0003.tar").unlink()
    for path in (tmp_path, tmp_path / "*.tar"):
        assert list_captions(read_captions(path)) == list_captions(result)
    assert list_tags(tmp_path / "0000.tar") == [(), ("x",), (), ()]


def test_truncated_tar_gives_its_complete_members(tmp_path: Path) -> None:
    data = build_tar({"a.jpg": b"A" * 600, "a.txt": b"one", "b.txt": b"two", "b.jpg": b"B" * 6000})
    write_files(tmp_path, {"x.tar": data[:5000]})
    result = read_captions(tmp_path / "x.tar")
    assert list_captions(result)["x.tar#a.jpg"] == ("one",)
    for image in result.images[1:]:
        with expect_error("file-truncated"):
            image.locator.read(ReadLimits())
    assert len(result.images) == 2 or result.problems
    with expect_error("dataset-error") as caught:
        read_captions(tmp_path / "x.tar.gz")
    assert "gunzip" in caught.value.remedy


def test_img2dataset_folders(tmp_path: Path) -> None:
    files: dict[str, str | bytes] = {
        "00000/000.jpg": "0",
        "00000/000.json": '{"caption": "one", "url": "u"}',
        "00000/001.jpg": "1",
        "00000/001.json": "[]",
        "00001/000.png": "0",
        "00001/000.json": "no json",
        "00001/002.jpg": "",
        "00001/003.jpg": "3",
        "00001/003.txt": "three\n dogs",
        "00000.parquet": build_parquet({"url": ["u"], "caption": ["one"]}),
    }
    write_files(tmp_path, files)
    result = read_captions(tmp_path)
    assert result.form == "folder"
    assert list_captions(result) == {"00000/000.jpg": ("one",), "00001/003.jpg": ("three dogs",)}
    assert list_problem_places(result) == ["00000/001.jpg", "00001/000.png", "00001/002.jpg"]


def test_caption_folders(image_folder: Path) -> None:
    assert not is_caption_folder(image_folder)
    assert not is_caption_folder(image_folder / "a.jpg")
    with expect_error("dataset-error") as caught:
        read_captions(image_folder)
    assert str(image_folder) in caught.value.message
    write_files(image_folder, {"a.txt": "a dog"})
    assert is_caption_folder(image_folder)
    (image_folder / "a.txt").unlink()
    write_files(image_folder, {"metadata.jsonl": '{"file_name": "a.jpg", "text": "one"}\n'})  # as of Hugging Face
    assert list_captions(read_captions(image_folder)) == {"a.jpg": ("one",)}
    write_files(image_folder, {"metadata.jsonl": "broken"})
    assert is_caption_folder(image_folder)


@pytest.mark.parametrize(
    ("suffix", "lines"), [("jsonl", '{{"image": "{0}", "caption": "{1}"}}'), ("csv", "image,caption\n{0},{1}")]
)
def test_a_glob_matches_several_files(image_folder: Path, suffix: str, lines: str) -> None:
    files = {f"part-{name}.{suffix}": lines.format(name, f"text of {name}") for name in ("a.jpg", "b.jpg")}
    write_files(image_folder, files)
    result = read_captions(image_folder / f"part*.{suffix}")
    assert list_captions(result) == {"a.jpg": ("text of a.jpg",), "b.jpg": ("text of b.jpg",)}


def test_captions_and_tags_of_a_row() -> None:
    assert extract_captions({"captions": [], "caption": "one"}) == ("one",)
    assert extract_captions({"caption": [{"raw": "one"}, {"raw": 3}, "two", "two"]}) == ("one", "two")
    assert extract_captions({"URL": "x", "TEXT": " a  b "}) == ("a b",)
    assert extract_captions({"caption": 7, "title": "x"}) == ()
    assert extract_tags({"tags": "red, round,, red"}) == ("red", "round")
    assert extract_tags({"Keywords": ["a", None, "b"]}) == ("a", "b")


def test_texts_that_images_share_are_right_for_each() -> None:
    images = [
        CaptionedImage(name=name, locator=FileLocator(name), captions=captions)
        for name, captions in {"a": ("x", "y"), "b": ("y", "z"), "c": ("w",)}.items()
    ]
    texts = ("x", "y", "z", "w")
    assert build_text_to_image(images, texts).relevant == ((0,), (0, 1), (1,), (2,))
    assert build_image_to_text(images, texts).relevant == ((0, 1), (1, 2), (3,))
    leave_one_out = build_leave_one_out(images, texts)
    assert leave_one_out is not None
    assert (leave_one_out.task.queries, leave_one_out.task.relevant) == (("x", "z"), ((0,), (1,)))
    assert leave_one_out.fields == ("without_0", "without_1")
    relevant_items = [relevant[0] for relevant in leave_one_out.task.relevant]
    fields = [leave_one_out.documents[item][field] for item, field in zip(relevant_items, leave_one_out.fields, strict=True)]
    assert fields == ["y", "y"]  # a query is never in the text that it searches
    assert leave_one_out.documents[2]["without_0"] == ""
    assert build_leave_one_out(images[2:], ("w",)) is None

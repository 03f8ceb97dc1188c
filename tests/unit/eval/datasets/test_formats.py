"""Caption sets in tables, tars and folders: equal entries, and errors."""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from stair_es.errors import ReadError, UsageError
from stair_es.eval.datasets.captions import CaptionDataset, read_captions
from stair_es.eval.datasets.detect import is_caption_folder, read_entries
from stair_es.eval.datasets.entry import CaptionEntry, extract_captions, extract_tags
from stair_es.sources.base import ReadLimits
from stair_es.sources.limits import MAX_FIELDS_BYTES


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (tmp_path / name).write_bytes(f"bytes of {name}".encode())
    return tmp_path


def captions_of(result: CaptionDataset) -> dict[str, tuple[str, ...]]:
    return {image.name: image.captions for image in result.images}


def bytes_of(result: CaptionDataset) -> list[bytes]:
    read = [image.locator.read(ReadLimits()) for image in result.images]
    return [each.data for each in read if each is not None]


def tar_of(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_tsv_as_of_conceptual_captions(folder: Path) -> None:
    lines = [
        b'the 5" screen of a "smart" phone\ta.jpg',
        b"another\ta.jpg",
        b"only a caption",
        b"\tb.jpg",
        b"gone\tgone.jpg",
        b"not utf-8 \xff\tb.jpg",
        b'"a ""big"" dog"\tb.jpg',
    ]
    path = folder / "train.tsv"
    path.write_bytes(b"\n".join(lines))
    result = read_captions(path)
    assert result.form == "TSV"
    assert captions_of(result) == {"a.jpg": ('the 5" screen of a "smart" phone', "another"), "b.jpg": ('a "big" dog',)}
    assert bytes_of(result) == [b"bytes of a.jpg", b"bytes of b.jpg"]
    assert sorted(problem.split(":")[0] for problem in result.problems) == ["gone.jpg", "line 3", "line 4", "line 6"]


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
def test_tsv_is_read_with_and_without_header_in_either_column_order(folder: Path, text: str) -> None:
    (folder / "set.tsv").write_text(text, encoding="utf-8", newline="")
    result = read_captions(folder / "set.tsv")
    assert (captions_of(result), result.problems) == ({"a.jpg": ("one",), "b.jpg": ("two",)}, ())
    (folder / "set.tsv.gz").write_bytes(gzip.compress(text.encode()))
    assert captions_of(read_captions(folder / "set.tsv.gz")) == captions_of(result)


def test_urls_are_the_downloaded_files(folder: Path) -> None:
    kept = folder / "images"
    for name in ("one.example/x/1.jpg", "2 2.jpg", "3.jpg"):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_bytes(name.encode())
    rows = [
        ("whole", "https://one.example/x/1.jpg?w=3"),
        ("last part", "https://two.example/2%202.jpg"),
        ("which?", "https://three.example/3.jpg"),
        ("which of them?", "https://four.example/3.jpg"),
    ]
    path = folder / "set.tsv"
    path.write_text("".join(f"{caption}\t{url}\n" for caption, url in rows))
    result = read_captions(path, images=kept)
    assert [image.captions[0] for image in result.images] == ["whole", "last part"]
    assert bytes_of(result) == [b"one.example/x/1.jpg", b"2 2.jpg"]
    assert len(result.problems) == 2  # two URLs end with 3.jpg: whose the file is can't be told


def test_csv(folder: Path) -> None:
    path = folder / "set.csv"
    path.write_text('image,caption,tags\na.jpg,"one, two","x, y"\nb.jpg,three\nc.jpg,,\ngone.jpg,four,\n')
    result = read_captions(path)
    assert captions_of(result) == {"a.jpg": ("one, two",)}
    assert len(result.problems) == 3
    assert next(each for each in read_entries(path)[1] if isinstance(each, CaptionEntry)).tags == ("x", "y")


@pytest.mark.parametrize("column", ["caption", "captions", "TEXT", "sentences"])
def test_parquet_with_paths(folder: Path, column: str) -> None:
    images = pq_of(folder / "set.parquet", {"image": ["a.jpg", "gone.jpg", None, "b.jpg"], column: ["one", "two", "three", ""]})
    result = read_captions(images)
    assert result.form == "Parquet"
    assert captions_of(result) == {"a.jpg": ("one",)}
    assert bytes_of(result) == [b"bytes of a.jpg"]
    assert [problem.rpartition(":")[2].strip() for problem in result.problems] == [
        "no image in this row",
        "b.jpg",
        f"no such file in {folder}",
    ]


def test_parquet_columns_without_captions_are_not_read(folder: Path) -> None:
    columns = {"image": ["a.jpg"], "caption": ["one"], "other": ["x" * (MAX_FIELDS_BYTES + 1)]}
    assert captions_of(read_captions(pq_of(folder / "set.parquet", columns))) == {"a.jpg": ("one",)}


def pq_of(path: Path, columns: dict[str, Any]) -> Path:
    pq.write_table(pa.table(columns), path, row_group_size=2)
    return path


def test_parquet_with_bytes_as_of_hugging_face(folder: Path) -> None:
    cells = [{"bytes": f"image {number}".encode(), "path": f"{number}.png"} for number in range(3)]
    columns = {"image": [*cells, {"bytes": None, "path": None}], "caption": [["one", "uno"], ["two"], [], ["four"]]}
    pq_of(folder / "train-00000.parquet", columns)
    pq_of(folder / "train-00001.parquet", {"image": [b"plain bytes"], "caption": [["five"]], "tags": [["t", "u"]]})
    result = read_captions(folder / "train-*.parquet")
    assert captions_of(result) == {
        "train-00000.parquet#row=0": ("one", "uno"),
        "train-00000.parquet#row=1": ("two",),
        "train-00000.parquet#row=3": ("four",),
        "train-00001.parquet#row=0": ("five",),
    }
    assert result.problems == ("train-00000.parquet#row=2: no caption",)
    assert [image.locator.read(ReadLimits()).data for image in result.images if "row=3" not in image.name] == [  # type: ignore[union-attr]
        *(b"image 0", b"image 1", b"plain bytes"),
    ]
    with pytest.raises(ReadError, match="no image in this row"):
        result.images[2].locator.read(ReadLimits())
    tagged = [each for each in read_entries(folder / "train-00001.parquet")[1] if isinstance(each, CaptionEntry)]
    assert tagged[0].tags == ("t", "u")


def test_a_broken_parquet_file_among_others(folder: Path) -> None:
    pq_of(folder / "0.parquet", {"image": [b"0"], "caption": ["zero"]})
    (folder / "1.parquet").write_bytes(b"no parquet")
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        (folder / name).unlink()
    result = read_captions(folder)
    assert captions_of(result) == {"0.parquet#row=0": ("zero",)}
    assert len(result.problems) == 1
    assert result.problems[0].startswith("1.parquet: ")
    pq_of(folder / "none.parquet", {"key": ["x"], "caption": ["zero"]})
    with pytest.raises(UsageError, match="no column with an image"):
        read_captions(folder / "none.parquet")


def test_webdataset(folder: Path) -> None:
    shards = folder / "shards"
    shards.mkdir()
    first = {
        **{"a.jpg": b"A", "a.txt": b" one\n", "b.json": b'{"caption": "two", "tags": ["x"]}', "b.jpg": b"B"},
        **{"c.jpg": b"C", "d.jpg": b"D", "d.json": b"no json"},
    }
    tar_of(shards / "0000.tar", first)
    tar_of(shards / "0001.tar", {"a.png": b"E", "a.caption": b"five"})
    (shards / "0003.tar").write_bytes(b"broken" * 300)
    result = read_captions(shards / "{0000..0003}.tar")
    assert result.form == "webdataset"
    assert captions_of(result) == {"0000.tar#a.jpg": ("one",), "0000.tar#b.jpg": ("two",), "0001.tar#a.png": ("five",)}
    assert bytes_of(result) == [b"A", b"B", b"E"]
    assert {problem.split(":")[0] for problem in result.problems} == {
        *("0000.tar#c.jpg", "0000.tar#d.json", "0000.tar#d.jpg", "0002.tar", "0003.tar"),
    }
    (shards / "0003.tar").unlink()
    for path in (shards, shards / "*.tar"):
        assert captions_of(read_captions(path)) == captions_of(result)
    assert [each.tags for each in read_entries(shards / "0000.tar")[1] if isinstance(each, CaptionEntry)] == [(), ("x",)]


def test_truncated_tar_gives_its_complete_members(folder: Path) -> None:
    path = tar_of(folder / "x.tar", {"a.jpg": b"A" * 600, "a.txt": b"one", "b.txt": b"two", "b.jpg": b"B" * 6000})
    path.write_bytes(path.read_bytes()[:5000])
    result = read_captions(path)
    assert captions_of(result)["x.tar#a.jpg"] == ("one",)
    for image in result.images[1:]:
        with pytest.raises(ReadError, match="truncated"):
            image.locator.read(ReadLimits())
    assert len(result.images) == 2 or result.problems
    with pytest.raises(UsageError, match="compressed tar"):
        read_captions(folder / "x.tar.gz")


def test_img2dataset_folders(folder: Path) -> None:
    root = folder / "out"
    for name, text in {
        "00000/000.jpg": '{"caption": "one", "url": "u"}',
        "00000/001.jpg": "[]",
        "00001/000.png": "no json",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(name.encode())
        (root / name).with_suffix(".json").write_text(text)
    (root / "00001/002.jpg").write_bytes(b"")
    (root / "00001/003.jpg").write_bytes(b"3")
    (root / "00001/003.txt").write_text("three\n dogs")
    pq_of(root / "00000.parquet", {"url": ["u"], "caption": ["one"]})
    result = read_captions(root)
    assert result.form == "folder"
    assert captions_of(result) == {"00000/000.jpg": ("one",), "00001/003.jpg": ("three dogs",)}
    assert [problem.split(":")[0] for problem in result.problems] == ["00000/001.jpg", "00001/000.png", "00001/002.jpg"]


def test_a_folder_with_a_list_as_of_hugging_face(folder: Path) -> None:
    (folder / "metadata.jsonl").write_text('{"file_name": "a.jpg", "text": "one"}\n')
    assert captions_of(read_captions(folder)) == {"a.jpg": ("one",)}
    (folder / "metadata.jsonl").unlink()
    with pytest.raises(UsageError, match="a folder without a caption set"):
        read_captions(folder)


def test_karpathys_splits_for_training(folder: Path) -> None:
    splits = {"a.jpg": "train", "b.jpg": "restval", "c.jpg": "val"}
    images = [{"filename": name, "split": split, "sentences": [{"raw": name[0]}]} for name, split in splits.items()]
    path = folder / "dataset_coco.json"
    path.write_text(json.dumps({"images": images, "dataset": "coco"}))
    result = read_captions(path, split="train+restval")
    assert (result.form, captions_of(result)) == ("Karpathy, split train+restval", {"a.jpg": ("a",), "b.jpg": ("b",)})
    assert list(captions_of(read_captions(path, split="restval+train+val"))) == ["a.jpg", "b.jpg", "c.jpg"]
    for split in ("train+test", "train+", "train,val"):
        with pytest.raises(UsageError, match="no split"):
            read_captions(path, split=split)


@pytest.mark.parametrize("name", ["set.tsv", "set.csv", "set.parquet", "set.tar", "set.jsonl"])
def test_missing_files_and_unsupported_splits_are_rejected(folder: Path, name: str) -> None:
    with pytest.raises(UsageError) as failed:
        read_captions(folder / name)
    assert failed.value.remedy
    (folder / name).write_bytes(b"")
    with pytest.raises(UsageError, match="no splits"):
        read_captions(folder / name, split="test")


def test_captions_and_tags_of_a_row() -> None:
    assert extract_captions({"captions": [], "caption": "one"}) == ("one",)
    assert extract_captions({"caption": [{"raw": "one"}, {"raw": 3}, "two", "two"]}) == ("one", "two")
    assert extract_captions({"URL": "x", "TEXT": " a  b "}) == ("a b",)
    assert extract_captions({"caption": 7, "title": "x"}) == ()
    assert extract_tags({"tags": "red, round,, red"}) == ("red", "round")
    assert extract_tags({"Keywords": ["a", None, "b"]}) == ("a", "b")


def test_a_folder_of_captions_is_distinguished_from_one_of_images(folder: Path) -> None:
    assert not is_caption_folder(folder)
    assert not is_caption_folder(folder / "a.jpg")
    (folder / "a.txt").write_text("a dog")
    assert is_caption_folder(folder)
    (folder / "a.txt").unlink()
    (folder / "metadata.jsonl").write_text("broken")
    assert is_caption_folder(folder)


@pytest.mark.parametrize(
    ("suffix", "lines"), [("jsonl", '{{"image": "{0}", "caption": "{1}"}}'), ("csv", "image,caption\n{0},{1}")]
)
def test_a_glob_matches_several_files(folder: Path, suffix: str, lines: str) -> None:
    for number, name in enumerate(("a.jpg", "b.jpg"), 1):
        (folder / f"part{number}.{suffix}").write_text(lines.format(name, f"text {number}") + "\n")
    result = read_captions(folder / f"part*.{suffix}")
    assert captions_of(result) == {"a.jpg": ("text 1",), "b.jpg": ("text 2",)}
    with pytest.raises(UsageError, match="nothing matches"):
        read_captions(folder / f"gone*.{suffix}")

"""Files that are meant to end a run, to hide the rest of a source, or to take all memory or time: each costs a failed entry."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from support.corpora import hostile_files
from support.corpora.hostile_files import ROWS, build_deep_object, build_tar_member, write_false_counts

from stair_es.errors import UsageError
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.io import lines, parquet_cell, parquet_rows
from stair_es.sources.io.local_file import InlineBytes
from stair_es.sources.registry import open_source

MOST_MB, MOST_S = 600, 20
"""Of memory beyond what the process had before, and of CPU time, for each of the files."""
EXPECTED = {
    "long-name.tar.gz": (1, 1, "headers of one member"),
    "pax-header.tar.gz": (1, 1, "headers of one member"),
    "long-names.tar.gz": (1, 1000, "its name has 250,006 characters"),
    "global-records.tar.gz": (1, 1, "global pax records"),
    "sparse-map.tar.gz": (1, 1, "headers of one member"),
    "digits.tar": (1, 1, "256 digits"),
    "one-key.tar.gz": (8, 0, ""),
    "texts-of-one-key.tar.gz": (0, 698, "exceed the limit"),
    "objects.jsonl.gz": (1, 1, "commas, colons and brackets"),
    "long-line.jsonl.gz": (1, 1, "too long"),
    "emoji.jsonl.gz": (1, 1, "not a path"),
    "line-ends.jsonl.gz": (1, 1, "empty lines"),
    "line-ends.csv.gz": (1, 1, "empty lines"),
    "commas.csv.gz": (2, 1, "a row of more than"),
    "comments.txt.gz": (1, 1, "empty lines and comments"),
    "captions-2.parquet": (0, 400, "the limit is"),
    "captions-8.parquet": (0, 100, "the limit is"),
    "lists.parquet": (0, 2, "the limit is"),
    "nulls.parquet": (0, 1, "the limit is"),
    "cells.parquet": (8, 0, ""),
    "rows.parquet": (0, 1, "rows can't be in a file of"),
    "dictionary.parquet": (0, 1, "the dictionary of column 'caption'"),
}
"""Name -> images, failed entries, and what their reason says."""


def _all(path: Path, **options: Any) -> list[SourceItem | ListingFailure]:  # noqa: ANN401
    return list(open_source(str(path), SourceOptions(**options)).list_items())


def _kinds(found: list[SourceItem | ListingFailure]) -> str:
    return "".join("i" if isinstance(each, SourceItem) else "f" for each in found)


def test_files_stay_within_memory_and_time(tmp_path: Path) -> None:
    assert set(EXPECTED) == set(hostile_files.FILES)
    reader = subprocess.run([sys.executable, hostile_files.__file__, tmp_path], stdout=subprocess.PIPE, check=True, timeout=300)
    results = {each["name"]: each for each in map(json.loads, reader.stdout.splitlines())}
    assert {name: each["error"] for name, each in results.items() if "error" in each} == {}
    outcomes = {name: (each.get("images", 0), each.get("failed", 0)) for name, each in results.items()}
    assert outcomes == {name: (images, failed) for name, (images, failed, _) in EXPECTED.items()}
    assert [name for name, (_, failed, reason) in EXPECTED.items() if failed and reason not in results[name]["reasons"][0]] == []
    assert {name: each["mb"] for name, each in results.items() if each["mb"] > MOST_MB} == {}
    assert {name: each["s"] for name, each in results.items() if each["s"] > MOST_S} == {}


@pytest.mark.parametrize("columns", [{"x": "x"}, {"*": "*"}])
def test_deeply_nested_member_fails_its_sample(tmp_path: Path, columns: dict[str, str]) -> None:
    deep = build_tar_member("b.json", b'{"x": ' + build_deep_object() + b"}")
    parts = [
        build_tar_member("a.jpg", b"1"),
        build_tar_member("b.jpg", b"2"),
        deep,
        build_tar_member("c.jpg", b"3"),
        build_tar_member("c.json", b'{"x": 1}'),
    ]
    (tmp_path / "x.tar").write_bytes(b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE))
    found = _all(tmp_path / "x.tar", columns=columns)
    assert _kinds(found) == "ifi"
    assert found[1].uri.endswith("#b.jpg")
    assert "nested too deeply" in found[1].reason  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "line",
    [
        b'{"path": "b.jpg", "x": %s}' % build_deep_object(),
        b'{"path": "b.jpg", "x": %s}' % build_deep_object(5000),
        b'{"image": %s}' % build_deep_object().replace(b'"a"', b'"bytes"'),
        b'{"nothing": %s}' % build_deep_object(),
        b'{"path": "b.jpg", "x": [%s0]}' % (b"0," * 20_000),
        b'{"path": "b.jpg", "x": "%s"}' % (b"x" * 2_000_000),
    ],
)
def test_a_hostile_line_of_json_fails_alone(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([b'{"path": "a.jpg", "x": 1}', line, b'{"path": "c.jpg"}']))
    found = _all(tmp_path / "x.jsonl", columns={"*": "*"})
    assert _kinds(found) == "ifi"
    assert found[1].uri.endswith("#line=2")


def test_a_hostile_row_of_parquet_fails_alone(tmp_path: Path) -> None:
    long = ["one", "x" * 2_000_000, "three"]
    for name, images in {"cells": [b"1", b"2", b"3"], "paths": ["a.jpg", "b.jpg", "c.jpg"]}.items():
        pq.write_table(pa.table({"image": images, "caption": long, "tags": [["a"], ["b" * 2_000_000], None]}), tmp_path / name)
        for columns in ({}, {"t": "tags"}, {"*": "*"}):
            found = _all(tmp_path / name, columns=columns, format="parquet")
            assert _kinds(found) == "ifi"
            assert found[1].uri.endswith("#row=1")


@pytest.mark.parametrize("kind", [pa.binary(), pa.string()])
@pytest.mark.parametrize("claimed", [0, 5, ROWS - 1, ROWS + 1, 1 << 45])
def test_counts_of_a_footer_are_not_believed(tmp_path: Path, claimed: int, kind: pa.DataType) -> None:
    table = pa.table({"image": pa.array([None] * ROWS, kind), "caption": ["x"] * ROWS})
    for counts in ({0}, {1}, {2}, range(10)):
        path = write_false_counts(tmp_path / "x.parquet", table, claimed, counts)
        for columns in ({}, {"*": "*"}, {"none": "image"}):
            found = _all(path, columns=columns)
            assert len(found) <= ROWS + 1
            assert claimed <= ROWS or isinstance(found[-1], ListingFailure)


def test_rows_of_all_groups_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": pa.array([None] * 900, pa.binary())}), tmp_path / "x.parquet", row_group_size=300)
    monkeypatch.setattr(parquet_rows, "PARQUET_FREE_ROWS", 700 - 16 * (tmp_path / "x.parquet").stat().st_size)
    found = _all(tmp_path / "x.parquet")
    assert len(found) == 601
    assert found[-1].uri.endswith("#rows=600-899")


def test_empty_cells_fail_while_listing(tmp_path: Path) -> None:
    image = pa.array([b"x" * 50, None, b"", *[None] * 50])
    pq.write_table(pa.table({"image": image}), tmp_path / "cells.parquet")
    structs = pa.StructArray.from_arrays([image, pa.nulls(53, pa.string())], ["bytes", "path"])
    pq.write_table(pa.table({"image": structs}), tmp_path / "structs.parquet")
    for name in ("cells.parquet", "structs.parquet"):
        first, *others = _all(tmp_path / name)
        assert isinstance(first, SourceItem)
        read = first.locator.read(ReadLimits())
        assert read is not None
        assert read.data == b"x" * 50
        assert _kinds(others) == "f" * 52


def test_large_cells_are_not_read_while_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": [bytes(10_000), *[None] * 99]}), tmp_path / "x.parquet", compression="zstd")
    assert _kinds(_all(tmp_path / "x.parquet")) == "i" + "f" * 99
    monkeypatch.setattr(parquet_rows, "PARQUET_BATCH_BYTES", 5000)
    assert _kinds(_all(tmp_path / "x.parquet")) == "i" * 100


@pytest.mark.parametrize(("limit", "value"), [("MAX_PARQUET_COLUMNS", 3), ("MAX_PARQUET_FOOTER_BYTES", 300)])
def test_a_table_of_many_columns_fails(tmp_path: Path, limit: str, value: int, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (3, 4):
        table = pa.table({"image": [b"x"], **{f"column_{i}": [i] for i in range(columns - 1)}})
        pq.write_table(table, tmp_path / f"{columns}.parquet", store_schema=False)
    monkeypatch.setattr(parquet_rows, limit, value if value < 100 else _get_footer_bytes(tmp_path / "3.parquet"))
    assert _kinds(_all(tmp_path / "3.parquet")) == "i"
    assert _kinds(_all(tmp_path / "4.parquet")) == "f"


def _get_footer_bytes(path: Path) -> int:
    return int.from_bytes(path.read_bytes()[-8:-4], "little")


def test_images_in_texts_may_be_longer_than_fields(tmp_path: Path) -> None:
    images = [b"x", b"y" * 3_000_000]
    data = ["data:image/png;base64," + base64.b64encode(image).decode() for image in images]
    pq.write_table(pa.table({"image": data, "caption": ["a", "b"]}), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"image": each}) for each in data))
    for name in ("x.parquet", "x.jsonl"):
        found = [each.locator for each in _all(tmp_path / name) if isinstance(each, SourceItem)]
        assert found == [InlineBytes(image) for image in images]


def test_large_cells_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_cell, "CELL_CACHE_BYTES", 100)
    images = [bytes([number]) * 60 for number in range(20)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    locators = [each.locator for each in _all(tmp_path / "x.parquet") if isinstance(each, SourceItem)]
    for number in (0, 5, 1, 6, 2, 19, 7, 7, 0):
        read = locators[number].read(ReadLimits())
        assert read is not None
        assert read.data == images[number]


def test_row_groups_are_released_after_reading(tmp_path: Path) -> None:
    images = [bytes([number]) * 60 for number in range(90)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": images}), path, row_group_size=30)
    locators = [each.locator for each in _all(path) if isinstance(each, SourceItem)]
    order = [*range(29), 30, 29, *range(31, 90), 31, 60]
    read = [locators[number].read(ReadLimits()) for number in order]
    assert [each.data for each in read if each] == [images[number] for number in order]
    assert _count_open(path) == 0
    assert locators[0].read(ReadLimits()) == read[0]
    assert _count_open(path) == 1  # a reader of this thread's own: row 0 has gone by


@pytest.mark.parametrize("images", [["a.jpg", "b.jpg"], [b"a", b"b"]])
def test_first_of_equal_columns_is_used(tmp_path: Path, images: list[Any]) -> None:
    columns = {"image": images, "text": ["one", "two"], "other": [1, 2], "x": [b"c", b"d"]}
    table = pa.table(columns).rename_columns(["image", "text", "text", "image"])
    pq.write_table(table, tmp_path / "x.parquet")
    for which in ({"*": "*"}, {}):
        found = _all(tmp_path / "x.parquet", columns=which)
        assert _kinds(found) == "ii"
        assert [list(each.fields.values()) for each in found if isinstance(each, SourceItem)] == [["one"], ["two"]]
    if isinstance(images[0], bytes):
        read = [each.locator.read(ReadLimits()) for each in found if isinstance(each, SourceItem)]
        assert [each.data for each in read if each] == images


def _count_open(path: Path) -> int:
    links = list(Path("/proc/self/fd").iterdir())
    return sum(link.is_symlink() and link.readlink() == path for link in links)


def test_a_damaged_row_group_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"path": [f"{number}.jpg" for number in range(90)]}), path, row_group_size=30, compression="zstd")
    column, data = pq.ParquetFile(path).metadata.row_group(1).column(0), bytearray(path.read_bytes())
    start = column.dictionary_page_offset
    data[start + 20 : start + column.total_compressed_size] = bytes(column.total_compressed_size - 20)
    path.write_bytes(data)
    found = _all(path)
    assert _kinds(found) == "i" * 30 + "f" + "i" * 30
    assert found[30].uri.endswith("#rows=30-59")


def test_texts_in_lists_are_unchanged(tmp_path: Path) -> None:
    tags = [["a", "b"], None, [], ["a", None, "a"]]
    table = pa.table({"path": list("abcd"), "tags": tags, "kind": pa.array(list("xyxx")).dictionary_encode()})
    pq.write_table(table, tmp_path / "x.parquet")
    found = [each.fields for each in _all(tmp_path / "x.parquet", columns={"*": "*"}) if isinstance(each, SourceItem)]
    assert found == [
        {"tags": ["a", "b"], "kind": "x"},
        {"kind": "y"},
        {"tags": [], "kind": "x"},
        {"tags": ["a", "a"], "kind": "x"},
    ]


def test_files_without_line_ends_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_SKIPPED_BYTES", 3 << 20)
    for name, head in {"x.txt": b"a.jpg\n", "x.csv": b"path\na.jpg\n"}.items():
        (tmp_path / name).write_bytes(head + b"x" * (2 << 20) + b"\nb.jpg\n" + b"x" * (5 << 20) + b"\nc.jpg\n")
        found = _all(tmp_path / name)
        assert _kinds(found).startswith("ifi")
        assert "c.jpg" not in found[-1].uri
        assert isinstance(found[-1], ListingFailure)
        assert "doesn't end within" in found[-1].reason


def test_a_header_without_end_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_bytes(b"path," * 300_000 + b"\na.jpg\n")
    with pytest.raises(UsageError, match="header line"):
        _all(tmp_path / "x.csv")


def test_empty_lines_count_in_line_numbers(tmp_path: Path) -> None:
    for name, comment in {"x.txt": b"# c\n", "x.jsonl": b"\n"}.items():
        bad = b"\xff\n" if name == "x.txt" else b"{\n"
        (tmp_path / name).write_bytes(b"\n \t\n\r\n" + comment + bad + b"\n" * 70_000 + bad + b"\n  " + bad)
        assert [each.uri.rpartition("#")[2] for each in _all(tmp_path / name)] == ["line=5", "line=70006", "line=70008"]


def test_large_samples_are_listed_early(tmp_path: Path) -> None:
    parts = [build_tar_member("k.txt", b"all")]
    parts += [build_tar_member(f"k.{number}.jpg", b"x") for number in range(1500)]
    parts += [build_tar_member("k.json", b'{"n": 1}')]
    (tmp_path / "x.tar").write_bytes(b"".join(parts) + bytes(2 * tarfile.BLOCKSIZE))
    items = [each for each in _all(tmp_path / "x.tar", columns={"*": "*"}) if isinstance(each, SourceItem)]
    assert len({item.uri for item in items}) == 1500
    assert [item.fields.get("n") for item in (items[999], items[1000])] == [None, 1]
    assert {item.fields["txt"] for item in items} == {"all"}


def test_a_broken_header_of_a_compressed_tar_is_reported(tmp_path: Path) -> None:
    archive = build_tar_member("a.jpg", b"1") + b"garbage!" * 64 + build_tar_member("b.jpg", b"2") + bytes(2 * tarfile.BLOCKSIZE)
    found = _all(hostile_files.write_gzip(tmp_path / "x.tar.gz", (archive, 1)))
    assert _kinds(found) == "if"
    assert "bad header at byte 1024" in found[1].reason  # type: ignore[union-attr]

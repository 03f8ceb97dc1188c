"""Files that are meant to end a run, or to hide the rest of a source: each costs a failed entry."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from support.corpora.hostile_files import END, ROWS, build_deep_object, build_tar_member, write_false_counts
from support.corpora.ingest_sources import list_images, list_source, read_data

from stair_es.sources.base import ListingFailure, ReadLimits
from stair_es.sources.io import lines, parquet_cell, parquet_rows
from stair_es.sources.io.local_file import InlineBytes


@pytest.mark.parametrize("columns", [{"x": "x"}, {"*": "*"}])
def test_deeply_nested_member_fails_its_sample(tmp_path: Path, columns: dict[str, str]) -> None:
    members = [("a.jpg", b"1"), ("b.jpg", b"2"), ("b.json", b'{"x": %s}' % build_deep_object())]
    members += [("c.jpg", b"3"), ("c.json", b'{"x": 1}')]
    (tmp_path / "x.tar").write_bytes(b"".join(build_tar_member(name, data) for name, data in members) + END)
    listed = list_source(tmp_path / "x.tar", columns=columns)
    assert (listed.kinds, listed.failed_positions) == ("ifi", ["b.jpg"])
    assert "nested" in listed.failures[0].reason


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
    ids=["deep", "deeper", "deep image", "deep without image", "many numbers", "long text"],
)
def test_a_hostile_line_of_json_fails_alone(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n".join([b'{"path": "a.jpg", "x": 1}', line, b'{"path": "c.jpg"}']))
    listed = list_source(tmp_path / "x.jsonl", columns={"*": "*"})
    assert listed.kinds == "ifi"
    assert listed.failed_positions == ["line=2"]


def test_a_hostile_row_of_parquet_fails_alone(tmp_path: Path) -> None:
    long = ["one", "x" * 2_000_000, "three"]
    for name, images in {"cells": [b"1", b"2", b"3"], "paths": ["a.jpg", "b.jpg", "c.jpg"]}.items():
        pq.write_table(pa.table({"image": images, "caption": long, "tags": [["a"], ["b" * 2_000_000], None]}), tmp_path / name)
        for columns in ({}, {"t": "tags"}, {"*": "*"}):
            listed = list_source(tmp_path / name, columns=columns, format="parquet")
            assert listed.kinds == "ifi"
            assert listed.failed_positions == ["row=1"]


@pytest.mark.parametrize("kind", [pa.binary(), pa.string()])
@pytest.mark.parametrize("claimed", [0, 5, ROWS - 1, ROWS + 1, 1 << 45])
def test_counts_of_a_footer_are_not_believed(tmp_path: Path, claimed: int, kind: pa.DataType) -> None:
    table = pa.table({"image": pa.array([None] * ROWS, kind), "caption": ["x"] * ROWS})
    for counts in ({0}, {1}, {2}, range(10)):
        path = write_false_counts(tmp_path / "x.parquet", table, claimed, counts)
        for columns in ({}, {"*": "*"}, {"none": "image"}):
            listed = list_source(path, columns=columns)
            assert len(listed) <= ROWS + 1
            assert claimed <= ROWS or isinstance(listed[-1], ListingFailure)


def test_rows_of_all_groups_count_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": pa.array([None] * 900, pa.binary())}), tmp_path / "x.parquet", row_group_size=300)
    monkeypatch.setattr(parquet_rows, "PARQUET_FREE_ROWS", 700 - 16 * (tmp_path / "x.parquet").stat().st_size)
    listed = list_source(tmp_path / "x.parquet")
    assert len(listed) == 601
    assert listed.failed_positions[-1] == "rows=600-899"


def test_empty_cells_fail_while_listing(tmp_path: Path) -> None:
    image = pa.array([b"x" * 50, None, b"", *[None] * 50])
    pq.write_table(pa.table({"image": image}), tmp_path / "cells.parquet")
    structs = pa.StructArray.from_arrays([image, pa.nulls(53, pa.string())], ["bytes", "path"])
    pq.write_table(pa.table({"image": structs}), tmp_path / "structs.parquet")
    for name in ("cells.parquet", "structs.parquet"):
        listed = list_source(tmp_path / name)
        assert listed.kinds == "i" + "f" * 52
        assert read_data(listed[0]) == b"x" * 50


def test_large_cells_are_not_read_while_listing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(pa.table({"image": [bytes(10_000), *[None] * 99]}), tmp_path / "x.parquet", compression="zstd")
    assert list_source(tmp_path / "x.parquet").kinds == "i" + "f" * 99
    monkeypatch.setattr(parquet_rows, "PARQUET_BATCH_BYTES", 5000)
    assert list_source(tmp_path / "x.parquet").kinds == "i" * 100


@pytest.mark.parametrize(("limit", "value"), [("MAX_PARQUET_COLUMNS", 3), ("MAX_PARQUET_FOOTER_BYTES", None)])
def test_a_table_of_many_columns_fails(tmp_path: Path, limit: str, value: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    for columns in (3, 4):
        table = pa.table({"image": [b"x"], **{f"column_{i}": [i] for i in range(columns - 1)}})
        pq.write_table(table, tmp_path / f"{columns}.parquet", store_schema=False)
    footer_bytes = int.from_bytes((tmp_path / "3.parquet").read_bytes()[-8:-4], "little")
    monkeypatch.setattr(parquet_rows, limit, value or footer_bytes)
    assert list_source(tmp_path / "3.parquet").kinds == "i"
    assert list_source(tmp_path / "4.parquet").kinds == "f"


def test_images_in_texts_may_be_longer_than_fields(tmp_path: Path) -> None:
    images = [b"x", b"y" * 3_000_000]
    data = ["data:image/png;base64," + base64.b64encode(image).decode() for image in images]
    pq.write_table(pa.table({"image": data, "caption": ["a", "b"]}), tmp_path / "x.parquet")
    (tmp_path / "x.jsonl").write_text("\n".join(json.dumps({"image": each}) for each in data))
    for name in ("x.parquet", "x.jsonl"):
        assert [item.locator for item in list_images(tmp_path / name)] == [InlineBytes(image) for image in images]


def test_large_cells_are_read_in_any_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet_cell, "CELL_CACHE_BYTES", 100)
    images = [bytes([number]) * 60 for number in range(20)]
    pq.write_table(pa.table({"image": images}), tmp_path / "x.parquet")
    locators = [item.locator for item in list_images(tmp_path / "x.parquet")]
    for number in (0, 5, 1, 6, 2, 19, 7, 7, 0):
        read = locators[number].read(ReadLimits())
        assert read is not None
        assert read.data == images[number]


def test_row_groups_are_released_after_reading(tmp_path: Path) -> None:
    images = [bytes([number]) * 60 for number in range(90)]
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"image": images}), path, row_group_size=30)
    locators = [item.locator for item in list_images(path)]
    order = [*range(29), 30, 29, *range(31, 90), 31, 60]
    read = [locators[number].read(ReadLimits()) for number in order]
    assert [each.data for each in read if each] == [images[number] for number in order]
    assert count_open_files(path) == 0
    assert locators[0].read(ReadLimits()) == read[0]
    assert count_open_files(path) == 1  # a reader of this thread's own: row 0 has gone by


@pytest.mark.parametrize("images", [["a.jpg", "b.jpg"], [b"a", b"b"]])
def test_first_of_equal_columns_is_used(tmp_path: Path, images: list[Any]) -> None:
    table = pa.table({"image": images, "text": ["one", "two"], "other": [1, 2], "x": [b"c", b"d"]})
    pq.write_table(table.rename_columns(["image", "text", "text", "image"]), tmp_path / "x.parquet")
    for columns in ({"*": "*"}, {}):
        items = list_images(tmp_path / "x.parquet", columns=columns)
        assert [list(item.fields.values()) for item in items] == [["one"], ["two"]]
    if isinstance(images[0], bytes):
        assert [read_data(item) for item in items] == images


def count_open_files(path: Path) -> int:
    links = list(Path("/proc/self/fd").iterdir())
    return sum(link.is_symlink() and link.readlink() == path for link in links)


def test_a_damaged_row_group_fails_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    pq.write_table(pa.table({"path": [f"{number}.jpg" for number in range(90)]}), path, row_group_size=30, compression="zstd")
    column, data = pq.ParquetFile(path).metadata.row_group(1).column(0), bytearray(path.read_bytes())
    start = column.dictionary_page_offset
    data[start + 20 : start + column.total_compressed_size] = bytes(column.total_compressed_size - 20)
    path.write_bytes(data)
    listed = list_source(path)
    assert listed.kinds == "i" * 30 + "f" + "i" * 30
    assert listed.failed_positions == ["rows=30-59"]


def test_texts_in_lists_are_unchanged(tmp_path: Path) -> None:
    tags = [["a", "b"], None, [], ["a", None, "a"]]
    table = pa.table({"path": list("abcd"), "tags": tags, "kind": pa.array(list("xyxx")).dictionary_encode()})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [item.fields for item in list_images(tmp_path / "x.parquet", columns={"*": "*"})] == [
        {"tags": ["a", "b"], "kind": "x"},
        {"kind": "y"},
        {"tags": [], "kind": "x"},
        {"tags": ["a", "a"], "kind": "x"},
    ]


def test_files_without_line_ends_are_not_read_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_SKIPPED_BYTES", 3 << 20)
    for name, head in {"x.txt": b"a.jpg\n", "x.csv": b"path\na.jpg\n"}.items():
        (tmp_path / name).write_bytes(head + b"x" * (2 << 20) + b"\nb.jpg\n" + b"x" * (5 << 20) + b"\nc.jpg\n")
        listed = list_source(tmp_path / name)
        assert re.fullmatch("ifi.*f", listed.kinds)
        assert "c.jpg" not in listed[-1].uri
        assert f"{3 << 20:,}" in listed.failures[-1].reason


def test_empty_lines_count_in_line_numbers(tmp_path: Path) -> None:
    for name, comment in {"x.txt": b"# c\n", "x.jsonl": b"\n"}.items():
        invalid = b"\xff\n" if name == "x.txt" else b"{\n"
        (tmp_path / name).write_bytes(b"\n \t\n\r\n" + comment + invalid + b"\n" * 70_000 + invalid + b"\n  " + invalid)
        assert list_source(tmp_path / name).failed_positions == ["line=5", "line=70006", "line=70008"]


def test_large_samples_are_listed_early(tmp_path: Path) -> None:
    images = [build_tar_member(f"k.{number}.jpg", b"x") for number in range(1500)]
    members = [build_tar_member("k.txt", b"all"), *images, build_tar_member("k.json", b'{"n": 1}')]
    (tmp_path / "x.tar").write_bytes(b"".join(members) + END)
    items = list_images(tmp_path / "x.tar", columns={"*": "*"})
    assert len({item.uri for item in items}) == 1500
    assert [item.fields.get("n") for item in (items[999], items[1000])] == [None, 1]
    assert {item.fields["txt"] for item in items} == {"all"}

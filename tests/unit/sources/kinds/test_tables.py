"""Tables and lists: each form of an image column, further columns, and bad rows that stop nothing."""

from __future__ import annotations

import base64
import gzip
import os
import pickle
import random
import threading
import time
from collections.abc import Callable
from datetime import date, datetime
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest

from stair_es.errors import ReadError, UsageError
from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.io.resolve import ResolvedImage, resolve_image_reference
from stair_es.sources.kinds.fields import make_json_safe
from stair_es.sources.registry import open_source


def _all(path: Path | str, **options: Any) -> list[SourceItem | ListingFailure]:  # noqa: ANN401
    return list(open_source(str(path), SourceOptions(**options)).list_items())


def _good(path: Path | str, **options: Any) -> list[SourceItem]:  # noqa: ANN401
    found = _all(path, **options)
    assert not [each for each in found if isinstance(each, ListingFailure)]
    return [each for each in found if isinstance(each, SourceItem)]


def _bytes(item: SourceItem) -> bytes:
    read = pickle.loads(pickle.dumps(item.locator)).read(ReadLimits())
    assert read is not None
    return bytes(read.data)


def _settled(path: Path) -> Path:
    os.utime(path, (time.time() - 10, time.time() - 10))
    return path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "sub" / "b c.jpg").write_bytes(b"B")
    return tmp_path


def test_jsonl_has_paths_urls_and_bytes(folder: Path) -> None:
    table = folder / "t.jsonl"
    in_base64 = base64.b64encode(b"C").decode()
    table.write_text(
        '\ufeff{"path": "a.jpg", "caption": "one", "other": 1}\n\n'
        '{"file_name": "sub/b c.jpg", "text": "two"}\r\n'
        '{"url": "https://example.com/x.jpg?w=3&X-Amz-Signature=abc", "caption": null}\n'
        f'{{"image": {{"bytes": "{in_base64}", "path": "c.jpg"}}}}\n'
        f'{{"image": "data:image/png;base64,{in_base64}"}}\n'
        f'{{"src": "{(folder / "a.jpg").as_uri()}"}}\n'
    )
    items = _good(_settled(table))
    assert [item.uri for item in items] == [
        (folder / "a.jpg").as_uri(),
        (folder / "sub" / "b c.jpg").as_uri(),
        "https://example.com/x.jpg?w=3",
        f"{table.as_uri()}#line=5",
        f"{table.as_uri()}#line=6",
        (folder / "a.jpg").as_uri(),
    ]
    assert [dict(item.fields) for item in items[:3]] == [{"caption": "one"}, {"caption": "two"}, {}]
    assert isinstance(items[2].locator, UrlLocator)
    assert "pw" not in repr(items[2])
    assert "abc" not in repr(items[2])
    assert [_bytes(items[i]) for i in (0, 1, 3, 4)] == [b"A", b"B", b"C", b"C"]
    assert items[3].version is not None
    assert {item.source for item in items} == {table.as_uri()}


def test_bad_rows_of_jsonl_are_reported_with_their_line(folder: Path) -> None:
    table = folder / "t.jsonl"
    rows = [
        b'{"path": "a.jpg"}',
        b'{"path": ',
        b"[1]",
        b'{"path": null}',
        b'{"path": ""}',
        b'{"path": 7}',
        b'{"nothing": 1}',
        b'{"path": "ssh://host/x.jpg"}',
        b'{"path": "caf\xe9.jpg"}',
        b'{"path": "nul\\u0000.jpg"}',
        b'{"image": {"bytes": "%%%"}}',
        b'{"path": "' + b"x" * 2_000_000 + b'"}',
        b'{"path": "sub/b c.jpg"}',
    ]
    table.write_bytes(b"\n".join(rows))
    found = _all(table, read_limits=ReadLimits(max_bytes=1000))
    assert [isinstance(each, SourceItem) for each in found] == [True, *[False] * 11, True]
    lines = [each.uri.rpartition("#")[2] for each in found if isinstance(each, ListingFailure)]
    assert lines == [f"line={i}" for i in range(2, 13)]
    assert all(each.reason for each in found if isinstance(each, ListingFailure))


def test_pipes_are_read_only_when_named(folder: Path) -> None:
    for name in ("a.csv", "b.tar", "c.parquet", "d.txt"):
        os.mkfifo(folder / name)
        [found] = _all(f"{folder}/*{Path(name).suffix}")
        assert isinstance(found, ListingFailure)
        assert found.reason.endswith(f"{name} can't be read: not a regular file")
    writer = threading.Thread(target=(folder / "a.csv").write_text, args=("path\nsub/b c.jpg\n",))
    writer.start()
    assert _bytes(_good(folder / "a.csv")[0]) == b"B"
    writer.join()


def test_csv_and_tsv_with_their_odd_forms(folder: Path) -> None:
    (folder / "t.csv").write_text('\ufeffcaption,Path\r\n"one, ""two""\nthree",a.jpg\r\nplain,sub/b c.jpg\r\n')
    (folder / "t.tsv").write_text("path\tcaption\na.jpg\tx\n")
    (folder / "semicolons.csv").write_text("path;caption\na.jpg;x\n")
    with gzip.open(folder / "packed.csv.gz", "wt") as packed:
        packed.write("path,caption\na.jpg,x\n")
    first, second = _good(folder / "t.csv")
    assert (first.fields, _bytes(first)) == ({"caption": 'one, "two"\nthree'}, b"A")
    assert _bytes(second) == b"B"
    for name in ("t.tsv", "semicolons.csv", "packed.csv.gz"):
        [item] = _good(folder / name)
        assert (item.fields, _bytes(item)) == ({"caption": "x"}, b"A")


def test_bad_rows_of_csv_are_reported_with_their_line(folder: Path) -> None:
    table = folder / "t.csv"
    table.write_bytes(
        b'path,caption\na.jpg,x\na.jpg\n,empty\na.jpg,x,y\ncaf\xe9.jpg,x\n"a.jpg"z,x\n\nsub/b c.jpg,x\n"a.jpg,open\n'
    )
    found = _all(table)
    assert [(type(each).__name__, each.uri.rpartition("#")[2]) for each in found if isinstance(each, ListingFailure)] == [
        ("ListingFailure", f"line={i}") for i in (3, 4, 5, 6, 7, 10)
    ]
    assert [_bytes(each) for each in found if isinstance(each, SourceItem)] == [b"A", b"B"]


def test_columns_become_fields(folder: Path) -> None:
    (folder / "t.csv").write_text("path,alt,license,n\na.jpg,one,CC0,\n")
    assert _good(folder / "t.csv", columns={"caption": "alt"})[0].fields == {"caption": "one"}
    assert _good(folder / "t.csv", columns={"*": "*"})[0].fields == {"alt": "one", "license": "CC0"}
    assert _good(folder / "t.csv", columns={"*": "*", "caption": "alt"})[0].fields == {"caption": "one", "license": "CC0"}
    for options in ({"columns": {"caption": "none"}}, {"image_column": "none"}):
        with pytest.raises(UsageError, match="no column 'none'"):
            _all(folder / "t.csv", **options)
    (folder / "odd.csv").write_text("a,b\nx,a.jpg\n")
    assert _bytes(_good(folder / "odd.csv")[0]) == b"A"
    assert _bytes(_good(folder / "odd.csv", image_column="b")[0]) == b"A"


def test_values_become_valid_json() -> None:
    deep: Any = "end"
    for _ in range(12):
        deep = {"x": deep}
    values = {
        "when": datetime(2024, 5, 6, 7, 8),
        "day": date(2024, 5, 6),
        "nan": float("nan"),
        "small": np.float32(0.5),
        "array": np.arange(3),
        "price": Decimal("1.50"),
        "whole": Decimal("3"),
        "bytes": b"x",
        "huge": 2**70,
        "half": "\ud800",
        "object": pathlike,
        "yes": np.bool_(True),
    }
    assert make_json_safe(values) == {
        "when": "2024-05-06T07:08:00",
        "day": "2024-05-06",
        "small": 0.5,
        "array": [0, 1, 2],
        "price": 1.5,
        "whole": 3,
        "huge": str(2**70),
        "half": "?",
        "object": "/x",
        "yes": True,
    }
    assert isinstance(make_json_safe(deep), dict)
    assert '{"x":"end"}' in str(make_json_safe(deep))


pathlike = Path("/x")


def _parquet(path: Path, image: pa.Array, **columns: Any) -> Path:  # noqa: ANN401
    pq.write_table(pa.table({"image": image, **columns}), path, row_group_size=50)
    return _settled(path)


def test_parquet_cells_are_read_where_they_are(tmp_path: Path) -> None:
    values = [f"image {i}".encode() for i in range(120)]
    plain = _parquet(tmp_path / "plain.parquet", pa.array(values), caption=[f"c{i}" for i in range(120)])
    structs = _parquet(tmp_path / "structs.parquet", pa.array([{"bytes": value, "path": "x.jpg"} for value in values]))
    for table in (plain, structs):
        items = _good(table)
        assert [item.uri for item in items] == [f"{table.as_uri()}#row={i}" for i in range(120)]
        assert len({item.version for item in items}) == 120
        assert [_bytes(item) for item in items] == values
        assert [_bytes(items[i]) for i in (119, 3, 60, 2)] == [values[i] for i in (119, 3, 60, 2)]
        written = items[77].locator.to_json()
        assert written is not None
        assert restore_locator(written).read(ReadLimits()) == items[77].locator.read(ReadLimits())
        with pytest.raises(ReadError, match="exceed"):
            items[0].locator.read(ReadLimits(max_bytes=3))
    assert [item.fields for item in _good(plain)][:2] == [{"caption": "c0"}, {"caption": "c1"}]


def test_parquet_with_paths_urls_and_empty_cells(folder: Path) -> None:
    table = _parquet(folder / "t.parquet", pa.array(["a.jpg", None, "https://example.com/x.jpg"]), n=pa.array([1, 2, None]))
    found = _all(table, columns={"*": "*"})
    assert [each.uri for each in found] == [(folder / "a.jpg").as_uri(), f"{table.as_uri()}#row=1", "https://example.com/x.jpg"]
    assert isinstance(found[1], ListingFailure)
    assert isinstance(found[0], SourceItem)
    assert found[0].fields == {"n": 1}
    cells = _good(
        _parquet(folder / "c.parquet", pa.array([None, {"bytes": None, "path": "a.jpg"}, {"bytes": b"", "path": None}]))
    )
    with pytest.raises(ReadError, match="no image"):
        cells[0].locator.read(ReadLimits())
    assert _bytes(cells[1]) == b"A"
    with pytest.raises(ReadError, match="no image"):
        cells[2].locator.read(ReadLimits())


def test_a_broken_table_stops_no_other(folder: Path) -> None:
    tables = folder / "tables"
    tables.mkdir()
    _parquet(tables / "a.parquet", pa.array([b"1"]))
    content = (tables / "a.parquet").read_bytes()
    (tables / "b.parquet").write_bytes(content[:-10])
    _parquet(tables / "c.parquet", pa.array([b"3"]))
    found = _all(tables / "*.parquet")
    assert [type(each) for each in found] == [SourceItem, ListingFailure, SourceItem]
    assert found[1].uri == (tables / "b.parquet").as_uri()
    assert [type(each) for each in _all(tables, format="parquet")] == [SourceItem, ListingFailure, SourceItem]


def test_a_remote_table_names_no_local_file() -> None:
    import fsspec  # type: ignore[import-untyped]

    store = fsspec.filesystem("memory")
    store.pipe("/bucket/x/a.jpg", b"A")
    store.pipe("/bucket/x/t.csv", b"path\na.jpg\n/etc/hostname\nfile:///etc/hostname\n../b.jpg\n")
    found = _all("memory://bucket/x/t.csv")
    assert [type(each) for each in found] == [SourceItem, ListingFailure, ListingFailure, ListingFailure]
    assert isinstance(found[0], SourceItem)
    assert (found[0].uri, _bytes(found[0])) == ("memory://bucket/x/a.jpg", b"A")


def test_remote_parquet_is_read_cell_by_cell(tmp_path: Path) -> None:
    import fsspec

    path = _parquet(tmp_path / "t.parquet", pa.array([b"1", b"2"]))
    fsspec.filesystem("memory").pipe("/bucket/p/t.parquet", path.read_bytes())
    items = _good("memory://bucket/p/t.parquet")
    assert [(item.uri, _bytes(item)) for item in items] == [
        (f"memory://bucket/p/t.parquet#row={i}", b"12"[i : i + 1]) for i in (0, 1)
    ]


def test_lists_and_standard_input(folder: Path, monkeypatch: pytest.MonkeyPatch, set_stdin: Callable[[str], None]) -> None:
    text = "# a list\n\n  a.jpg  \nhttps://example.com/x.jpg#part\nsub/b c.jpg\ns3://bucket/a b#c.jpg\nftp://h/x.jpg\n"
    (folder / "list.txt").write_text(text)
    monkeypatch.chdir(folder)
    for argument in ("list.txt", "-"):
        set_stdin(text)
        found = _all(argument)
        assert [each.uri for each in found[:4]] == [
            (folder / "a.jpg").as_uri(),
            "https://example.com/x.jpg",
            (folder / "sub" / "b c.jpg").as_uri(),
            "s3://bucket/a b#c.jpg",
        ]
        assert [type(each) for each in found] == [SourceItem] * 4 + [ListingFailure]
    set_stdin('{"path": "a.jpg"}\n')
    assert _bytes(_good("-", format="jsonl")[0]) == b"A"
    set_stdin("path\na.jpg\n")
    assert _bytes(_good("-", format="csv")[0]) == b"A"


def test_one_url_is_a_source_without_its_secrets() -> None:
    source = open_source("https://example.com/x.jpg?sig=abc&sv=1&se=2")
    [item] = source.list_items()
    assert isinstance(item, SourceItem)
    assert item.uri == item.source == source.uri == "https://example.com/x.jpg"
    assert "abc" not in repr((item, source))


def test_urls_with_a_login_are_rejected_unsaved(folder: Path) -> None:
    with pytest.raises(UsageError, match="user name or password") as refused:
        open_source("https://u:hunter2@example.com/x.jpg")
    (folder / "t.txt").write_text("https://u:hunter2@example.com/x.jpg\n")
    [unlisted] = _all(folder / "t.txt")
    assert isinstance(unlisted, ListingFailure)
    assert unlisted.reason == "a URL with a user name or password isn't fetched; use a signed one: https://example.com/x.jpg"
    assert "hunter2" not in repr((unlisted, str(refused.value)))


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_formats_that_need_random_access_reject_a_pipe(kind: str) -> None:
    with pytest.raises(UsageError, match="standard input") as wrong:
        open_source("-", SourceOptions(format=kind))
    assert wrong.value.remedy


def test_bytes_in_place_of_a_list_are_one_error(folder: Path) -> None:
    (folder / "t.txt").write_bytes(b"\x1f\x8b\n" * 9)
    with pytest.raises(UsageError, match="not a list"):
        _all(folder / "t.txt")
    (folder / "t.txt").write_bytes(b"a.jpg\n\xff.jpg\n")
    assert [type(each) for each in _all(folder / "t.txt")] == [SourceItem, ListingFailure]


def test_csv_columns_become_numbers_on_request(folder: Path) -> None:
    (folder / "t.csv").write_text("path,cost,year\na.jpg,3,1999\na.jpg, 2.5 ,\na.jpg,n/a,\na.jpg,nan,1.5\n")
    found = _all(folder / "t.csv", columns={"price:float": "cost", "year:int": "year", "*": "*"})
    first, second, third, last = found
    assert (first.fields, second.fields) == ({"price": 3.0, "year": 1999}, {"price": 2.5})  # type: ignore[union-attr]
    assert isinstance(first.fields["price"], float)  # type: ignore[union-attr]  # or the engine would map a whole number first
    assert third.reason == "column 'cost' isn't of type float: 'n/a'"  # type: ignore[union-attr]
    assert last.reason == "column 'year' isn't of type int: '1.5'"  # type: ignore[union-attr]
    assert _good(folder / "t.csv", columns={"price": "cost"})[0].fields == {"price": "3"}


def test_unknown_jsonl_column_is_wrong_usage(folder: Path) -> None:
    table = folder / "t.jsonl"
    table.write_text('{"path": "a.jpg"}\n{"path": "a.jpg", "alt": "x"}\n')
    assert [item.fields for item in _good(table, columns={"caption": "alt"})] == [{}, {"caption": "x"}]
    for options in ({"columns": {"caption": "altt"}}, {"image_column": "altt"}):
        with pytest.raises(UsageError, match="has no column 'altt'") as wrong:
            _all(table, **options)
        assert "path, alt" in wrong.value.remedy
    (folder / "u.jsonl").write_text('{"path": "a.jpg"}\n')  # a column of few rows may be in none of a part
    assert [item.fields for item in _good(f"{folder}/[tu].jsonl", columns={"caption": "alt"})] == [{}, {"caption": "x"}, {}]
    table.write_text('{"path": "a.jpg"}\n' * 2000)
    stream = iter(open_source(str(table), SourceOptions(columns={"caption": "alt"})).list_items())
    assert len(list(islice(stream, 1000))) == 1000
    with pytest.raises(UsageError, match="in its first 1000 rows"):
        next(stream)


def test_a_table_in_utf_16_is_reported_as_such(folder: Path) -> None:
    (folder / "t.csv").write_text("path,caption\na.jpg,x\n", encoding="utf-16")
    with pytest.raises(UsageError, match="isn't UTF-8") as wrong:
        _all(folder / "t.csv")
    assert "UTF-8" in wrong.value.remedy


@pytest.mark.parametrize("name", ["none", "none.csv", "none.jsonl", "none.parquet", "none.tar", "none.txt", "no/*.jpg"])
def test_a_missing_source_is_reported_before_others_are_read(folder: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        open_source(str(folder / name))


def test_a_table_without_the_column_is_wrong_usage_if_it_is_the_first(folder: Path) -> None:
    (folder / "1.csv").write_text("path,n\na.jpg,1\n")
    (folder / "2.csv").write_text("path\na.jpg\n")
    with gzip.open(folder / "3.csv.gz", "wb") as packed:
        packed.write(b"path,n\n" + random.Random(0).randbytes(100_000))
    (folder / "3.csv.gz").write_bytes((folder / "3.csv.gz").read_bytes()[:50_000])
    found = _all(f"{folder}/*.csv*", columns={"n": "n"}, format="csv")
    assert [type(each) for each in found[:2]] == [SourceItem, ListingFailure]
    assert all(isinstance(each, ListingFailure) for each in found[1:])
    assert found[-1].uri == (folder / "3.csv.gz").as_uri()
    assert isinstance(found[-1], ListingFailure)
    assert "truncated" in found[-1].reason
    with pytest.raises(UsageError, match="no column 'n'"):
        _all(folder / "2.csv", columns={"n": "n"})


def test_a_uri_without_a_path_needs_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert isinstance(resolve_image_reference("file://a.jpg", tmp_path.as_uri()), ResolvedImage)
    gone.rmdir()
    assert "not a path" in str(resolve_image_reference("file://a.jpg", tmp_path.as_uri()))

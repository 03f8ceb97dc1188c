"""Tables and lists: each form of an image column, further columns, and invalid rows that stop nothing."""

from __future__ import annotations

import base64
import gzip
import os
import random
import re
import shlex
import threading
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
from support.corpora.ingest_sources import list_images, list_source, mark_settled, read_data
from support.errors import expect_error

from stair_es.errors import ReadError, UsageError
from stair_es.ingest.source_stream import SourceStream
from stair_es.sources.base import ReadLimits, SourceItem, SourceOptions
from stair_es.sources.http.locator import UrlLocator
from stair_es.sources.io.locator_registry import restore_locator
from stair_es.sources.io.resolve import ResolvedImage, resolve_image_reference
from stair_es.sources.kinds.fields import make_json_safe
from stair_es.sources.registry import open_source


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """A folder with `a.jpg` and `sub/b c.jpg`, whose bytes are A and B."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.jpg").write_bytes(b"A")
    (tmp_path / "sub" / "b c.jpg").write_bytes(b"B")
    return tmp_path


def test_jsonl_has_paths_urls_and_bytes(image_folder: Path) -> None:
    table = image_folder / "t.jsonl"
    in_base64 = base64.b64encode(b"C").decode()
    table.write_text(
        '\ufeff{"path": "a.jpg", "caption": "one", "other": 1}\n\n'
        '{"file_name": "sub/b c.jpg", "text": "two"}\r\n'
        '{"url": "https://example.com/x.jpg?w=3&X-Amz-Signature=abc", "caption": null}\n'
        f'{{"image": {{"bytes": "{in_base64}", "path": "c.jpg"}}}}\n'
        f'{{"image": "data:image/png;base64,{in_base64}"}}\n'
        f'{{"src": "{(image_folder / "a.jpg").as_uri()}"}}\n'
    )
    items = list_images(mark_settled(table))
    assert [item.uri for item in items] == [
        (image_folder / "a.jpg").as_uri(),
        (image_folder / "sub" / "b c.jpg").as_uri(),
        "https://example.com/x.jpg?w=3",
        f"{table.as_uri()}#line=5",
        f"{table.as_uri()}#line=6",
        (image_folder / "a.jpg").as_uri(),
    ]
    assert [dict(item.fields) for item in items[:3]] == [{"caption": "one"}, {"caption": "two"}, {}]
    assert isinstance(items[2].locator, UrlLocator)
    assert "pw" not in repr(items[2])
    assert "abc" not in repr(items[2])
    assert [read_data(items[i]) for i in (0, 1, 3, 4)] == [b"A", b"B", b"C", b"C"]
    assert items[3].version is not None
    assert {item.source for item in items} == {table.as_uri()}


def test_invalid_rows_of_jsonl_are_reported_with_their_line(image_folder: Path) -> None:
    table = image_folder / "t.jsonl"
    invalid = [
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
    ]
    table.write_bytes(b"\n".join([b'{"path": "a.jpg"}', *invalid, b'{"path": "sub/b c.jpg"}']))
    listed = list_source(table, read_limits=ReadLimits(max_bytes=1000))
    assert listed.kinds == "i" + "f" * 11 + "i"
    assert listed.failed_positions == [f"line={i}" for i in range(2, 13)]
    assert all(failure.reason for failure in listed.failures)


def test_pipes_are_read_only_when_named(image_folder: Path) -> None:
    for name in ("a.csv", "b.tar", "c.parquet", "d.txt"):
        os.mkfifo(image_folder / name)
        [failure] = list_source(f"{image_folder}/*{Path(name).suffix}").failures
        assert (image_folder / name).as_uri() in failure.reason
    writer = threading.Thread(target=(image_folder / "a.csv").write_text, args=("path\nsub/b c.jpg\n",))
    writer.start()
    assert read_data(list_images(image_folder / "a.csv")[0]) == b"B"
    writer.join()


def test_csv_has_quoted_line_ends_and_a_byte_order_mark(image_folder: Path) -> None:
    (image_folder / "t.csv").write_text('\ufeffcaption,Path\r\n"one, ""two""\nthree",a.jpg\r\nplain,sub/b c.jpg\r\n')
    items = list_images(image_folder / "t.csv")
    assert items[0].fields == {"caption": 'one, "two"\nthree'}
    assert [read_data(item) for item in items] == [b"A", b"B"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("tabs.tsv", b"path\tcaption\na.jpg\tx\n"),
        ("semicolons.csv", b"path;caption\na.jpg;x\n"),
        ("packed.csv.gz", gzip.compress(b"path,caption\na.jpg,x\n")),
    ],
    ids=["tabs", "semicolons", "gzip"],
)
def test_csv_has_other_delimiters_and_gzip(image_folder: Path, name: str, content: bytes) -> None:
    (image_folder / name).write_bytes(content)
    [item] = list_images(image_folder / name)
    assert (item.fields, read_data(item)) == ({"caption": "x"}, b"A")


def test_invalid_rows_of_csv_are_reported_with_their_line(image_folder: Path) -> None:
    table = image_folder / "t.csv"
    table.write_bytes(
        b'path,caption\na.jpg,x\na.jpg\n,empty\na.jpg,x,y\ncaf\xe9.jpg,x\n"a.jpg"z,x\n\nsub/b c.jpg,x\n"a.jpg,open\n'
    )
    listed = list_source(table)
    assert listed.failed_positions == [f"line={i}" for i in (3, 4, 5, 6, 7, 10)]
    assert [read_data(item) for item in listed.images] == [b"A", b"B"]


@pytest.mark.parametrize(
    ("columns", "fields"),
    [
        ({"caption": "alt"}, {"caption": "one"}),
        ({"*": "*"}, {"alt": "one", "license": "CC0"}),
        ({"*": "*", "caption": "alt"}, {"caption": "one", "license": "CC0"}),
    ],
)
def test_columns_become_fields(image_folder: Path, columns: dict[str, str], fields: dict[str, str]) -> None:
    (image_folder / "t.csv").write_text("path,alt,license,n\na.jpg,one,CC0,\n")
    [item] = list_images(image_folder / "t.csv", columns=columns)
    assert item.fields == fields


def test_image_column_is_chosen_by_name_or_content(image_folder: Path) -> None:
    table = image_folder / "odd.csv"
    table.write_text("a,b\nx,a.jpg\n")
    assert read_data(list_images(table)[0]) == read_data(list_images(table, image_column="b")[0]) == b"A"
    for options in ({"columns": {"caption": "none"}}, {"image_column": "none"}):
        with expect_error("no-such-column", UsageError) as caught:
            list_source(table, **options)
        assert "'none'" in caught.value.message


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        (datetime(2024, 5, 6, 7, 8), {"x": "2024-05-06T07:08:00"}),
        (date(2024, 5, 6), {"x": "2024-05-06"}),
        (float("nan"), {}),
        (np.float32(0.5), {"x": 0.5}),
        (np.arange(3), {"x": [0, 1, 2]}),
        (Decimal("1.50"), {"x": 1.5}),
        (Decimal("3"), {"x": 3}),
        (b"x", {}),
        (2**70, {"x": str(2**70)}),
        ("\ud800", {"x": "?"}),
        (Path("/x"), {"x": "/x"}),
        (np.bool_(True), {"x": True}),
    ],
)
def test_values_become_valid_json(value: object, fields: dict[str, object]) -> None:
    assert make_json_safe({"x": value}) == fields


def test_deep_values_become_json_text() -> None:
    deep: Any = "end"
    for _ in range(12):
        deep = {"x": deep}
    safe = make_json_safe(deep)
    assert isinstance(safe, dict)
    assert '{"x":"end"}' in str(safe)


def write_parquet(path: Path, image: pa.Array, **columns: Any) -> Path:  # noqa: ANN401
    pq.write_table(pa.table({"image": image, **columns}), path, row_group_size=50)
    return mark_settled(path)


def test_parquet_cells_are_read_where_they_are(tmp_path: Path) -> None:
    values = [f"image {i}".encode() for i in range(120)]
    plain = write_parquet(tmp_path / "plain.parquet", pa.array(values), caption=[f"c{i}" for i in range(120)])
    structs = write_parquet(tmp_path / "structs.parquet", pa.array([{"bytes": value, "path": "x.jpg"} for value in values]))
    for table in (plain, structs):
        items = list_images(table)
        assert [item.uri for item in items] == [f"{table.as_uri()}#row={i}" for i in range(120)]
        assert len({item.version for item in items}) == 120
        assert [read_data(item) for item in items] == values
        assert [read_data(items[i]) for i in (119, 3, 60, 2)] == [values[i] for i in (119, 3, 60, 2)]
        written = items[77].locator.to_json()
        assert written is not None
        assert restore_locator(written).read(ReadLimits()) == items[77].locator.read(ReadLimits())
        with expect_error("file-too-large", ReadError):
            items[0].locator.read(ReadLimits(max_bytes=3))
    assert [item.fields for item in list_images(plain)][:2] == [{"caption": "c0"}, {"caption": "c1"}]


def test_parquet_has_paths_urls_and_empty_cells(image_folder: Path) -> None:
    references = pa.array(["a.jpg", None, "https://example.com/x.jpg"])
    table = write_parquet(image_folder / "t.parquet", references, n=pa.array([1, 2, None]))
    listed = list_source(table, columns={"*": "*"})
    assert listed.kinds == "ifi"
    assert [each.uri for each in listed] == [
        (image_folder / "a.jpg").as_uri(),
        f"{table.as_uri()}#row=1",
        "https://example.com/x.jpg",
    ]
    assert listed.images[0].fields == {"n": 1}
    structs = pa.array([None, {"bytes": None, "path": "a.jpg"}, {"bytes": b"", "path": None}])
    first, second, third = list_images(write_parquet(image_folder / "c.parquet", structs))
    for empty in (first, third):
        with expect_error("not-an-image-reference"):
            read_data(empty)
    assert read_data(second) == b"A"


def test_a_broken_table_stops_no_other(tmp_path: Path) -> None:
    for name in "abc":
        write_parquet(tmp_path / f"{name}.parquet", pa.array([b"1"]))
    (tmp_path / "b.parquet").write_bytes((tmp_path / "a.parquet").read_bytes()[:-10])
    listed = list_source(tmp_path / "*.parquet")
    assert listed.kinds == list_source(tmp_path, format="parquet").kinds == "ifi"
    assert listed[1].uri == (tmp_path / "b.parquet").as_uri()


def test_a_remote_table_names_no_local_file() -> None:
    import fsspec  # type: ignore[import-untyped]

    store = fsspec.filesystem("memory")
    store.pipe("/bucket/x/a.jpg", b"A")
    store.pipe("/bucket/x/t.csv", b"path\na.jpg\n/etc/hostname\nfile:///etc/hostname\n../b.jpg\n")
    listed = list_source("memory://bucket/x/t.csv")
    assert listed.kinds == "ifff"
    assert (listed[0].uri, read_data(listed[0])) == ("memory://bucket/x/a.jpg", b"A")


def test_remote_parquet_is_read_cell_by_cell(tmp_path: Path) -> None:
    import fsspec

    path = write_parquet(tmp_path / "t.parquet", pa.array([b"1", b"2"]))
    fsspec.filesystem("memory").pipe("/bucket/p/t.parquet", path.read_bytes())
    uri = "memory://bucket/p/t.parquet"
    assert [(item.uri, read_data(item)) for item in list_images(uri)] == [(f"{uri}#row=0", b"1"), (f"{uri}#row=1", b"2")]


def test_lists_and_standard_input(image_folder: Path, monkeypatch: pytest.MonkeyPatch, set_stdin: Callable[[str], None]) -> None:
    text = "# a list\n\n  a.jpg  \nhttps://example.com/x.jpg#part\nsub/b c.jpg\ns3://bucket/a b#c.jpg\nftp://h/x.jpg\n"
    (image_folder / "list.txt").write_text(text)
    monkeypatch.chdir(image_folder)
    for argument in ("list.txt", "-"):
        set_stdin(text)
        listed = list_source(argument)
        assert listed.kinds == "iiiif"
        assert [each.uri for each in listed[:4]] == [
            (image_folder / "a.jpg").as_uri(),
            "https://example.com/x.jpg",
            (image_folder / "sub" / "b c.jpg").as_uri(),
            "s3://bucket/a b#c.jpg",
        ]
    for format_, text in {"jsonl": '{"path": "a.jpg"}\n', "csv": "path\na.jpg\n"}.items():
        set_stdin(text)
        assert read_data(list_images("-", format=format_)[0]) == b"A"


def test_one_url_is_a_source_without_its_secrets() -> None:
    source = open_source("https://example.com/x.jpg?sig=abc&sv=1&se=2")
    [item] = source.list_items()
    assert isinstance(item, SourceItem)
    assert item.uri == item.source == source.uri == "https://example.com/x.jpg"
    assert "abc" not in repr((item, source))


def test_urls_with_a_login_are_rejected_unsaved(image_folder: Path) -> None:
    url = "https://u:hunter2@example.com/x.jpg"
    with expect_error("url-with-login", UsageError) as caught:
        open_source(url)
    (image_folder / "t.txt").write_text(f"{url}\n")
    [failure] = list_source(image_folder / "t.txt").failures
    assert all(fact in failure.reason for fact in ("https://example.com/x.jpg", "user name"))
    assert "hunter2" not in repr((failure, str(caught.value)))


@pytest.mark.parametrize("kind", ["parquet", "webdataset"])
def test_formats_that_need_random_access_reject_a_pipe(kind: str) -> None:
    with expect_error("stdin-not-supported", UsageError) as caught:
        open_source("-", SourceOptions(format=kind))
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("t.txt", b"\x1f\x8b\n" * 9, "list-not-utf-8"),
        ("t.csv", "path,caption\na.jpg,x\n".encode("utf-16"), "header-not-utf-8"),
        ("t.csv", b"path," * 300_000 + b"\na.jpg\n", "header-too-long"),
    ],
    ids=["gzip", "utf-16", "long header"],
)
def test_files_of_another_format_are_one_error(tmp_path: Path, name: str, content: bytes, code: str) -> None:
    (tmp_path / name).write_bytes(content)
    with expect_error(code, UsageError):
        list_source(tmp_path / name)


def test_csv_columns_become_numbers_on_request(image_folder: Path) -> None:
    table = image_folder / "t.csv"
    table.write_text("path,cost,year\na.jpg,3,1999\na.jpg, 2.5 ,\na.jpg,n/a,\na.jpg,nan,1.5\n")
    listed = list_source(table, columns={"price:float": "cost", "year:int": "year", "*": "*"})
    assert listed.kinds == "iiff"
    items, failures = listed.images, listed.failures
    assert [item.fields for item in items] == [{"price": 3.0, "year": 1999}, {"price": 2.5}]
    assert isinstance(items[0].fields["price"], float)  # or the engine would map a whole number first
    assert all(fact in failures[0].reason for fact in ("'cost'", "float", "'n/a'"))
    assert all(fact in failures[1].reason for fact in ("'year'", "int", "'1.5'"))
    assert list_images(table, columns={"price": "cost"})[0].fields == {"price": "3"}


def list_remarks(table: Path, columns: dict[str, str]) -> tuple[str, ...]:
    """List a table, and return the remarks on its columns."""
    stream = SourceStream([open_source(str(table), SourceOptions(columns=columns))], columns)
    assert all(isinstance(found, SourceItem) for found in stream)
    return stream.remarks


def read_options(remark: str) -> list[str]:
    """Return the values of the options that a remark proposes."""
    return shlex.split(remark.partition("--field ")[2].partition(" (")[0].replace(" --field ", " "))


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["3", "", "-20", " 0 ", "9223372036854775807"], "int"),
        (["3", "20.5", "-0.25", "1e-05"], "float"),
        (["01234", "12345"], None),
        (["9223372036854775808"], None),
        (["1" * 50], None),
        (["1e999"], None),
        (["3", "n/a"], None),
        (["3", "1,5"], None),
        (["1_000"], None),
        (["+4930123456"], None),
        (["2024-05-06"], None),
        (["", ""], None),
    ],
)
def test_texts_that_look_like_numbers_are_remarked_on(image_folder: Path, values: list[str], kind: str | None) -> None:
    table = image_folder / "t.csv"
    table.write_text("path;amount\n" + "".join(f"a.jpg;{value}\n" for value in values))
    options = [option for remark in list_remarks(table, {"n": "amount"}) for option in read_options(remark)]
    assert options == ([f"n:{kind}=amount"] if kind else [])


def test_the_remark_names_an_option_that_works(image_folder: Path) -> None:
    table = image_folder / "t.jsonl"
    table.write_text('{"path": "a.jpg", "unit price": "2.5", "stock": "3", "sizes": ["4"], "year": 1999, "a,b": "1", "k": "x"}\n')
    copied, remark = list_remarks(table, {"*": "*", "left": "stock"})
    assert all(name in copied for name in ("left", "unit price", "sizes", "year", "a,b", "k"))
    assert read_options(remark) == ["*", "left:int=stock,unit price:float=unit price"]
    assert list_remarks(table, {"caption": "k", "left:int": "stock"}) == list_remarks(table, {}) == ()


def test_remarks_are_made_from_the_first_rows(image_folder: Path) -> None:
    table = image_folder / "t.csv"
    table.write_text("path,price\n" + "a.jpg,1\n" * 1000 + "a.jpg,none\n")
    columns = {"price": "price"}
    stream = SourceStream([open_source(str(table), SourceOptions(columns=columns))], columns)
    for _ in islice(stream, 1000):
        pass
    [remark] = stream.remarks  # while the rest is still to be listed
    assert list_remarks(table, columns) == (remark,)
    wide = image_folder / "wide.csv"
    wide.write_text("path," + ",".join(f"c{i}" for i in range(5000)) + "\na.jpg" + ",1" * 5000 + "\n")
    assert [len(option.split(",")) for option in read_options(list_remarks(wide, {"*": "*"})[1])] == [1, 100]


def test_unknown_jsonl_column_is_wrong_usage(image_folder: Path) -> None:
    table = image_folder / "t.jsonl"
    table.write_text('{"path": "a.jpg"}\n{"path": "a.jpg", "alt": "x"}\n')
    assert [item.fields for item in list_images(table, columns={"caption": "alt"})] == [{}, {"caption": "x"}]
    for options in ({"columns": {"caption": "altt"}}, {"image_column": "altt"}):
        with expect_error("no-such-column") as caught:
            list_source(table, **options)
        assert "'altt'" in caught.value.message
        assert "path, alt" in caught.value.remedy
    (image_folder / "u.jsonl").write_text('{"path": "a.jpg"}\n')  # a column of few rows may be in none of a part
    items = list_images(f"{image_folder}/[tu].jsonl", columns={"caption": "alt"})
    assert [item.fields for item in items] == [{}, {"caption": "x"}, {}]
    table.write_text('{"path": "a.jpg"}\n' * 2000)
    stream = iter(open_source(str(table), SourceOptions(columns={"caption": "alt"})).list_items())
    assert len(list(islice(stream, 1000))) == 1000
    with expect_error("no-such-column") as caught:
        next(stream)
    assert "1000 rows" in caught.value.message


@pytest.mark.parametrize("name", ["none", "none.csv", "none.jsonl", "none.parquet", "none.tar", "none.txt", "no/*.jpg"])
def test_a_missing_source_is_reported_before_others_are_read(image_folder: Path, name: str) -> None:
    with expect_error("no-such-file", UsageError):
        open_source(str(image_folder / name))


def test_the_first_table_must_have_the_columns(image_folder: Path) -> None:
    (image_folder / "1.csv").write_text("path,n\na.jpg,1\n")
    (image_folder / "2.csv").write_text("path\na.jpg\n")
    packed = image_folder / "3.csv.gz"
    packed.write_bytes(gzip.compress(b"path,n\n" + random.Random(0).randbytes(100_000))[:50_000])
    listed = list_source(f"{image_folder}/*.csv*", columns={"n": "n"}, format="csv")
    assert re.fullmatch("if+", listed.kinds)
    assert listed[1].uri == (image_folder / "2.csv").as_uri()
    assert listed[-1].uri == packed.as_uri()
    assert "truncated" in listed.failures[-1].reason
    with expect_error("no-such-column"):
        list_source(image_folder / "2.csv", columns={"n": "n"})


def test_a_uri_without_a_path_needs_no_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    assert isinstance(resolve_image_reference("file://a.jpg", tmp_path.as_uri()), ResolvedImage)
    gone.rmdir()
    assert isinstance(resolve_image_reference("file://a.jpg", tmp_path.as_uri()), str)


@pytest.mark.parametrize(
    "data",
    [
        b"\xff\xd8\xff\xe0" + bytes(60),
        b"\x89PNG\r\n\x1a\n" + bytes(60),
        b"GIF89a" + bytes(60),
        b"RIFF\x01\x02\x03\x04WEBP" + bytes(60),
        b"\0\0\0\x1cftypavif" + bytes(60),
    ],
)
def test_the_base64_of_an_image_is_told_from_a_path(data: bytes, tmp_path: Path) -> None:
    text = base64.encodebytes(data).decode()
    resolved = resolve_image_reference(text, tmp_path.as_uri())
    assert isinstance(resolved, ResolvedImage)
    read = resolved.locator.read(ReadLimits())
    assert read is not None
    assert (resolved.uri, read.data) == (None, data)
    short = resolve_image_reference(text[:20], tmp_path.as_uri())
    assert isinstance(short, ResolvedImage)
    assert short.uri is not None

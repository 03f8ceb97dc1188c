"""Small files that take gigabytes, minutes, or the rest of their source with them, if they are read without limits: for tests."""

from __future__ import annotations

import json
import resource
import struct
import sys
import tarfile
import time
import zlib
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pyarrow as pa  # type: ignore[import-untyped]
import pyarrow.parquet as pq  # type: ignore[import-untyped]

from stair_es.sources.base import ListingFailure, ReadLimits, SourceItem, SourceOptions
from stair_es.sources.io.parquet_cell import ParquetCellLocator
from stair_es.sources.registry import open_source

MB = 1_000_000
DEEP = 1000
"""More levels than Python's recursion takes."""


def write_gzip(path: Path, *parts: tuple[bytes, int]) -> Path:
    """Write a gzip file of (block, how many times), at the cost of packing each block once."""
    crc = size = 0
    with path.open("wb") as file:
        file.write(b"\x1f\x8b\x08\0\0\0\0\0\0\xff")
        for block, times in parts:
            deflate = zlib.compressobj(1, zlib.DEFLATED, -15)
            packed = deflate.compress(block) + deflate.flush(zlib.Z_FULL_FLUSH)
            for _ in range(times):
                file.write(packed)
                crc = zlib.crc32(block, crc)
                size += len(block)
        file.write(zlib.compressobj(1, zlib.DEFLATED, -15).flush() + struct.pack("<LL", crc, size & 0xFFFFFFFF))
    return path


def build_tar_member(name: str, data: bytes = b"", *, size: int | None = None, kind: bytes = tarfile.REGTYPE) -> bytes:
    """Return a tar member with padding; with `size` its header alone."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(data) if size is None else size
    head = info.tobuf(tarfile.GNU_FORMAT)
    return head if size is not None else head + data + bytes(-len(data) % tarfile.BLOCKSIZE)


def build_deep_object(levels: int = DEEP) -> bytes:
    """Return deeply nested objects."""
    return b'{"a":' * levels + b"1" + b"}" * levels


END = bytes(2 * tarfile.BLOCKSIZE)
_IMAGE = build_tar_member("first.jpg", b"x")


def _plan_long_header(kind: bytes) -> Callable[[Path], Path]:
    size = 704 * MB // 2**20 * 2**20
    return lambda path: write_gzip(
        path,
        (_IMAGE + build_tar_member("x", size=size, kind=kind), 1),
        (b"n" * 2**20, size >> 20),
        (build_tar_member("last.jpg", b"x") + END, 1),
    )


def _write_images_of_one_key(path: Path) -> Path:
    parts = [
        part for number in range(8) for part in ((build_tar_member(f"k.{number}.jpg", size=100 << 20), 1), (bytes(2**20), 100))
    ]
    return write_gzip(path, *parts, (END, 1))


def _write_texts_of_one_key(path: Path) -> Path:
    parts = [
        part for number in range(700) for part in ((build_tar_member(f"k.{number}.txt", size=1 << 20), 1), (b"t" * 2**20, 1))
    ]
    return write_gzip(path, (build_tar_member("k.jpg", b"x"), 1), *parts, (END, 1))


def _write_long_names(path: Path) -> Path:
    """Members with names of 250 kB, each another one."""
    blocks = [(build_tar_member("n", b"m%04d." % number + b"n" * 250_000, kind=b"L"), 1) for number in range(1000)]
    header = build_tar_member("m.x", b"")
    return write_gzip(path, (_IMAGE, 1), *((block + header, times) for block, times in blocks), (END, 1))


def _write_sparse_map(path: Path) -> Path:
    entry = (b"%011o\0" % 512) * 2
    block = entry * 21 + b"\1" + bytes(7)
    head = bytearray(build_tar_member("s.jpg", size=0, kind=tarfile.GNUTYPE_SPARSE))
    head[386:410], head[482] = entry, 1
    head[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(head))[0]  # type: ignore[attr-defined]
    return write_gzip(path, (_IMAGE + bytes(head), 1), (block * 2048, 200))


def _write_global_records(path: Path) -> Path:
    records = [b"%d %s=%s\n" % (17 + 200_000, b"key%05d" % number, b"v" * 200_000) for number in range(1000)]
    parts = [(build_tar_member("g", record, kind=tarfile.XGLTYPE) + build_tar_member("x.txt", b"x"), 1) for record in records]
    return write_gzip(path, (_IMAGE, 1), *parts, (END, 1))


def _write_long_number(path: Path) -> Path:
    path.write_bytes(
        _IMAGE + build_tar_member("x", b"1" * 200_000, kind=tarfile.XHDTYPE) + build_tar_member("last.jpg", b"x") + END
    )
    return path


def _plan_gzip_lines(list_parts: Callable[[], list[tuple[bytes, int]]], last: bytes) -> Callable[[Path], Path]:
    return lambda path: write_gzip(path, *list_parts(), (b"\n" + last + b"\n", 1))


_LAST_ROW = b'{"path": "last.jpg"}'


def _plan_parquet(**columns: Callable[[], pa.Array]) -> Callable[[Path], Path]:
    def write_table(path: Path) -> Path:
        table = pa.table({name: build_column() for name, build_column in columns.items()})
        pq.write_table(table, path, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
        return path

    return write_table


def _repeat_value(value: str | bytes, count: int, *, times: int = 1) -> Callable[[], pa.Array]:
    """Plan `count` cells of `value * times`. Importing this module, as all workers do, makes none of the large ones."""
    return lambda: pa.DictionaryArray.from_arrays(pa.array([0] * count, pa.int32()), pa.array([value * times]))


def _repeat_in_lists(value: str, count: int, rows: int, *, times: int) -> Callable[[], pa.Array]:
    cells = _repeat_value(value, count * rows, times=times)
    return lambda: pa.ListArray.from_arrays([row * count for row in range(rows + 1)], cells())


ROWS = 4_321
"""Rows of a table whose footer claims others."""


def write_false_counts(path: Path, table: pa.Table, claimed: int, counts: Collection[int] = range(10)) -> Path:
    """Write a table of `ROWS` rows in a row group, whose footer says `claimed` in some of the places with a count."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer, store_schema=False)
    data = buffer.getvalue().to_pybytes()
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    first, *others = data[start:-8].split(_build_varint(ROWS))
    footer = first + b"".join(_build_varint(claimed if i in counts else ROWS) + part for i, part in enumerate(others))
    path.write_bytes(data[:start] + footer + len(footer).to_bytes(4, "little") + b"PAR1")
    return path


def _build_varint(number: int) -> bytes:
    """Return a positive number as Thrift's compact protocol has it."""
    septets = [(number << 1) >> shift & 0x7F for shift in range(0, number.bit_length() + 1, 7)]
    return bytes([*(septet | 0x80 for septet in septets[:-1]), septets[-1]])


FILES: dict[str, Callable[[Path], Path]] = {
    "long-name.tar.gz": _plan_long_header(tarfile.GNUTYPE_LONGNAME),
    "pax-header.tar.gz": _plan_long_header(tarfile.XHDTYPE),
    "long-names.tar.gz": _write_long_names,
    "global-records.tar.gz": _write_global_records,
    "sparse-map.tar.gz": _write_sparse_map,
    "digits.tar": _write_long_number,
    "one-key.tar.gz": _write_images_of_one_key,
    "texts-of-one-key.tar.gz": _write_texts_of_one_key,
    "objects.jsonl.gz": _plan_gzip_lines(
        lambda: [(b'{"path": "a.jpg", "x": [', 1), (b"{}," * 2**20, 18), (b"{}]}", 1)], _LAST_ROW
    ),
    "long-line.jsonl.gz": _plan_gzip_lines(lambda: [(b"{}," * 2**20, 90)], _LAST_ROW),
    "emoji.jsonl.gz": _plan_gzip_lines(lambda: [(b'{"path": "\\ud83d\\ude00', 1), (b"x" * 2**20, 60), (b'"}', 1)], _LAST_ROW),
    "line-ends.jsonl.gz": _plan_gzip_lines(lambda: [(_LAST_ROW, 1), (b"\n" * 2**20, 300)], _LAST_ROW),
    "line-ends.csv.gz": _plan_gzip_lines(lambda: [(b"path\nfirst.jpg", 1), (b"\n" * 2**20, 300)], b"last.jpg"),
    "commas.csv.gz": _plan_gzip_lines(lambda: [(b"path\nfirst.jpg\n", 1), (b"," * 2**20, 100)], b"last.jpg"),
    "comments.txt.gz": _plan_gzip_lines(lambda: [(b"first.jpg\n", 1), (b"#\n" * 2**20, 150)], b"last.jpg"),
    "captions-2.parquet": _plan_parquet(path=_repeat_value("a.jpg", 400), caption=_repeat_value("x", 400, times=2 * MB)),
    "captions-8.parquet": _plan_parquet(path=_repeat_value("a.jpg", 100), caption=_repeat_value("x", 100, times=8 * MB)),
    "lists.parquet": _plan_parquet(path=_repeat_value("a.jpg", 2), caption=_repeat_in_lists("x", 1000, 2, times=MB)),
    "nulls.parquet": _plan_parquet(
        path=_repeat_value("a.jpg", 1), caption=lambda: pa.array([[None] * 10 * MB], pa.list_(pa.int8()))
    ),
    "cells.parquet": _plan_parquet(image=_repeat_value(b"\0", 8, times=100 << 20)),
    "rows.parquet": lambda path: write_false_counts(path, pa.table({"image": pa.array([None] * ROWS, pa.binary())}), 1 << 45),
    "dictionary.parquet": _plan_parquet(path=_repeat_value("a.jpg", 3), caption=_repeat_value("x", 3, times=200 * MB)),
}
"""Name -> what writes it."""


def _measure_listing(path: Path) -> dict[str, Any]:
    """Return the images and failures of a file, and the memory and time of its listing."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again
    before_mb, start = _read_status_mb("VmRSS"), time.process_time()
    counts = Counter[str]()
    reasons, last = list[str](), ""
    for each in open_source(str(path), SourceOptions(columns={"*": "*"})).list_items():
        kind = "failed" if isinstance(each, ListingFailure) else "images"
        if isinstance(each, SourceItem) and isinstance(each.locator, ParquetCellLocator):
            each.locator.read(ReadLimits())
        last = each.uri.rpartition("/")[2]
        counts[kind] += 1
        reasons += [each.reason] if isinstance(each, ListingFailure) and len(reasons) < 3 else []
    elapsed_s = time.process_time() - start
    return {**counts, "last": last, "reasons": reasons, "mb": _read_status_mb("VmHWM") - before_mb, "s": round(elapsed_s, 2)}


def _read_status_mb(name: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.partition(f"{name}:")[2].split()[0]) >> 10


def main(folder: str, names: list[str]) -> None:
    """Write the files, read them one after another in this process, print a line of JSON for each."""
    limit = (_read_status_mb("VmData") << 20) + (3 << 30)  # what has no limit of its own must not take the machine
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for name in names or FILES:
        path = FILES[name](Path(folder) / name)
        try:
            report = _measure_listing(path)
        except Exception as error:  # noqa: BLE001
            report = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps({"name": name, "bytes": path.stat().st_size, **report}), flush=True)
        path.unlink()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])

"""Limits on one entry of a source: an image, a line, a row, a sample. Documented in docs/sources.md#limits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import islice

from stair_es.errors import ReadError

MAX_FIELDS_BYTES = 1 << 20
"""Fields of one document, as counted by `fields.estimate_json_bytes`."""
MAX_JSON_LINE_BYTES = 64 << 20
"""A line of JSON, including an image in it."""
MAX_JSON_LINE_MARKS = 1 << 18
"""Characters of a JSON line that start or separate values; each may become an object of 64 bytes or more."""
MAX_LIST_LINE_BYTES = 1 << 16
"""A line of a list of paths and URLs."""
MAX_REFERENCE_CHARS = 1 << 16
"""A path or a URL in a table."""
MAX_CSV_ROW_CHARS = 1 << 20
"""A row of CSV, including quoted line ends; a single cell may have 128 Ki, the limit of Python's module `csv`."""
MAX_BLANK_BYTES = 4 << 20
"""Consecutive empty lines and comments; beyond this the rest of the file is not read."""
MAX_SKIPPED_BYTES = 1 << 30
"""Bytes skipped of a line that is too long; without a line end by then, the rest of the file is not read."""
MAX_TEXT_BYTES = 1 << 20
"""A text member of a tar."""
MAX_SAMPLE_TEXT_BYTES = 4 << 20
"""All texts of a sample, plus `MEMBER_COST` bytes for each."""
MEMBER_COST = 512
MAX_SAMPLE_IMAGES, MAX_SAMPLE_BYTES = 1000, 64 << 20
"""Images of a sample, and their bytes in a compressed tar, that wait for the sample's texts; beyond that, they go without."""
MAX_MEMBER_NAME_CHARS = 4096
"""The name of a tar member with its folders."""
MAX_TAR_HEADER_BYTES = 1 << 18
"""All headers of one tar member: long names, pax records, maps of sparse files."""
MAX_TAR_GLOBAL_RECORDS = 100
"""Pax records that apply to all members of a tar."""
MAX_TAR_PADDING_BYTES = 1 << 20
"""Bytes read after the end mark of a tar to detect further data. GNU tar pads up to 10 KiB."""
PARQUET_FREE_ROWS, PARQUET_ROWS_PER_BYTE = 1 << 16, 16
"""Rows that a Parquet table may claim in addition to those for each byte of its file."""
PARQUET_TINY_CELL_BYTES = 32
"""Mean size of cells, packed, below which they are looked into while listing: most are empty."""
PARQUET_BATCH_ROWS, PARQUET_BATCH_BYTES = 1000, 64 << 20
"""Rows and bytes of a Parquet table unpacked per batch, at least one row. A value counts as much as its column's dictionary."""
MAX_PARQUET_FOOTER_BYTES, MAX_PARQUET_COLUMNS = 32 << 20, 10_000
"""The footer of a Parquet table, which takes up to 20 times its bytes in memory, and the columns that it describes."""
MAX_DICTIONARY_BYTES = 128 << 20
"""A dictionary of a Parquet column, unpacked."""
CELL_CACHE_BYTES = 64 << 20
"""Cells with images that are cached for other threads."""
PREPARED_BYTES = 64 << 20
"""Image bytes of a batch that are read before decoding; at least one image."""

MAX_FIELD_NAME_CHARS = 512
"""A column that becomes a field of the document."""
MAX_REPORTED_NAMES, _REPORTED_NAME_CHARS = 100, 64
"""Names that are only reported: different ones that are counted, and the length that they are cut to."""
OTHER_NAMES = "others"


class NameCounter(Counter[str]):
    """Counts names of untrusted input for a report: each is cut, and those above a number count as `OTHER_NAMES`."""

    def add_name(self, name: str, count: int = 1) -> None:
        """Count a name."""
        name = cut_name(name)
        self[name if name in self or len(self) < MAX_REPORTED_NAMES else OTHER_NAMES] += count


def cut_name(name: str) -> str:
    """Cut a name of untrusted input for a report."""
    return name if len(name) <= _REPORTED_NAME_CHARS else name[: _REPORTED_NAME_CHARS - 3] + "..."


def join_names(names: Iterable[object]) -> str:
    """Join names of untrusted input for a message: only the first ones, and each is cut."""
    shown = [cut_name(str(name)) for name in islice(names, MAX_REPORTED_NAMES // 4 + 1)]
    return ", ".join([*shown[:-1], "..."] if len(shown) > MAX_REPORTED_NAMES // 4 else shown)


def check_size(size: int, max_bytes: int) -> None:
    """Raise ReadError if `size` exceeds `max_bytes`."""
    if size > max_bytes:
        raise ReadError(f"{size} bytes exceed the limit of {max_bytes}", code="file-too-large")

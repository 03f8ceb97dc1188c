"""How much one entry of a source may cost: an image, a line, a row, a sample. docs/sources.md#limits says the same in words."""

from __future__ import annotations

from stair_es.errors import ReadError

FIELDS_BYTES = 1 << 20
"""Fields of one document, as `values.weigh` counts them."""
LINE_BYTES = 64 << 20
"""A line of JSON, with the image that is in it."""
LINE_MARKS = 1 << 18
"""Characters of a JSON line that begin or divide values: each may become an object of 64 bytes and more."""
LIST_LINE_BYTES = 1 << 16
"""A line of a list of paths and URLs."""
REFERENCE_CHARS = 1 << 16
"""A path or a URL in a table."""
CSV_ROW_CHARS = 1 << 20
"""A row of CSV, its quoted line ends included; one of its cells may have 128 Ki, the limit of Python's module `csv`."""
BLANK_BYTES = 4 << 20
"""Empty lines and comments in a row: a file that goes on like that is not read on."""
ENDLESS_BYTES = 1 << 30
"""What is skipped of a line that is too long: a file that goes on without a line end is not read on."""
TEXT_BYTES = 1 << 20
"""A text member of a tar."""
SAMPLE_TEXT_BYTES = 4 << 20
"""All texts of a sample, each with `MEMBER_COST` bytes on top."""
MEMBER_COST = 512
SAMPLE_IMAGES, SAMPLE_BYTES = 1000, 64 << 20
"""Images of a sample, and bytes of them in a compressed tar, that wait for the sample's texts; then they are taken without."""
TAR_HEADER_BYTES = 1 << 18
"""All headers of one member of a tar: long names, pax records, maps of sparse files."""
TAR_GLOBAL_RECORDS = 100
"""Pax records that hold for all members of a tar."""
TAR_PADDING_BYTES = 1 << 20
"""What is read behind the end mark of a tar, to see whether more follows. GNU tar fills up to 10 KiB."""
PARQUET_BATCH_ROWS, PARQUET_BATCH_BYTES = 1000, 64 << 20
"""What is unpacked of a Parquet table at a time, at least one row. Values count as much as their column's dictionary."""
DICTIONARY_BYTES = 128 << 20
"""A dictionary of a Parquet column, unpacked."""
CELL_BYTES = 64 << 20
"""Cells with images that are kept for other threads."""
PREPARED_BYTES = 64 << 20
"""Bytes of a batch's images that are read before they are decoded; at least one image."""


def within(size: int, max_bytes: int) -> None:
    """Nothing, if `size` may be read.

    Raises:
        ReadError: It is more than `max_bytes`.
    """
    if size > max_bytes:
        raise ReadError(f"{size} bytes exceed the limit of {max_bytes}")

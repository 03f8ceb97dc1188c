"""Read tables of Markdown pages."""

from __future__ import annotations

import re


def read_table_rows(page: str) -> list[list[str]]:
    """Return the cells of all lines of tables, their heads and rulers included."""
    lines = [line.strip() for line in page.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]

"""The part of `docs/faults.md` that is measured: it stands between two comments, and the rest of the page is written by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from result import Result

BEGIN, END = "<!-- measured: written by benchmarks/faults.py -->", "<!-- end of what is measured -->"


def write_page(page: Path, result: Result, command: str, machine: Mapping[str, Any], load: tuple[float, float]) -> None:
    """Put the result in the place of what stands between the comments.

    Raises:
        ValueError: The page lacks them.
    """
    text = page.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"{page} lacks {BEGIN!r} or {END!r}")
    page.write_text(f"{before}{BEGIN}\n\n{_measured(result, command, machine, load)}\n\n{END}{after}", encoding="utf-8")


def _measured(result: Result, command: str, machine: Mapping[str, Any], load: tuple[float, float]) -> str:
    versions = ", ".join(
        f"{name} {machine['versions'][name]}" for name in ("Python", "OpenSearch", "opensearch-py", "ray", "stair-es")
    )
    where = f"{machine['processor']}, {machine['cores']} cores, {machine['memory']}; {machine['system']}"
    return "\n\n".join(
        (
            f"`python {command}`",
            f"{result.figures['began']} to {result.figures['ended']} (UTC), commit {machine['commit']}; {where};"
            f" load {load[0]:.1f} to {load[1]:.1f}; {versions}.",
            replace(result, ratios=()).markdown(level=3),  # `about` has the sums
        )
    )

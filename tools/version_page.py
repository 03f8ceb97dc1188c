"""`docs/compatibility.md`: what was found on each version, as text. Nothing here runs anything."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Outcome", "Record", "write_page"]

Status = Literal["ok", "engine", "plugin", "node", "failed", "not tried"]
_SHOWN: Mapping[Status, str] = {
    "ok": "ok",
    "engine": "no",
    "plugin": "plugin",
    "node": "node",
    "failed": "**failed**",
    "not tried": "-",
}
_CAUSES: Mapping[Status, str] = {
    "engine": "the engine",
    "plugin": "the plugin",
    "node": "a module, on this node only",
    "failed": "**nobody knows: it should work, or say something else**",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Of one check."""

    check: str
    status: Status
    says: str = ""
    """What the user reads, unless it is ok."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Of one version."""

    label: str
    made: str
    java: str
    lacks: tuple[str, ...]
    """Modules of an ordinary installation that the node doesn't have."""
    began: str
    """ISO 8601, UTC, to the minute."""
    seconds: float
    stair_es: str
    outcomes: tuple[Outcome, ...]
    failure: str = ""
    """Why there is no more: the node didn't start."""

    @property
    def failed(self) -> bool:
        """Whether something unexpected happened."""
        return bool(self.failure) or any(outcome.status == "failed" for outcome in self.outcomes)

    def write(self, file: Path) -> None:
        """Write it as JSON."""
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")

    @classmethod
    def read(cls, file: Path) -> Record:
        """Read what `write` wrote."""
        values = json.loads(file.read_text(encoding="utf-8"))
        outcomes = tuple(Outcome(**outcome) for outcome in values["outcomes"])
        return cls(**{**values, "outcomes": outcomes, "lacks": tuple(values["lacks"])})


_HEAD = """# Compatibility

What the installed `stair-es` does on a real node of each version. `make compatibility` starts the nodes one after the other, runs
the commands, compares what they print, and writes this page ([`check_versions.py`](../tools/check_versions.py)). The images are
six of the bundled photos, the model is the default one. See also [queries](queries.md), [connections](connection.md) and
[limits](limits.md).

"""
_LEGEND = """
| | |
|---|---|
| ok | done, and the output compared |
| no | no cluster of this version can; the command says so |
| plugin | a cluster with the plugin can |
| node | an ordinary cluster can; this node lacks a module that Maven doesn't serve |
| - | not tried, since what it needs failed |

- `search --shape`: "a cat" finds the cat first, and each score is the exact dot product within 0.5 % (SEISMIC: 5 %).
- `swap to another model`: the second model is the example plugin's `colours`; a search after it asks the new index.
- `template search`: a plain request to `_search/template`.
- `serve`: the start page, a search by words, one by an uploaded picture, an image and its thumbnail.

"""


def write_page(records: Sequence[Record], checks: Iterable[str]) -> str:
    """Return the text of the page.

    Args:
        records: The versions, in the order of the columns.
        checks: Names of all checks, in the order of the rows.
    """
    return (
        _HEAD
        + "\n".join([*_list_nodes(records), "", "## What works where", "", *_list_checks(records, checks)])
        + ("\n" + _LEGEND + "## What the command says\n" + "".join(_tell(record) for record in records))
    )


def _list_nodes(records: Sequence[Record]) -> list[str]:
    rows = ["| version | Java | the node | modules that it lacks | run |", "|---|---|---|---|---|"]
    for record in records:
        lacks = ", ".join(record.lacks) or "none"
        run = f"{record.began.replace('T', ' ')} UTC, {record.seconds:.0f} s, stair-es {record.stair_es}"
        rows.append(f"| {record.label} | {record.java or 'unknown'} | {record.made} | {lacks} | {run} |")
    return rows


def _list_checks(records: Sequence[Record], checks: Iterable[str]) -> list[str]:
    rows = [
        "| | " + " | ".join(record.label for record in records) + " |",
        "|---|" + "---|" * len(records),
    ]
    for check in checks:
        found = (_SHOWN[_find_status(record, check)] for record in records)
        rows.append(f"| `{check}` | " + " | ".join(found) + " |")
    return rows


def _find_status(record: Record, check: str) -> Status:
    return next((outcome.status for outcome in record.outcomes if outcome.check == check), "not tried")


def _tell(record: Record) -> str:
    told = [outcome for outcome in record.outcomes if outcome.status in _CAUSES]
    if record.failure:
        return f"\n### {record.label}\n\n**The node failed**: {_cell(record.failure)}\n"
    if not told:
        return f"\n### {record.label}\n\nNothing is missing.\n"
    rows = [f"| `{o.check}` | {_CAUSES[o.status]} | {_cell(o.says)} |" for o in told]
    return "\n".join(["", f"### {record.label}", "", "| | lacks it | message |", "|---|---|---|", *rows, ""])


def _cell(text: str) -> str:
    """As one cell of a table: the characters that Markdown would take for its own are escaped."""
    for sign in "\\|<[*_":
        text = text.replace(sign, f"\\{sign}")
    return "<br>".join(" ".join(line.split()) for line in text.splitlines())

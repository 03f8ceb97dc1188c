"""Render `docs/reference/compatibility.md` from the records of the versions. Pure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

__all__ = ["Outcome", "Record", "write_page"]

Status = Literal["ok", "stand-in", "engine", "plugin", "node", "failed", "not tried"]
_SHOWN: Mapping[Status, str] = {
    "ok": "ok",
    "stand-in": "ok \\*",
    "engine": "no",
    "plugin": "plugin",
    "node": "node",
    "failed": "**failed**",
    "not tried": "-",
}
_CAUSES: Mapping[Status, str] = {
    "engine": "every cluster",
    "plugin": "clusters without the plugin",
    "node": "this node",
    "failed": "**unexpected**",
}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Outcome of one check."""

    check: str
    status: Status
    message: str = ""
    """Message to the user, unless it is ok."""


@dataclass(frozen=True, kw_only=True)
class Record:
    """Results of one version."""

    label: str
    origin: str
    java: str
    missing_modules: tuple[str, ...]
    """Modules of a default distribution that the node doesn't have."""
    began: str
    """ISO 8601, UTC, to the minute."""
    seconds: float
    stair_es: str
    outcomes: tuple[Outcome, ...]
    failure: str = ""
    """Why there are no outcomes, for example because the node didn't start."""

    @property
    def failed(self) -> bool:
        """Whether it failed unexpectedly."""
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
        return cls(**{**values, "outcomes": outcomes, "missing_modules": tuple(values["missing_modules"])})


_HEAD = """# Compatibility

This page shows which commands work on which versions of OpenSearch and Elasticsearch. Every result comes from a real node:
OpenSearch is put together from its published modules, and Elasticsearch is its own distribution as Maven serves it. `make
compatibility` starts one node after the other, runs the installed commands, checks their output, and writes this page
([`check_versions.py`](../../scripts/check_versions.py)). The images are six of the bundled photos, and the model is the default
one. See also [queries](../queries.md), [connections](../connection.md) and [limits](../limits.md).

## Tested nodes
"""
_LEGEND = """
| result | meaning |
|---|---|
| ok | the command succeeded, and its output is as expected |
| ok \\* | the same, but a stand-in provides `rank_features`: this verifies our requests and documents, not Elastic's module |
| no | not supported by this version; the command says so |
| plugin | requires a plugin that this node doesn't have |
| node | works on a default distribution; this node lacks a module that Maven doesn't serve |
| - | not tried, because a check that it depends on failed |

Some checks need an explanation:

- `swap to another model`: the second model is `colors` of the example plugin. A search after the swap must use the new index.
- `search`: "a cat" must find the cat first. With `--query-type`, each score must equal the exact dot product within 0.5 %.
- `template search`: a plain request to `_search/template`.
- `serve`: the start page, a search by words, a search by an uploaded image, an image and its thumbnail.
- `encoder --index`: the body of `/v1/query`, sent to the cluster, finds the cat first.
- `ingest-labels`: a label that is no word of the model finds its photo. `forget`: the next ingest leaves the image out.

## Error messages

In the messages, `VERSION` stands for the version of the cluster, such as "OpenSearch 3.9.0", and 127.0.0.1:9200 for its address.
"""


def write_page(records: Sequence[Record], checks: Iterable[str]) -> str:
    """Return the text of the page.

    Args:
        records: The versions, in the order of the columns.
        checks: Names of all checks, in the order of the rows.
    """
    names = list(checks)
    nodes, table, messages = _list_nodes(records), _list_checks(records, names), _list_messages(records, names)
    return "\n".join([_HEAD, *nodes, "", "## Results", "", *table, _LEGEND, *messages, ""])


def _list_nodes(records: Sequence[Record]) -> list[str]:
    rows = ["| version | Java | node | missing modules | run |", "|---|---|---|---|---|"]
    for record in records:
        missing_modules = ", ".join(record.missing_modules) or "none"
        run = f"{record.began.replace('T', ' ')} UTC, {record.seconds:.0f} s, stair-es {record.stair_es}"
        rows.append(f"| {record.label} | {record.java or 'unknown'} | {record.origin} | {missing_modules} | {run} |")
    return rows


def _list_checks(records: Sequence[Record], checks: Iterable[str]) -> list[str]:
    rows = [
        "| check | " + " | ".join(record.label for record in records) + " |",
        "|---|" + "---|" * len(records),
    ]
    for check in checks:
        statuses = (_SHOWN[_find_status(record, check)] for record in records)
        rows.append(f"| `{check}` | " + " | ".join(statuses) + " |")
    return rows


def _find_status(record: Record, check: str) -> Status:
    return next((outcome.status for outcome in record.outcomes if outcome.check == check), "not tried")


def _list_messages(records: Sequence[Record], checks: Sequence[str]) -> list[str]:
    """Return one row per message, for all versions that print it."""
    rows: dict[tuple[str, Status, str], list[str]] = {}
    for record in records:
        for outcome in record.outcomes:
            if outcome.status in _CAUSES:
                message = outcome.message.replace(record.label, "VERSION")
                rows.setdefault((outcome.check, outcome.status, message), []).append(record.label)
    lines = [
        f"| `{check}` | {_join_labels(labels)} | {_CAUSES[status]} | {_format_cell(message)} |"
        for (check, status, message), labels in sorted(rows.items(), key=lambda row: checks.index(row[0][0]))
    ]
    failures = [
        f"| start of the node | {record.label} | {_CAUSES['failed']} | {_format_cell(record.failure)} |"
        for record in records
        if record.failure
    ]
    return ["| check | version | missing in | message |", "|---|---|---|---|", *failures, *lines]


def _join_labels(labels: Sequence[str]) -> str:
    """Return `OpenSearch 2.19.1, 3.4.0; Elasticsearch 9.5.3`."""
    engines: dict[str, list[str]] = {}
    for label in labels:
        engine, _, number = label.partition(" ")
        engines.setdefault(engine, []).append(number)
    return "; ".join(f"{engine} {', '.join(numbers)}" for engine, numbers in engines.items())


def _format_cell(text: str) -> str:
    """Return a text as one cell of a table, with Markdown escaped except in code."""
    return "<br>".join(_format_line(" ".join(line.split())) for line in text.splitlines())


def _format_line(text: str) -> str:
    """Escape the parts outside backticks, and pipes everywhere, because a pipe ends a cell even in code."""
    parts = text.replace("|", r"\|").split("`")
    if len(parts) % 2 == 0:
        parts = [r"\`".join(parts)]
    parts[::2] = [re.sub(r"([\\<\[*_])(?!\|)", r"\\\1", part) for part in parts[::2]]
    return "`".join(parts)

"""`stair-es doctor`."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from stair_es.config import DEFAULT_INDEX, DEFAULT_MODEL

from . import connections, options, settings
from .bars import visible
from .output import emit_json, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stair_es.doctor.finding import Finding

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor(
    context: typer.Context,
    index: options.Index = DEFAULT_INDEX,
    model: options.NamedModel = None,
    fit: options.FitOption = None,
    as_json: options.Json = False,
    url: options.Url = None,
) -> None:
    """Check Python, machine, model, cluster and index, and print how to fix what is wrong.

    Read-only: nothing is started, downloaded or written.

    **Examples**

    - `stair-es doctor`

    - `stair-es doctor --index photos --url http://localhost:9200`

    - `stair-es doctor --json | jq '.findings[] | select(.state != "ok")'`

    **Exit code**: 0 if nothing keeps a command from working (there may be warnings), 1 otherwise.
    """
    from stair_es.doctor.run import Patient, examine

    def findings() -> Iterator[Finding]:
        yield _configuration(settings.of(context))
        of_ingest = (context.find_root().default_map or {}).get("ingest", {})
        ray_address = os.environ.get("RAY_ADDRESS") or of_ingest.get("ray_address")
        connect = partial(connections.named_connection, url)
        patient = Patient(
            connect=connect,
            index=index,
            model=model or DEFAULT_MODEL,
            named=model is not None,
            fit=fit,
            ray_address=ray_address,
        )
        yield from examine(patient)

    found = []
    for each in findings():
        found.append(each)
        if not as_json:
            _print(each)
    counts = Counter(each.state for each in found)
    if as_json:
        emit_json({"ok": not counts["fail"], "findings": [asdict(each) for each in found]})
    else:
        stdout.print(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} wrong", style="bold")
    if counts["fail"]:
        raise typer.Exit(1)


def _configuration(found: settings.Settings) -> Finding:
    from stair_es.doctor.finding import failed, ok

    if found.error is not None:
        return failed("configuration", found.error)
    if found.path is None:
        return ok("configuration", "no file")
    return ok("configuration", f"{found.path}, {f'profile {found.profile}' if found.profile else 'no profile'}")


def _print(finding: Finding) -> None:
    encoding = stdout.encoding
    stdout.print(
        Text.assemble(
            (f"{finding.state:<5}", _STYLES[finding.state]),
            (f"{finding.check:<14} ", "bold"),
            visible(finding.message, encoding),
        )
    )
    for line in finding.remedy.splitlines():
        stdout.print(Text(f"     -> {visible(line, encoding)}", style="cyan"))

"""`stair-es doctor`."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING

import typer
from rich.text import Text

from stair_es.config.defaults import DEFAULT_INDEX, DEFAULT_MODEL

from ...options import config_file, shared
from ...options.connections import ConnectionArguments, resolve_named_connection
from ...output.bars import escape_control
from ...output.console import emit_json, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stair_es.doctor.result import CheckResult

_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}


def doctor_command(
    *,
    index: shared.IndexOption = DEFAULT_INDEX,
    model: shared.OptionalModelOption = None,
    fit: shared.FitOption = None,
    as_json: shared.JsonOption = False,
    connection: ConnectionArguments,
) -> None:
    """Check Python, the machine, the model, the cluster and the index, and print how to fix problems.

    **Examples**

    ```text
    stair-es doctor
    stair-es doctor --index photos --url http://localhost:9200
    stair-es doctor --json | jq '.findings[] | select(.state != "ok")'
    ```

    The command starts, downloads and writes nothing.

    **Exit codes**: 0 if no check failed (there may be warnings); 1 if a check failed.
    """
    from stair_es.doctor.run import CheckContext, run_checks

    def run_all_checks() -> Iterator[CheckResult]:
        config = config_file.get_config()
        yield _report_configuration(config)
        ray_address = config.environ.get("RAY_ADDRESS") or config.default_map.get("ingest", {}).get("ray_address")
        check_context = CheckContext(
            connect=partial(resolve_named_connection, connection),
            index=index,
            model=model or DEFAULT_MODEL,
            is_model_named=model is not None,
            fit=fit,
            ray_address=ray_address,
            environ=config.environ,
        )
        yield from run_checks(check_context)

    results = []
    for result in run_all_checks():
        results.append(result)
        if not as_json:
            _print_result(result)
    counts = Counter(result.state for result in results)
    if as_json:
        emit_json({"ok": not counts["fail"], "findings": [asdict(result) for result in results]})
    else:
        stdout.print(f"{counts['ok']} ok, {counts['warn']} warnings, {counts['fail']} failed", style="bold")
    if counts["fail"]:
        raise typer.Exit(1)


def _report_configuration(config: config_file.CliConfig) -> CheckResult:
    from stair_es.doctor.result import CheckResult

    if config.error is not None:
        return CheckResult.from_error("configuration", config.error)
    if config.path is None:
        return CheckResult.ok("configuration", "no file")
    return CheckResult.ok("configuration", f"{config.path}, {f'profile {config.profile}' if config.profile else 'no profile'}")


def _print_result(result: CheckResult) -> None:
    encoding = stdout.encoding
    stdout.print(
        Text.assemble(
            (f"{result.state:<5}", _STYLES[result.state]),
            (f"{result.check:<14} ", "bold"),
            escape_control(result.message, encoding),
        )
    )
    for line in result.remedy.splitlines():
        stdout.print(Text(f"     -> {escape_control(line, encoding)}", style="cyan"))

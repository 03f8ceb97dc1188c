"""What is configured, and whether it works: `stair-es config` and `stair-es doctor`."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from stair_es.config.defaults import DEFAULT_INDEX, DEFAULT_MODEL
from stair_es.urls import MASK, mask_urls

from ..options import config_file, shared
from ..options.connections import ConnectionArguments, resolve_named_connection
from ..options.decorator import prepare_command
from ..output.bars import escape_control
from ..output.console import emit_json, print_notice, stdout

if TYPE_CHECKING:
    from collections.abc import Iterator

    from stair_es.doctor.result import CheckResult

_CLIENT_FILES = ("client_cert", "client_key", "dashboards_client_cert", "dashboards_client_key")
_SECRET_FILES = frozenset({*_CLIENT_FILES, *(f"{name}_file" for name in (*config_file.SECRET_KEYS, "token"))})
"""Keys of files with secrets: top-level ones, and `token_file` in the tables of commands."""
_STYLES = {"ok": "green", "warn": "yellow", "fail": "bold red"}

config_app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Show the values of the configuration file, the active profile and the environment.

**Example**

```text
stair-es config show
```

The file holds defaults of options, and profiles for clusters. See docs/configuration.md.""",
)


@config_app.callback()
def _describe_group() -> None:
    """Make `config` a group although it has one command."""


@config_app.command(name="show")
@prepare_command
def show_config_command(context: typer.Context, as_json: shared.JsonOption = False) -> None:
    """Print the configured values and where each comes from.

    **Examples**

    ```text
    stair-es config show
    stair-es --config work.toml --profile staging config show --json
    ```

    A value comes from an environment variable, from a profile, or from the top level of the configuration file. Secrets are
    masked. Options that are not listed have their defaults, which the `--help` of a command shows.
    """
    config = config_file.get_config()
    rows = list(_list_values(context, config))
    if as_json:
        emit_json({"file": str(config.path) if config.path else None, "profile": config.profile, "values": rows})
        return
    if config.path is None:
        print_notice(f"no configuration file: {config_file.get_default_config_path()} doesn't exist, and no other was named")
    width = max((len(row["key"]) for row in rows), default=0)
    for row in rows:
        value, origin = escape_control(str(row["value"])), escape_control(row["origin"])
        stdout.print(f"{row['key']:<{width}}  {value}  ({origin})", markup=False)


def _list_values(context: typer.Context, config: config_file.CliConfig) -> list[dict[str, Any]]:
    """Return one row per value, those of the environment first."""
    root = context.find_root().command
    variables = config_file.map_env_variables(root)
    rows = []
    for key in sorted(config_file.list_known_keys(context), key=lambda key: (len(key) > 1, key)):
        variable = variables.get(key, config_file.get_env_variable(key)) if len(key) == 1 else None
        in_file = config.values.get(key)
        in_environment = os.environ.get(variable) if variable else None
        if in_environment:
            rows.append({"key": key[0], "value": _mask_value(key[0], in_environment), "origin": f"environment {variable}"})
        elif in_file is not None and (len(key) > 1 or key in config.effective):
            rows.append({"key": ".".join(key), "value": _mask_value(key[-1], in_file.value), "origin": in_file.origin})
    return rows


def _mask_value(name: str, value: Any) -> Any:  # noqa: ANN401
    """Return the value with secrets masked. A password may also have been entered instead of its file or a URL."""
    if name in config_file.SECRET_KEYS:
        return MASK
    if name.endswith("url"):
        return mask_urls(str(value))
    if name == "ray_address":
        from stair_es.system.ray_session import mask_ray_address

        return mask_ray_address(str(value))
    if name in _SECRET_FILES and not os.path.isfile(str(value)):  # noqa: PTH113  Path.is_file raises for what is too long
        return f"{MASK} (no such file)"
    return value


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

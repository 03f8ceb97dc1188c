"""`stair-es config`: what holds, and who said so."""

from __future__ import annotations

import os
import re
from typing import Any

import typer

from stair_es.profiles import SECRETS, default_path

from . import settings
from .bars import visible
from .options import Json
from .output import emit_json, note, stdout

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="The configuration file: defaults of options, and profiles for clusters. See docs/configuration.md.",
)


@app.callback()
def _config() -> None:
    """The configuration file: defaults of options, and profiles for clusters."""


@app.command()
def show(context: typer.Context, as_json: Json = False) -> None:
    """Print what is set, and where: in the environment, in a profile, or above the profiles. Secrets are masked.

    What isn't in the list has its default, which `--help` of a command names.

    **Examples**

    - `stair-es config show`

    - `stair-es --config work.toml --profile staging config show --json`
    """
    found = settings.of(context)
    rows = list(_rows(context, found))
    if as_json:
        emit_json({"file": str(found.path) if found.path else None, "profile": found.profile, "values": rows})
        return
    if found.path is None:
        note(f"no configuration file: {default_path()} isn't there, and none was named")
    wide = max((len(row["key"]) for row in rows), default=0)
    for row in rows:
        stdout.print(f"{row['key']:<{wide}}  {visible(str(row['value']))}  ({visible(row['from'])})", markup=False)


def _rows(context: typer.Context, found: settings.Settings) -> list[dict[str, Any]]:
    """One a value; the environment's go before the file's."""
    root = context.find_root().command
    variables = settings.variables(root)
    rows = []
    for key in sorted(settings.known(context), key=lambda key: (len(key) > 1, key)):
        variable = variables.get(key, settings.variable(key)) if len(key) == 1 else None
        in_file = found.values.get(key)
        in_environment = os.environ.get(variable) if variable else None
        if in_environment and key not in found.exported:
            rows.append({"key": key[0], "value": _masked(key[0], in_environment), "from": f"environment {variable}"})
        elif in_file is not None and (len(key) > 1 or key in found.holds):
            rows.append({"key": ".".join(key), "value": _masked(key[-1], in_file.value), "from": in_file.where})
    return rows


def _masked(name: str, value: Any) -> Any:  # noqa: ANN401
    if name in SECRETS:
        return "***"
    if name.endswith("url") and "@" in str(value):
        scheme = "".join(re.findall(r"^https?://", str(value)))
        return f"{scheme}***@{str(value).rpartition('@')[2]}"
    return value

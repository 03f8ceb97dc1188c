"""`stair-es dashboards`."""

from __future__ import annotations

import typer

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="markdown", help="Dashboards of an index, for OpenSearch Dashboards and Kibana."
)

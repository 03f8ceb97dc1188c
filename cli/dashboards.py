"""`stair-es dashboards`."""

from __future__ import annotations

import typer

from . import dashboards_export, dashboards_publish, options

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Dashboards of an index, for OpenSearch Dashboards and Kibana.

The dashboard "STAIR words" shows which words an index has, how often, how heavy and together with which others, the images
that a word finds, and images whose words look wrong. `publish` puts it into the product, `export` into a file.""",
)
app.command(name="publish")(options.connected(dashboards_publish.certified(dashboards_publish.publish)))
app.command(name="export")(options.connected(dashboards_export.export))

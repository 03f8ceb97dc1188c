"""`stair-es evaluate`: the group of its commands."""

from __future__ import annotations

import typer

from ...options import connections
from . import probe, retrieval, sparsity, words, zero_shot

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Evaluate and compare models: retrieval, classification, meaning of the words, and cost.",
)
app.command(name="retrieval")(connections.with_connection_options(retrieval.evaluate_retrieval_command))
app.command(name="zero-shot")(zero_shot.evaluate_zero_shot_command)
app.command(name="probe")(probe.evaluate_probe_command)
app.command(name="words")(words.evaluate_words_command)
app.command(name="sparsity")(sparsity.evaluate_sparsity_command)

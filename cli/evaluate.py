"""`stair-es evaluate`: the group of its commands."""

from __future__ import annotations

import typer

from . import connections, evaluate_probe, evaluate_retrieval, evaluate_sparsity, evaluate_words, evaluate_zero_shot

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Evaluate and compare models: retrieval, classification, meaning of the words, and cost.",
)
app.command(name="retrieval")(connections.with_connection_options(evaluate_retrieval.evaluate_retrieval_command))
app.command(name="zero-shot")(evaluate_zero_shot.evaluate_zero_shot_command)
app.command(name="probe")(evaluate_probe.evaluate_probe_command)
app.command(name="words")(evaluate_words.evaluate_words_command)
app.command(name="sparsity")(evaluate_sparsity.evaluate_sparsity_command)

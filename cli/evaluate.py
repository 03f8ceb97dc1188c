"""`stair-es evaluate`: the group of its commands."""

from __future__ import annotations

import typer

from . import connections, evaluate_probe, evaluate_retrieval, evaluate_sparsity, evaluate_words, evaluate_zero_shot

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="Evaluate and compare models: retrieval, classification, meaning of the words, and cost.",
)
app.command(name="retrieval")(connections.connected(evaluate_retrieval.retrieval))
app.command(name="zero-shot")(evaluate_zero_shot.zero_shot)
app.command(name="probe")(evaluate_probe.probe)
app.command(name="words")(evaluate_words.words)
app.command(name="sparsity")(evaluate_sparsity.sparsity)

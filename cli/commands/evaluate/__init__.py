"""`stair-es evaluate`: the group of its commands."""

from __future__ import annotations

import typer

from ...options.connections import CONNECTION_OPTIONS
from ...options.decorator import prepare_command
from . import probe, retrieval, sparsity, words, zero_shot
from .shared import EVALUATION_OPTIONS

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="""Evaluate and compare models by retrieval, classification, interpretability and cost.

**Example**

```text
stair-es evaluate retrieval examples/photos/captions.jsonl --exact
```""",
)
app.command(name="retrieval")(prepare_command(EVALUATION_OPTIONS, CONNECTION_OPTIONS)(retrieval.evaluate_retrieval_command))
app.command(name="zero-shot")(prepare_command(EVALUATION_OPTIONS)(zero_shot.evaluate_zero_shot_command))
app.command(name="probe")(prepare_command(EVALUATION_OPTIONS)(probe.evaluate_probe_command))
app.command(name="words")(prepare_command(EVALUATION_OPTIONS)(words.evaluate_words_command))
app.command(name="sparsity")(prepare_command(EVALUATION_OPTIONS)(sparsity.evaluate_sparsity_command))

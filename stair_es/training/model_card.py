"""Render the model card of a checkpoint: what the model is, its training data and its validation results. Pure."""

from __future__ import annotations

from stair_es.model.stair.configuration import StairConfig
from stair_es.training.checkpointing import TrainingProgress
from stair_es.training.config.train_config import TrainConfig


def render_model_card(config: TrainConfig, model: StairConfig, progress: TrainingProgress, pairs: int, features: int) -> str:
    """Return the model card as Markdown, with the front matter that model hubs read."""
    stages = "\n".join(
        f"| {stage.name} | {stage.steps} | {', '.join(stage.train)} | {stage.text_mask} | "
        f"{', '.join(f'{name} {weight:g}' for name, weight in stage.losses.items())} |"
        for stage in config.stages
    )
    best = f"{100 * progress.best_recall:.1f} at step {progress.best_step}" if progress.best_step >= 0 else "not validated"
    cap = f"{_format_limit(model.image.top_k)} of an image, {_format_limit(model.text.top_k)} of a text"
    image, image_input = model.image.backbone, f"{model.image.size_px} px, {model.image.pool} over positions"
    text, text_input = model.text.backbone, f"{model.text.max_tokens} tokens, {model.text.pool} over positions"
    return f"""---
library_name: stair-es
pipeline_tag: image-feature-extraction
tags: [image-search, sparse, rank_features, STAIR]
---

# {config.name}

A STAIR model: images and texts become weights over {features:,} tokens, {cap}.
For `stair-es ingest --model DIR` and `stair-es search --model DIR`.

- Image tower: {image.kind} `{image.name or "from scratch"}`, {image_input}
- Text tower: {text.kind} `{text.name or "from scratch"}`, {text_input}
- Heads: {", ".join(model.heads)}; similarity: {model.similarity if model.is_scored_by_tokens else "cosine of dense vectors"}
- Trained on {pairs:,} images for {progress.global_step:,} steps of {config.batch.size} pairs, seed {config.seed}
- Recall@1 on the validation sets, mean of both directions, in percent: {best}

| stage | steps | trained | text mask | losses |
|---|---|---|---|---|
{stages}

The full configuration is `train.toml` in this folder. License and limitations are those of the data and backbones.
"""


def _format_limit(top_k: int) -> str:
    return f"at most {top_k}" if top_k else "any number"

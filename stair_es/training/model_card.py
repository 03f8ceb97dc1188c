"""The model card of a trained checkpoint, with the front matter that model hubs read: license, data, base models, results."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from stair_es.model.stair.configuration import BackboneConfig, StairConfig
from stair_es.training.checkpointing import TrainingProgress
from stair_es.training.config.train_config import TrainConfig
from stair_es.training.validation import compute_selection_metric

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_PACKAGE_MODELS = {"all-minilm-l6-v2": "sentence-transformers/all-MiniLM-L6-v2"}
"""Network from a package -> its id on the hub, if it has one."""
_TASKS = {"retrieval": "Image-text retrieval", "zero-shot-image-classification": "Zero-shot image classification"}


def render_model_card(config: TrainConfig, model: StairConfig, progress: TrainingProgress, images: str, features: int) -> str:
    """Return the model card as Markdown."""
    stages = "\n".join(
        f"| {stage.name} | {stage.steps} | {', '.join(stage.train)} | {stage.text_mask} | "
        f"{', '.join(f'{name} {weight:g}' for name, weight in stage.losses.items())} |"
        for stage in config.stages
    )
    result = f"{100 * compute_selection_metric(progress.kept_metrics):.1f}" if progress.kept_metrics else "not validated"
    cap = f"{_format_limit(model.image.top_k)} of an image, {_format_limit(model.text.top_k)} of a text"
    image, image_input = model.image.backbone, f"{model.image.size_px} px, {model.image.pool} over positions"
    text, text_input = model.text.backbone, f"{model.text.max_tokens} tokens, {model.text.pool} over positions"
    data = f"\nTraining data: {config.card.data}\n" if config.card.data else ""
    head = "\n".join(f"{name}: {_format_yaml(value)}" for name, value in _collect_metadata(config, progress).items())
    return f"""---
{head}
---

# {config.name}

A STAIR model: images and texts become weights over {features:,} tokens, {cap}.
For `stair-es ingest --model DIR` and `stair-es search --model DIR`, and with stair-es installed for sentence-transformers:
`SparseEncoder(DIR, trust_remote_code=True)`.

- License: {config.card.license or "not stated by who trained this model; the terms of its data and backbones apply"}
- Image tower: {image.kind} `{image.name or "from scratch"}`, {image_input}
- Text tower: {text.kind} `{text.name or "from scratch"}`, {text_input}
- Heads: {", ".join(model.heads)}; similarity: {model.similarity if model.is_scored_by_tokens else "cosine of dense vectors"}
- Trained on {images} for {progress.global_step:,} steps of {config.batch.size} pairs, seed {config.seed}
- Recall@1 on the validation sets, mean of both directions (without captions: accuracy), in percent: {result}
{data}
| stage | steps | trained | text mask | losses |
|---|---|---|---|---|
{stages}

The full configuration is `train.toml` in this folder. License and limitations of the data and backbones apply, too.
"""


def _format_limit(top_k: int) -> str:
    return f"at most {top_k}" if top_k else "any number"


def _collect_metadata(config: TrainConfig, progress: TrainingProgress) -> dict[str, Any]:
    card = config.card
    metadata: dict[str, Any] = {
        "license": card.license,
        "language": list(card.language),
        "datasets": list(card.datasets),
        "base_model": list(card.base_model or dict.fromkeys(_list_base_models(config))),
        "library_name": "stair-es",
        "pipeline_tag": "image-feature-extraction",
        "tags": ["image-search", "sparse", "rank_features", "sentence-transformers", "sparse-encoder", "STAIR"],
    }
    if results := [_build_result(name, values) for name, values in progress.kept_metrics.items()]:
        metadata["model-index"] = [{"name": config.name, "results": results}]
    return {name: value for name, value in metadata.items() if value}


def _list_base_models(config: TrainConfig) -> Iterator[str]:
    """Yield the hub ids of the backbones whose published weights the training starts from."""
    for tower in (config.model.image, config.model.text):
        backbone = tower.backbone
        if backbone.kind == "package":
            yield from filter(None, [_PACKAGE_MODELS.get(backbone.name)])
        elif config.model.pretrained and not config.resolve_path(backbone.name).is_dir():
            yield from filter(_HUB_ID.fullmatch, [_get_hub_name(backbone)])


def _get_hub_name(backbone: BackboneConfig) -> str:
    return f"timm/{backbone.name}" if backbone.kind == "timm" else backbone.name


def _build_result(name: str, values: Mapping[str, float]) -> dict[str, Any]:
    """Return the results on a validation set as the hub describes them, with figures of 0..1."""
    task = "zero-shot-image-classification" if "top1" in values else "retrieval"
    metrics = [
        {"type": "accuracy" if key.startswith("top") else "recall", "name": key, "value": round(value, 6)}
        for key, value in values.items()
        if key.startswith(("t2i@", "i2t@", "top"))
    ]
    return {"task": {"type": task, "name": _TASKS[task]}, "dataset": {"type": name, "name": name}, "metrics": metrics}


def _format_yaml(value: Any) -> str:  # noqa: ANN401
    """Return a value as YAML, which JSON is a part of; plain words without quotes."""
    if isinstance(value, str) and re.fullmatch(r"[A-Za-z][\w.+-]*", value):
        return value
    return json.dumps(value, ensure_ascii=False)

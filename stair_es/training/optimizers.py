"""The optimizer of a stage: groups of parameters with their learning rates, and what the rates are at a step."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from stair_es.model.stair.backbones import compute_layer_depths
from stair_es.model.stair.modeling import StairModel
from stair_es.optional import import_optional
from stair_es.training.config.schema import DecayName, OptimizerConfig, TrainingStage


def build_optimizer(model: StairModel, stage: TrainingStage, optim: OptimizerConfig) -> torch.optim.Optimizer:
    """Build the optimizer of a stage.

    Raises:
        ModelError: If there is a layer decay, and the layers of a backbone can't be found.
        MissingExtra: If timm, which has LAMB, isn't installed.
    """
    groups = build_param_groups(model, stage, optim)
    if optim.name == "lamb":
        lamb = import_optional("timm.optim", "train").Lamb
        optimizer: torch.optim.Optimizer = lamb(groups, betas=optim.betas, eps=optim.eps, max_grad_norm=None)  # clipped before
        return optimizer
    fused = model.log_scale.device.type == "cuda"
    return torch.optim.AdamW(groups, betas=optim.betas, eps=optim.eps, fused=fused)


def build_param_groups(model: StairModel, stage: TrainingStage, optim: OptimizerConfig) -> list[dict[str, Any]]:
    """Build the parameter groups of a stage: heads, backbones and temperature have separate learning rates.

    One-dimensional parameters (biases, norms) and the temperature aren't decayed. All other parameters of the model are frozen.

    Raises:
        ModelError: If there is a layer decay, and the layers of a backbone can't be found.
    """
    rates = {"head": optim.lr, "backbone": optim.backbone_lr, "scale": optim.scale_lr}
    depths = _list_depths(model, stage) if optim.layer_decay < 1 else {}
    groups: dict[tuple[str, int, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not stage.is_frozen(name))
        parameter.grad = None  # from the previous stage; the gradient norm is over all gradients
        if parameter.requires_grad:
            kind = "scale" if name == "log_scale" else "backbone" if ".backbone." in name else "head"
            groups.setdefault((kind, depths.get(name, 0), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": (rate := rates[kind] * optim.layer_decay**depth),
            "rate": rate,
            "weight_decay": optim.weight_decay if decays else 0.0,
        }
        for (kind, depth, decays), parameters in groups.items()
    ]


def _list_depths(model: StairModel, stage: TrainingStage) -> dict[str, int]:
    """Return the depth of each parameter of the backbones that the stage trains."""
    depths: dict[str, int] = {}
    for side, tower in (("image", model.image), ("text", model.text)):
        if f"{side}.backbone" in stage.train:
            prefix = f"{side}.backbone.network."
            name = getattr(model.config, side).backbone.name
            depths |= {prefix + key: depth for key, depth in compute_layer_depths(tower.backbone.network, name).items()}
    return depths


def compute_lr_factor(step: int, *, steps: int, warmup: int, decay: DecayName = "cosine") -> float:
    """Return the factor for the learning rate at a step, 0..1.

    Args:
        step: Step of the stage, from 0.
        steps: Number of steps of the stage.
        warmup: Steps of the linear warm-up.
        decay: `cosine` and `linear` fall to 0 at the end, `constant` doesn't change.
    """
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant":
        return 1.0
    done = (step - warmup) / max(1, steps - warmup)
    return 1 - done if decay == "linear" else 0.5 * (1 + math.cos(math.pi * done))

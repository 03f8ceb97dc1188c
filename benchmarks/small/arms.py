"""The arms to compare. Towers, data, batch and number of updates are the same; this module contains the differences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import product
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A training method."""

    name: str
    about: str
    changes: Mapping[str, Any]
    """Changes to `base.toml`."""
    grid: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    """The grid of values to try on the validation sets."""
    extra: bool = False
    """Whether it only runs on request."""

    def list_variants(self) -> list[dict[str, Any]]:
        """Return each point of the grid."""
        return [dict(zip(self.grid, values, strict=True)) for values in product(*self.grid.values())]


_RATES = {"optim.lr": (1e-3, 3e-3, 1e-2)}
_DROPOUT = {"model.image.dropout": (0.3, 0.5)}
_FLOPS = {
    "optim.lr": (1e-3, 3e-3),
    "recipe.losses": tuple({"flops_image": weight, "flops_text": weight} for weight in (1e-4, 1e-3, 1e-2)),
}
_OWN = {"model.text.own_words": True}
_DOT = {"model.similarity": "dot"}
_BETAS = {"optim.betas": ([0.9, 0.95], [0.9, 0.98], [0.9, 0.999])}
_UNCAPPED = {"model.image.top_k": 0, "model.text.top_k": 0}

ARMS = {
    arm.name: arm
    for arm in (
        Arm(
            name="dense",
            about="as in CLIP, 256 dimensions",
            changes={"model.heads": ["dense"], "recipe.name": "dense"},
            grid={**_RATES, **_DROPOUT},
        ),
        Arm(
            name="dense-wide",
            about="the same, 4,096 dimensions",
            changes={"model.heads": ["dense"], "model.dense_dim": 4096, "recipe.name": "dense"},
            grid={**_RATES, **_DROPOUT},
        ),
        Arm(
            name="dense-grounded",
            about="dense, with additional grounded token heads (ours)",
            changes={"model.heads": ["tokens", "dense"], "recipe.name": "dense-grounded", **_OWN},
            grid={"optim.lr": (1e-3, 3e-3), **_DROPOUT},
        ),
        Arm(
            name="bag-of-words",
            about="texts are represented by their own words, and images learn these",
            changes={"recipe.name": "bag-of-words", "model.text.always_masked": True, **_OWN},
            grid={"optim.lr": (1e-3, 3e-3), **_DROPOUT},
        ),
        Arm(
            name="single",
            about="tokens in one stage, without mask and grounding",
            changes={"recipe.name": "single"},
            grid=_FLOPS,
        ),
        Arm(
            name="stair",
            about="STAIR's three stages",
            changes={"recipe.name": "stair"},
            grid=_FLOPS,
        ),
        Arm(
            name="stair-own",
            about="STAIR's three stages, with separate weights for a text's own words from the start (ours)",
            changes={"recipe.name": "stair", **_OWN},
            grid=_FLOPS,
        ),
        Arm(
            name="stair-paper",
            about="STAIR's three stages, closer to the paper: dot product, no cap, tied embeddings, plain mask, LAMB",
            changes={"recipe.name": "stair-paper", **_UNCAPPED},
            grid={"optim.lr": (3e-2,), "model.start_scale": (0.01, 0.05, 0.3, 1.0, 14.3), **_BETAS},
            extra=True,
        ),
        Arm(
            name="stair-paper-adamw",
            about="the same with AdamW and cosine decay",
            changes={"recipe.name": "stair-paper", "optim.name": "adamw", "optim.decay": "cosine", **_UNCAPPED},
            grid={"optim.lr": (3e-3,), "model.start_scale": (0.05, 0.3, 1.0), "optim.betas": ([0.9, 0.95], [0.9, 0.999])},
            extra=True,
        ),
        Arm(
            name="gated",
            about="one stage, images gated by the caption's words as in V-SPLADE, texts grounded",
            changes={"recipe.name": "gated", **_OWN},
            grid={"recipe.losses": tuple({"gate_image": weight} for weight in (0.1, 1.0, 10.0)), **_DROPOUT},
            extra=True,
        ),
        Arm(
            name="joint",
            about="grounded, with dense vectors beside the tokens: both learn from the mean of their scores",
            changes={"recipe.name": "joint", "model.heads": ["tokens", "dense"], "model.scored_by": "tokens", **_OWN},
            grid={"optim.lr": (1e-3, 3e-3), **_DROPOUT},
            extra=True,
        ),
        Arm(
            name="single-dot",
            about="single, with a dot product",
            changes={"recipe.name": "single", **_DOT},
            grid=_FLOPS,
            extra=True,
        ),
        Arm(
            name="stair-dot",
            about="STAIR's three stages, with a dot product",
            changes={"recipe.name": "stair", **_DOT},
            grid={"optim.lr": (3e-3,), "model.start_scale": (0.05, 0.3, 1.0)},
            extra=True,
        ),
        Arm(
            name="stair-grounded",
            about="the three stages, both sides grounded (ours)",
            changes={"recipe.name": "stair-grounded", **_OWN},
            grid={"optim.lr": (1e-3, 3e-3), **_DROPOUT},
        ),
        Arm(
            name="grounded",
            about="one stage, both sides grounded (ours)",
            changes={"recipe.name": "grounded", **_OWN},
            grid={"optim.lr": (1e-3, 3e-3), **_DROPOUT},
        ),
    )
}

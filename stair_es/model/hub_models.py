"""Public checkpoints of the Hugging Face hub that have a short name, and the known facts about them.

Every number has a source. A fact that could not be looked up stays `unknown`: it is not estimated.
"""

from __future__ import annotations

from dataclasses import dataclass

from stair_es.model.base import ModelFacts

HUB_EXTRA = "models"
"""Extra of stair-es that is needed to run them."""
_RANDOM_WEIGHTS = (
    "format and arithmetic, on small checkpoints with random weights: the same vectors as an independent computation (in the "
    "tests) and as the original code"
)


@dataclass(frozen=True, kw_only=True)
class HubModel:
    """A public checkpoint with a short name."""

    name: str
    """Value of `--model`."""
    hub_id: str
    """Id of its repository. An index stores this, not the short name."""
    dense_id: str | None = None
    """Id of the dense model whose vectors it transforms, if it is a head over one."""
    description: str
    licenses: tuple[str, ...]
    facts: ModelFacts

    @property
    def repositories(self) -> tuple[str, ...]:
        """Return the ids of all repositories that it needs."""
        return (self.hub_id,) if self.dense_id is None else (self.hub_id, self.dense_id)


HUB_MODELS = (
    HubModel(
        name="photos",
        hub_id="lsr42/d2s_mscoco-blip-dense_q_reg_0.001_d_reg_0.001",
        dense_id="Salesforce/blip-itm-base-coco",
        description="D2S: a head that turns the vectors of a BLIP for image-text retrieval into token weights",
        licenses=("head: Apache-2.0", "BLIP: BSD-3-Clause"),
        facts=ModelFacts(
            size="BLIP: 895 MB; head: 24 million parameters, size of the file unknown",
            languages="English",
            vocabulary="BERT WordPieces, uncased",
            tokens=30_522,
            recall="COCO, text to image: R@1 55.9 (its dense BLIP: 57.0)",
            source="Nguyen et al., ECIR 2024; weights: README of github.com/thongnt99/lsr-multimodal",
            verified=_RANDOM_WEIGHTS,
            unverified="the published weights and the recall; whether this BLIP holds the weights that the head was trained on",
        ),
    ),
    HubModel(
        name="photos-small",
        hub_id="vsearch/vdr-cross-modal",
        description="VDR: a ViT-B/32 for images and a BERT for texts, both over one vocabulary",
        licenses=("MIT (of the code; the card of the weights says no more)",),
        facts=ModelFacts(
            size="unknown",
            languages="English",
            vocabulary="BERT WordPieces, uncased, ASCII only",
            tokens=27_623,
            recall="unknown",
            source="Zhou et al., ICLR 2024; weights: README of github.com/jzhoubu/vsearch",
            verified=_RANDOM_WEIGHTS,
            unverified="the published weights, and how well it finds photographs",
        ),
    ),
)


def list_hub_model_names() -> tuple[str, ...]:
    """Return the short names."""
    return tuple(model.name for model in HUB_MODELS)


def find_hub_model(name: str) -> HubModel | None:
    """Return the checkpoint with this short name or hub id; None if there is none."""
    return next((model for model in HUB_MODELS if name in (model.name, model.hub_id)), None)

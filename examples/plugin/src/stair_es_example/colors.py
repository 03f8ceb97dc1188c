"""The model `colors`: its card, known without loading it.

Kind and encoder are two modules: `stair-es plugins` imports this one, which must be cheap; a worker that encodes imports the
other one with all its libraries.
"""

from __future__ import annotations

from stair_es.api import Encoder, EncoderPlugin, ImageSpec, ModelCard, ModelSpec

BACKGROUND = (255, 0, 255)
"""Fills the square around an image that isn't square: a color that photos don't contain, so that the encoder can skip it."""


class ColorsPlugin(EncoderPlugin):
    """The plugin: the card, and how to load the encoder."""

    api_version = 1
    card = ModelCard(
        name="colors",
        # Stored in each document, its fingerprint and the index: change it whenever an image would get another vector.
        model_id="colors-1",
        image_spec=ImageSpec(size_px=64, background=BACKGROUND),
        description="eleven color words by their share of the picture: no network, no training, an example",
    )

    def load(self, spec: ModelSpec) -> Encoder:
        """Load the encoder."""
        from stair_es_example.colors_encoder import ColorsEncoder

        return ColorsEncoder(self.card)


KIND = ColorsPlugin()

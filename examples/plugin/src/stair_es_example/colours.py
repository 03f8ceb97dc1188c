"""The model `colours`, as far as it is known without being loaded.

Kind and encoder are two modules: `stair-es --help` and `stair-es plugins` import this one, which must be cheap, and a worker
that encodes imports the other with all its libraries.
"""

from __future__ import annotations

from stair_es.api import Encoder, ImageSpec, ModelCard, ModelSpec

BACKGROUND = (255, 0, 255)
"""Fills the square around an image that isn't square; a colour that photos don't have, so that the encoder can leave it out."""


class Kind:
    """See `EncoderPlugin`."""

    api_version = 1
    card = ModelCard(
        name="colours",
        # Goes into each document, its fingerprint and the index: count it up when an image would get another vector.
        model_id="colours-1",
        image_spec=ImageSpec(size_px=64, background=BACKGROUND),
        description="eleven colour words by their share of the picture: no network, no training, an example",
    )

    def can_use_gpu(self, spec: ModelSpec) -> bool:
        """Never."""
        return False

    def load(self, spec: ModelSpec) -> Encoder:
        """The encoder."""
        from stair_es_example.colours_encoder import Colours

        return Colours(self.card)


KIND = Kind()

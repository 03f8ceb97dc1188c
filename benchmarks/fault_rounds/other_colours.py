"""Another model: `colours` under another name, whose documents belong in a different index."""

from __future__ import annotations

from dataclasses import replace

from stair_es_example.colours import ColoursPlugin


class OtherColoursPlugin(ColoursPlugin):
    """See `EncoderPlugin`."""

    card = replace(ColoursPlugin.card, name="other-colours", model_id="other-colours-1")


KIND = OtherColoursPlugin()

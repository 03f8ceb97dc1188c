"""Another model: `colours` under another name, so that its documents don't belong into the same index."""

from __future__ import annotations

from dataclasses import replace

from stair_es_example.colours import Kind as Colours


class Kind(Colours):
    """See `EncoderPlugin`."""

    card = replace(Colours.card, name="other-colours", model_id="other-colours-1")


KIND = Kind()

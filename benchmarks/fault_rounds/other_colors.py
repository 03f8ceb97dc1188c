"""Another model: `colors` under another name, whose documents belong in a different index."""

from __future__ import annotations

from dataclasses import replace

from stair_es_example.colors import ColorsPlugin


class OtherColorsPlugin(ColorsPlugin):
    """The plugin."""

    card = replace(ColorsPlugin.card, name="other-colors", model_id="other-colors-1")


KIND = OtherColorsPlugin()

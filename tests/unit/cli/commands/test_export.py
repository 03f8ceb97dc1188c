"""`stair-es export` of a checkpoint that needs no graphs."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.model.stair.configuration import BackboneConfig, ImageTowerConfig, StairConfig, TextTowerConfig


def test_a_checkpoint_on_packaged_backbones_needs_no_export(tmp_path: Path) -> None:
    image = BackboneConfig(kind="package", name="efficientnet-lite2")
    config = StairConfig(
        name="mine",
        image=ImageTowerConfig(backbone=image, size_px=260, mean=(0.5,) * 3, std=(0.5,) * 3, pool="mean"),
        text=TextTowerConfig(backbone=BackboneConfig(kind="package", name="all-minilm-l6-v2"), pool="mean"),
    )
    (tmp_path / "config.json").write_text(config.to_json())
    for name in ("model.safetensors", "tokenizer.json"):
        (tmp_path / name).write_bytes(b"")
    before = sorted(tmp_path.iterdir())
    result = CliRunner().invoke(app, ["export", str(tmp_path)])
    assert (result.exit_code, "needs no graphs" in result.stdout) == (0, True), result.output
    result = CliRunner().invoke(app, ["export", str(tmp_path), "--json"])
    value = json.loads(result.stdout)
    assert value["model"].startswith("mine-")
    assert (value["bytes"], value["difference"]) == ({}, 0.0)
    assert sorted(tmp_path.iterdir()) == before

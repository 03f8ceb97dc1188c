"""A checkpoint by a relative folder, on Ray: the workers load it themselves, and the index says where it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from PIL import Image
from tiny_checkpoints import vdr_config, vdr_weights, write

from stair_es.cluster.connect import Connection
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.run import ingest
from stair_es.ingest.run_ray import RayOptions
from stair_es.model.encoder import ModelSpec
from stair_es.search import ImageSearch
from stair_es.sources.registry import open_source

if TYPE_CHECKING:
    from opensearchpy import OpenSearch


def test_a_relative_folder_reaches_the_workers_of_ray(
    node_url: str, client: OpenSearch, index_name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ray's workers load the model themselves, wherever they are; a later search finds it by what the index says."""
    folder = write(tmp_path / "VDR Tiny", vdr_config(), vdr_weights())
    (tmp_path / "pictures").mkdir()
    for place, pixels_HWC in enumerate(np.random.default_rng(1).integers(0, 256, (2, 12, 12, 3), np.uint8)):
        Image.fromarray(pixels_HWC).save(tmp_path / "pictures" / f"{place}.png")
    monkeypatch.chdir(tmp_path)
    options = IngestOptions(
        alias=index_name,
        model=ModelSpec(name="VDR Tiny"),
        runner="ray",
        ray=RayOptions(encoders=1),
        dead_letters=tmp_path / "letters.jsonl",
    )
    pictures = [open_source(str(tmp_path / "pictures"))]
    report = ingest(pictures, Connection(url=node_url), options, say=lambda _: None, progress=lambda _: None)
    assert (report.written, report.dead) == (2, 0)
    monkeypatch.chdir("/")
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert about["model_name"] == str(folder)
    with ImageSearch(index_name, url=node_url) as search:
        assert search.encoder.model_id == report.model
        for place in range(2):
            hit = search.search(tmp_path / "pictures" / f"{place}.png").hits[0]
            assert hit.uri.endswith(f"{place}.png")
            assert hit.score == pytest.approx(sum(reason.contribution for reason in hit.why), rel=0.01)

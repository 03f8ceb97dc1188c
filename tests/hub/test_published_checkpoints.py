"""Numbers that the authors of public checkpoints print, from their published weights. See `tests/hub/conftest.py`."""

from __future__ import annotations

from urllib.request import urlopen

import numpy as np
import pyarrow.parquet as pq  # type: ignore[import-untyped]
import pytest
from huggingface_hub import hf_hub_download, model_info

from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.model import registry
from stair_es.model.adapters.d2s import D2sEncoder
from stair_es.model.base import ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image

VDR_PICTURE = (
    "https://raw.githubusercontent.com/jzhoubu/vsearch/b42da0dea669a8a4423f3eac70b1bb21096285ab/examples/images/mars.png"
)
VDR_TEXTS = [
    "Four thousand Martian days after setting its wheels in Gale Crater on Aug. 5, 2012, NASA’s Curiosity rover remains busy "
    "conducting exciting science. The rover recently drilled its 39th sample then dropped the pulverized rock into its belly for "
    "detailed analysis.",
    "ChatGPT is a chatbot developed by OpenAI and launched on November 30, 2022. Based on a large language model, it enables "
    "users to refine and steer a conversation towards a desired length, format, style, level of detail, and language.",
]
SPLADE_PAGE = "https://raw.githubusercontent.com/naver/v-splade/main/examples/sample_page.png"


def fetch_bytes(url: str) -> bytes:
    with urlopen(url, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def test_vdr_matches_its_readme() -> None:
    encoder = registry.load_encoder(ModelSpec(name="photos-small"))
    image = encoder.encode_images(decode_image(fetch_bytes(VDR_PICTURE), encoder.image_spec, DecodeLimits()).pixels_HWC[None])[0]
    scores = [image.dot(text) for text in encoder.encode_texts(VDR_TEXTS)]
    assert scores == pytest.approx([0.3209, 0.0984], abs=5e-4)


def test_d2s_matches_its_readme() -> None:
    encoder = registry.load_encoder(ModelSpec(name="photos"))
    assert isinstance(encoder, D2sEncoder)
    table = pq.read_table(hf_hub_download("lsr42/mscoco-blip-dense", "img_embs.parquet", repo_type="dataset"))
    dense_BD = np.array([table.column("emb")[2].as_py()], np.float32)
    [vector] = encoder.weigh_tokens(dense_BD)
    wanted = {"animals": 1.6846, "boy": 1.6151, "buffalo": 1.5110, "animal": 1.3621, "people": 1.3547}
    assert vector.top(5).to_dict() == pytest.approx(wanted, abs=5e-4)


def test_v_splade_matches_its_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its order, not its numbers: it gets our images on a padded square."""
    name = "naver/v-splade-quality"
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, f"{name}@{model_info(name).sha}")
    encoder = registry.load_encoder(ModelSpec(name="pages"))
    pixels_HWC = decode_image(fetch_bytes(SPLADE_PAGE), encoder.image_spec, DecodeLimits()).pixels_HWC
    page = encoder.encode_images(pixels_HWC[None])[0]
    assert "dog" in page.top(10).tokens
    forms, office = (page.dot(query) for query in encoder.encode_texts(["send signed forms", "records office"]))
    assert forms > office > 0

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
from stair_es.model.base import Encoder, ModelSpec
from stair_es.sources.image.decode import DecodeLimits, decode_image
from stair_es.types import Pixels

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
D2S_PICTURE = (
    "https://raw.githubusercontent.com/thongnt99/lsr-multimodal/ae7ac1e85b25740d1608d16b10fbb322e735f5cf/"
    "sample_images/COCO_val2014_000000184613.jpg"
)
"""Picture of the example in the README, 500 x 336 px. Row 2 of the authors' data set has its dense vector."""
SPLADE_PAGE = "https://raw.githubusercontent.com/naver/v-splade/main/examples/sample_page.png"


def fetch_bytes(url: str) -> bytes:
    with urlopen(url, timeout=60) as answer:
        data: bytes = answer.read()
    return data


def fetch_pixels(url: str, encoder: Encoder) -> Pixels:
    """Return the image as a batch of one, prepared for the encoder."""
    return decode_image(fetch_bytes(url), encoder.image_spec, DecodeLimits()).pixels_HWC[None]


def test_vdr_matches_its_readme() -> None:
    encoder = registry.load_encoder(ModelSpec(name="photos-small"))
    [image] = encoder.encode_images(fetch_pixels(VDR_PICTURE, encoder))
    scores = [image.dot(text) for text in encoder.encode_texts(VDR_TEXTS)]
    assert scores == pytest.approx([0.3209, 0.0984], abs=5e-4)


def test_d2s_matches_its_readme() -> None:
    """From the picture on: prepared otherwise, or by another BLIP, its dense vector would differ from the authors'."""
    encoder = registry.load_encoder(ModelSpec(name="photos"))
    assert isinstance(encoder, D2sEncoder)
    table = pq.read_table(hf_hub_download("lsr42/mscoco-blip-dense", "img_embs.parquet", repo_type="dataset"))
    theirs_D = np.array(table.column("emb")[2].as_py(), np.float32)
    [ours_D] = encoder.encode_images_dense(fetch_pixels(D2S_PICTURE, encoder))
    assert ours_D @ theirs_D / np.linalg.norm(theirs_D) > 0.999  # fp16 and another JPEG decoder change less
    wanted = {"animals": 1.6846, "boy": 1.6151, "buffalo": 1.5110, "animal": 1.3621, "people": 1.3547}
    theirs, ours = encoder.weigh_tokens(np.stack([theirs_D, ours_D]))
    assert theirs.top(5).to_dict() == pytest.approx(wanted, abs=5e-4)
    weights = ours.to_dict()
    assert {token: weights.get(token, 0) for token in wanted} == pytest.approx(wanted, abs=0.05)


def test_v_splade_matches_its_readme(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its order, not its numbers: it gets our images on a padded square."""
    name = "naver/v-splade-quality"
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, f"{name}@{model_info(name).sha}")
    encoder = registry.load_encoder(ModelSpec(name="pages"))
    [page] = encoder.encode_images(fetch_pixels(SPLADE_PAGE, encoder))
    assert "dog" in page.top(10).tokens
    forms, office = (page.dot(query) for query in encoder.encode_texts(["send signed forms", "records office"]))
    assert forms > office > 0

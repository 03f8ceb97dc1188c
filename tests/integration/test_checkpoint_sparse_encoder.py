"""Sparse encoders of sentence-transformers, with a byte-level vocabulary, and SPLADE as it is saved, without its own modules."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
import transformers
import transformers.dynamic_module_utils
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SparseEncoder
from support.errors import expect_error
from support.models import tiny_dense, tiny_sparse
from support.models.tiny_checkpoints import WORDS, MaliciousPickle
from tokenizers import Tokenizer
from transformers import BertConfig

from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.feature_names import unescape_feature
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search import ImageSearch, QueryInputs
from stair_es.sources.registry import open_source
from stair_es.types import Floats, Pixels

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

RED, BLUE = (255, 0, 0), (0, 0, 255)
TEXTS = ["a red dog", "cats", "bus ! ."]


@pytest.fixture
def splade_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with code of its own, which is trusted."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    tiny_sparse.write_image_model(tmp_path / "splade")
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, f"org/other, {tiny_sparse.build_trust(tmp_path / 'splade')}")
    return tmp_path / "splade"


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (3, tiny_sparse.SIDE_PX, tiny_sparse.SIDE_PX, 3), np.uint8)


def load_encoder(folder: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(folder)))


def to_dimensions(encoder: Encoder, row: dict[str, float]) -> NDArray[np.float64]:
    """Return the weights of a vector in the order of the tokens."""
    features: tuple[str, ...] = encoder.tokens
    assert set(row) <= set(features)
    return np.array([row.get(word, 0.0) for word in features])


def test_images_match_numpy(splade_folder: Path, pixels: NDArray[np.uint8]) -> None:
    from safetensors.numpy import load_file

    colors = load_file(splade_folder / "model.safetensors")["colors"]
    encoder = load_encoder(splade_folder)
    for vector, pixels_HWC in zip(encoder.encode_images(pixels), pixels, strict=True):
        expected_V = np.log1p(np.maximum(colors @ (pixels_HWC.reshape(-1, 3).mean(0) / 255 - 0.5), 0))
        assert to_dimensions(encoder, vector.to_dict()) == pytest.approx(expected_V, abs=1e-5)


def test_texts_match_the_table(splade_folder: Path) -> None:
    from safetensors.numpy import load_file

    table, encoder = load_file(splade_folder / "model.safetensors")["table"], load_encoder(splade_folder)
    vocabulary = tiny_sparse.build_tokenizer().get_vocab()
    vectors = encoder.encode_texts([" red dogs v2.0", "new york"])
    words = {"red": "Ġred", "dogs": "Ġdogs", "v2.0": "Ġv2.0"}
    assert vectors[0].to_dict() == pytest.approx({word: table[vocabulary[token]] for word, token in words.items()}, abs=6e-6)
    assert vectors[1].to_dict() == pytest.approx({"new york": table[vocabulary["new york"]]}, abs=6e-6)
    assert not len(encoder.encode_texts([""])[0])
    assert encoder.encode_texts([]) == []


def test_alone_and_in_a_batch_are_the_same(splade_folder: Path, pixels: NDArray[np.uint8]) -> None:
    encoder, texts = load_encoder(splade_folder), [" red", " blue bus v2.0 dogs", "x"] * 5
    for vector, one in zip(encoder.encode_images(pixels), pixels, strict=True):
        assert encoder.encode_images(one[None])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1.2e-5)
    for vector, text in zip(encoder.encode_texts(texts), texts, strict=True):
        assert encoder.encode_texts([text])[0] == vector


def test_words_are_readable_and_spelled(splade_folder: Path) -> None:
    encoder = load_encoder(splade_folder)
    for word in ("red", "v2.0", "café", "new york", "##d", "<mask>"):
        assert encoder.tokenize_word(word) == (word,)
    assert encoder.tokenize_word("reds") == ("red", "##s")
    features: tuple[str, ...] = encoder.tokens
    assert len(set(features)) == len(features)
    assert features[-1] == f"[id {len(features) - 1}]"


def test_code_of_a_model_runs_only_if_its_version_is_trusted(
    splade_folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    marker, unchanged = tmp_path / "ran", tiny_sparse.build_trust(splade_folder)
    with (splade_folder / "tiny_splade.py").open("a") as file:
        file.write(f"\nopen({str(marker)!r}, 'w').close()\n")
    for trusted in ("", str(splade_folder), unchanged):
        monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, trusted)
        with expect_error("remote-code-not-trusted") as caught:
            registry.resolve_model(ModelSpec(name=str(splade_folder)))
        assert "tiny_splade.TinySplade" in caught.value.message
        assert f"{ENV_TRUST_REMOTE_CODE}={tiny_sparse.build_trust(splade_folder)}" in caught.value.remedy
    assert not marker.exists()


def test_pages_match_numpy_and_texts_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pixels: Pixels) -> None:
    """In the layout of V-SPLADE: its network takes images alone."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = tmp_path / "pages"
    table, colors = (weights.numpy() for weights in tiny_sparse.write_page_model(folder))
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, tiny_sparse.build_trust(folder))
    encoder = load_encoder(folder)
    half = tiny_sparse.SIDE_PX // 2
    for vector, pixels_HWC in zip(encoder.encode_images(pixels), pixels, strict=True):
        parts_PC = pixels_HWC.reshape(2, half, 2, half, 3).mean((1, 3)).reshape(4, 3) / 255 - 0.5
        expected_V = np.log1p(np.maximum(parts_PC @ colors.T, 0)).max(0)
        assert to_dimensions(encoder, vector.to_dict()) == pytest.approx(expected_V, abs=1e-5)
    vocabulary = tiny_sparse.build_tokenizer().get_vocab()
    [vector] = encoder.encode_texts([" red v2.0"])
    expected = {word: table[vocabulary[f"Ġ{word}"]] for word in ("red", "v2.0")}
    assert vector.to_dict() == pytest.approx(expected, abs=6e-6)


@pytest.mark.parametrize(
    ("file", "config"),
    [
        ("inner/config.json", {"auto_map": {"AutoModel": "modeling.Net"}}),
        ("router_config.json", {"types": {"query_0": "modeling.Query"}}),
    ],
)
def test_code_that_is_named_deeper_counts_too(tmp_path: Path, file: str, config: dict[str, Any]) -> None:
    tiny_sparse.write_text_model(tmp_path / "m")
    assert registry.resolve_model(ModelSpec(name=str(tmp_path / "m"))).card
    (tmp_path / "m" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "m" / file).write_text(json.dumps(config))
    with expect_error("remote-code-not-trusted") as caught:
        registry.resolve_model(ModelSpec(name=str(tmp_path / "m")))
    assert "modeling." in caught.value.message


def test_the_id_counts_the_weights_of_a_routers_routes(tmp_path: Path) -> None:
    tiny_sparse.write_text_model(tmp_path / "m")
    route = tmp_path / "m" / "0_Router" / "query_0"
    route.mkdir(parents=True)
    (route / "model.safetensors").write_bytes(b"one")
    first = registry.resolve_model(ModelSpec(name=str(tmp_path / "m"))).card.model_id
    (route / "model.safetensors").write_bytes(b"another")
    second = registry.resolve_model(ModelSpec(name=str(tmp_path / "m"))).card.model_id
    assert first != second
    (tmp_path / "m" / ".cache").mkdir()
    (tmp_path / "m" / ".cache" / "of_the_hub.json").write_text("{}")
    assert registry.resolve_model(ModelSpec(name=str(tmp_path / "m"))).card.model_id == second


def test_text_models_encode_no_images(tmp_path: Path) -> None:
    table = tiny_sparse.write_text_model(tmp_path / "m")
    encoder = load_encoder(tmp_path / "m")
    vector = encoder.encode_texts([" red bus"])[0]
    vocabulary = tiny_sparse.build_tokenizer().get_vocab()
    expected = {word: float(table[vocabulary[token]]) for word, token in (("red", "Ġred"), ("bus", "Ġbus"))}
    assert vector.to_dict() == pytest.approx(expected, abs=6e-6)
    side = encoder.image_spec.size_px
    with expect_error("model-of-texts-only"):
        encoder.encode_images(np.zeros((1, side, side, 3), np.uint8))


def test_a_broken_model_is_reported(splade_folder: Path, tmp_path: Path) -> None:
    (splade_folder / "model.safetensors").write_bytes(b"")
    with expect_error("checkpoint-error") as caught:
        load_encoder(splade_folder).encode_texts(["x"])
    assert str(splade_folder) in caught.value.message
    (splade_folder / "modules.json").write_text(json.dumps([{"path": "../..", "type": "sentence_transformers.models.Router"}]))
    with expect_error("checkpoint-error") as caught:
        load_encoder(splade_folder)
    assert "modules.json" in caught.value.message


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, color in (("red", RED), ("blue", BLUE)):
        Image.new("RGB", (40, 40), color).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


def ingest_images(url: str, index: str, model: str, image_folder: Path, tmp_path: Path, runner: str = "local") -> None:
    options = IngestOptions(
        alias=index,
        model=ModelSpec(name=model),
        runner=runner,  # type: ignore[arg-type]
        ray=RayOptions(encoders=1),
        dead_letters=tmp_path / "letters.jsonl",
    )
    report = run_ingest([open_source(str(image_folder))], Connection(url=url), options, progress=lambda _: None)
    assert (report.written, report.failed) == (2, 0)


def test_other_words_than_berts_go_into_an_index_and_are_found(
    node_url: str,
    client: OpenSearch,
    index_name: str,
    splade_folder: Path,
    image_folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Words with dots and spaces, pieces and a relative folder: through ingest, the index, search with the index's own model."""
    monkeypatch.chdir(tmp_path)
    ingest_images(node_url, index_name, "./splade", image_folder, tmp_path)
    monkeypatch.chdir("/")
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert about["model_name"] == str(splade_folder)
    assert about["model"].startswith("splade-")

    with ImageSearch(index_name, url=node_url) as search:
        encoder = search.encoder
        stored = {
            Path(hit["_source"]["uri"]).stem: hit["_source"]["tokens"]
            for hit in client.search(index=index_name, body={"query": {"match_all": {}}})["hits"]["hits"]
        }
        for name, color in (("red", RED), ("blue", BLUE)):
            pixels = np.full((1, 16, 16, 3), color, np.uint8)
            vector = encoder.encode_images(pixels)[0]
            kept = {unescape_feature(feature): weight for feature, weight in stored[name].items()}
            assert kept == pytest.approx(vector.to_dict(), rel=1e-5)
            assert any("." in word for word in kept) or name == "blue"
        for word, name in ((" red", "red"), (" v2.0", "red"), (" blue", "blue"), ("new york", "blue")):
            hits = search.search(QueryInputs(texts=[word])).hits
            assert Path(hits[0].uri).stem == name, word
            assert word.strip() in {reason.token for reason in hits[0].contributions}
        matches = search.search(QueryInputs(texts=[" red blue"], required=["v2.0"])).hits
        assert [Path(hit.uri).stem for hit in matches] == ["red"]
        matches = search.search(QueryInputs(texts=[" red blue"], excluded=["v2.0"])).hits
        assert [Path(hit.uri).stem for hit in matches] == ["blue"]


def test_moved_models_are_reported(
    node_url: str, index_name: str, splade_folder: Path, image_folder: Path, tmp_path: Path
) -> None:
    ingest_images(node_url, index_name, str(splade_folder), image_folder, tmp_path)
    shutil.move(splade_folder, tmp_path / "elsewhere")
    with ImageSearch(index_name, url=node_url) as search, expect_error("query-model-not-fetched"):
        search.search("red")


# --- SPLADE, before its first encode and without modules ---


def write_splade(splade_folder: Path, *, pickled: bool = False) -> Path:
    """Write a masked language model, as `naver/splade_v2_*` are: hidden size 8, 17 words."""
    torch.manual_seed(3)
    config = BertConfig(
        vocab_size=len(WORDS),
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        initializer_range=0.5,
    )
    kind: Any = transformers.BertForMaskedLM
    model = kind(config)
    model.save_pretrained(splade_folder)
    tiny_dense.build_tokenizer().save_pretrained(splade_folder)
    if pickled:
        (splade_folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), splade_folder / "pytorch_model.bin")
    return splade_folder


def change_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def encode_with_library(splade_folder: Path) -> Floats:
    """Return the weights [B, V] of `TEXTS` by sentence-transformers itself."""
    model: Any = SparseEncoder(str(splade_folder), device="cpu", local_files_only=True)
    rows: Floats = model.encode_query(TEXTS, convert_to_sparse_tensor=False).float().numpy()
    return rows


def check_texts(folder: Path, expected_BV: Floats) -> None:
    encoder = load_encoder(folder)
    assert encoder.tokens == WORDS
    for vector, expected_V in zip(encoder.encode_texts(TEXTS), expected_BV, strict=True):
        weights = {word: float(weight) for word, weight in zip(WORDS, expected_V, strict=True) if weight > 0}
        assert vector.to_dict() == pytest.approx(weights, abs=6e-6)


def test_model_saved_before_its_first_encode(tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    SparseEncoder(str(write_splade(tmp_path / "bert")), device="cpu").save_pretrained(str(saved))
    config = json.loads((saved / "1_SpladePooling" / "config.json").read_text())
    assert config["embedding_dimension"] is None
    expected_BV = encode_with_library(saved)
    assert expected_BV.shape == (3, len(WORDS))
    assert np.count_nonzero(expected_BV)
    check_texts(saved, expected_BV)


@pytest.mark.parametrize("pickled", [False, True])
def test_one_without_modules(tmp_path: Path, pickled: bool) -> None:
    splade_folder = write_splade(tmp_path / "splade", pickled=pickled)
    check_texts(splade_folder, encode_with_library(splade_folder))
    assert registry.resolve_model(ModelSpec(name=str(splade_folder))).card.description.startswith("SPLADE")


def test_code_in_folders_and_weights_is_not_run(tmp_path: Path) -> None:
    splade_folder = write_splade(tmp_path / "splade", pickled=True)
    torch.save({"cls.predictions.bias": MaliciousPickle()}, splade_folder / "pytorch_model.bin")
    with expect_error("checkpoint-error"):
        load_encoder(splade_folder).encode_texts(["dog"])
    change_config(splade_folder, auto_map={"AutoModelForMaskedLM": "own.Net"})
    with expect_error("remote-code-not-trusted") as caught:
        registry.resolve_model(ModelSpec(name=str(splade_folder)))
    assert "own.Net" in caught.value.message


def test_a_token_without_an_embedding_is_named(tmp_path: Path) -> None:
    splade_folder = write_splade(tmp_path / "splade")
    tokenizer = Tokenizer.from_file(str(splade_folder / "tokenizer.json"))
    tokenizer.add_tokens(["zebra"])
    tokenizer.save(str(splade_folder / "tokenizer.json"))
    with expect_error("checkpoint-error") as caught:
        load_encoder(splade_folder).encode_texts(["dog"])
    assert "'zebra'" in caught.value.message


def test_networks_need_words(tmp_path: Path) -> None:
    splade_folder = write_splade(tmp_path / "bert")
    change_config(splade_folder, architectures=["BertModel"])
    with expect_error("checkpoint-error") as caught:
        registry.resolve_model(ModelSpec(name=str(splade_folder)))
    assert "BertModel" in caught.value.message

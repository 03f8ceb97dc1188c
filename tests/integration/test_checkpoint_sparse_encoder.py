"""Sparse encoders of sentence-transformers, with a byte-level vocabulary: vectors, words, code that isn't trusted, and a node."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import transformers.dynamic_module_utils
from numpy.typing import NDArray
from PIL import Image
from support.models import tiny_sparse

from stair_es.cluster.client.connection import Connection
from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE
from stair_es.errors import ModelError
from stair_es.feature_names import unescape_feature
from stair_es.ingest.executors.ray import RayOptions
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.search import ImageSearch, QueryInputs
from stair_es.sources.registry import open_source

if TYPE_CHECKING:
    from opensearchpy import OpenSearch

RED, BLUE = (255, 0, 0), (0, 0, 255)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model with code of its own, which is trusted."""
    monkeypatch.setattr(transformers.dynamic_module_utils, "HF_MODULES_CACHE", str(tmp_path / "modules"))
    tiny_sparse.write_image_model(tmp_path / "splade")
    monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, f"org/other, {tmp_path / 'splade'}")
    return tmp_path / "splade"


@pytest.fixture
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(3).integers(0, 256, (3, tiny_sparse.SIDE_PX, tiny_sparse.SIDE_PX, 3), np.uint8)


def _load(folder: Path) -> Encoder:
    return registry.load_encoder(ModelSpec(name=str(folder)))


def _weights(encoder: Encoder, row: dict[str, float]) -> NDArray[np.float64]:
    """A vector as its dimensions."""
    features: tuple[str, ...] = encoder.tokens
    assert set(row) <= set(features)
    return np.array([row.get(word, 0.0) for word in features])


def test_images_match_numpy(folder: Path, pixels: NDArray[np.uint8]) -> None:
    from safetensors.numpy import load_file

    colors = load_file(folder / "model.safetensors")["colors"]
    encoder = _load(folder)
    for vector, pixels_HWC in zip(encoder.encode_images(pixels), pixels, strict=True):
        wanted_V = np.log1p(np.maximum(colors @ (pixels_HWC.reshape(-1, 3).mean(0) / 255 - 0.5), 0))
        assert _weights(encoder, vector.to_dict()) == pytest.approx(wanted_V, abs=1e-5)


def test_texts_match_the_table(folder: Path) -> None:
    from safetensors.numpy import load_file

    table, encoder = load_file(folder / "model.safetensors")["table"], _load(folder)
    vocabulary = tiny_sparse.build_tokenizer().get_vocab()
    found = encoder.encode_texts([" red dogs v2.0", "new york"])
    words = {"red": "Ġred", "dogs": "Ġdogs", "v2.0": "Ġv2.0"}
    assert found[0].to_dict() == pytest.approx({word: table[vocabulary[token]] for word, token in words.items()})
    assert found[1].to_dict() == pytest.approx({"new york": table[vocabulary["new york"]]})
    assert not len(encoder.encode_texts([""])[0])
    assert encoder.encode_texts([]) == []


def test_alone_and_in_a_batch_are_the_same(folder: Path, pixels: NDArray[np.uint8]) -> None:
    encoder, texts = _load(folder), [" red", " blue bus v2.0 dogs", "x"] * 5
    for vector, one in zip(encoder.encode_images(pixels), pixels, strict=True):
        assert encoder.encode_images(one[None])[0].to_dict() == pytest.approx(vector.to_dict(), abs=1e-6)
    for vector, text in zip(encoder.encode_texts(texts), texts, strict=True):
        assert encoder.encode_texts([text])[0] == vector


def test_words_are_readable_and_spelled(folder: Path) -> None:
    encoder = _load(folder)
    for word in ("red", "v2.0", "café", "new york", "##d", "<mask>"):
        assert encoder.tokenize_word(word) == (word,)
    assert encoder.tokenize_word("reds") == ("red", "##s")
    features: tuple[str, ...] = encoder.tokens
    assert len(set(features)) == len(features)
    assert features[-1] == f"[id {len(features) - 1}]"


def test_code_of_a_model_runs_only_if_its_name_is_trusted(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    with (folder / "tiny_splade.py").open("a") as file:
        file.write(f"\nopen({str(ran)!r}, 'w').close()\n")
    for said in ("", "1", str(tmp_path), "splade"):
        monkeypatch.setenv(ENV_TRUST_REMOTE_CODE, said)
        with pytest.raises(ModelError, match=r"its own Python code \(tiny_splade\.TinySplade\)") as wrong:
            registry.resolve_model(ModelSpec(name=str(folder)))
        assert f"{ENV_TRUST_REMOTE_CODE}={folder}" in wrong.value.remedy
    assert not ran.exists()


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("inner/config.json", {"auto_map": {"AutoModel": "modeling.Net"}}),
        ("router_config.json", {"types": {"query_0": "modeling.Query"}}),
    ],
)
def test_code_that_is_named_deeper_counts_too(tmp_path: Path, file: str, said: dict[str, Any]) -> None:
    tiny_sparse.write_text_model(tmp_path / "m")
    assert registry.resolve_model(ModelSpec(name=str(tmp_path / "m"))).card
    (tmp_path / "m" / file).parent.mkdir(exist_ok=True)
    (tmp_path / "m" / file).write_text(json.dumps(said))
    with pytest.raises(ModelError, match="modeling"):
        registry.resolve_model(ModelSpec(name=str(tmp_path / "m")))


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
    encoder = _load(tmp_path / "m")
    vector = encoder.encode_texts([" red bus"])[0]
    vocabulary = tiny_sparse.build_tokenizer().get_vocab()
    wanted = {word: float(table[vocabulary[token]]) for word, token in (("red", "Ġred"), ("bus", "Ġbus"))}
    assert vector.to_dict() == pytest.approx(wanted)
    side = encoder.image_spec.size_px
    with pytest.raises(ModelError, match="texts only"):
        encoder.encode_images(np.zeros((1, side, side, 3), np.uint8))


def test_a_broken_model_is_reported(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")
    with pytest.raises(ModelError, match="can't be loaded"):
        _load(folder).encode_texts(["x"])
    (folder / "modules.json").write_text(json.dumps([{"path": "../..", "type": "sentence_transformers.models.Router"}]))
    with pytest.raises(ModelError, match="outside the folder"):
        _load(folder)


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    (tmp_path / "pictures").mkdir()
    for name, color in (("red", RED), ("blue", BLUE)):
        Image.new("RGB", (40, 40), color).save(tmp_path / "pictures" / f"{name}.png")
    return tmp_path / "pictures"


def _ingest(url: str, index: str, model: str, pictures: Path, tmp_path: Path, runner: str = "local") -> None:
    options = IngestOptions(
        alias=index,
        model=ModelSpec(name=model),
        runner=runner,  # type: ignore[arg-type]
        ray=RayOptions(encoders=1),
        dead_letters=tmp_path / "letters.jsonl",
    )
    report = run_ingest([open_source(str(pictures))], Connection(url=url), options, progress=lambda _: None)
    assert (report.written, report.failed) == (2, 0)


def test_other_words_than_berts_go_into_an_index_and_are_found(
    node_url: str,
    client: OpenSearch,
    index_name: str,
    folder: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Words with dots and spaces, pieces and a relative folder: through ingest, the index, search with the index's own model."""
    monkeypatch.chdir(tmp_path)
    _ingest(node_url, index_name, "./splade", pictures, tmp_path)
    monkeypatch.chdir("/")
    about = next(iter(client.indices.get(index=index_name).values()))["mappings"]["_meta"]["stair_es"]
    assert about["model_name"] == str(folder)
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
        only = search.search(QueryInputs(texts=[" red blue"], required=["v2.0"])).hits
        assert [Path(hit.uri).stem for hit in only] == ["red"]
        only = search.search(QueryInputs(texts=[" red blue"], excluded=["v2.0"])).hits
        assert [Path(hit.uri).stem for hit in only] == ["blue"]


def test_moved_models_are_reported(node_url: str, index_name: str, folder: Path, pictures: Path, tmp_path: Path) -> None:
    _ingest(node_url, index_name, str(folder), pictures, tmp_path)
    shutil.move(folder, tmp_path / "elsewhere")
    with ImageSearch(index_name, url=node_url) as search, pytest.raises(ModelError, match="neither a name nor a folder"):
        search.search("red")

"""Our models as a `SparseEncoder` of sentence-transformers: trained, distilled, included; saved, moved to another process."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from sentence_transformers import SparseEncoder
from support.errors import expect_error
from support.models import tiny_dense, tiny_sparse, tiny_stair, tiny_training
from support.servers.hub_server import build_environment, serve_hub

from stair_es.distill.dense_model import open_dense_model, sample_images
from stair_es.distill.labels import LabelOptions, distill_labels
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.checkpoint import LIBRARY_CONFIG_JSON, MODULES_JSON, write_library_files
from stair_es.model.families import detect_family
from stair_es.model.labels.word_list import WordKind
from stair_es.sentence_transformers import StairModule
from stair_es.sources.registry import open_source

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"
CAT, KOALA = str(PHOTOS / "tabby-cat.jpg"), str(PHOTOS / "koala.jpg")
TEXTS = ["a red dog in the sea", "cat", "bus", "."]
ORIENTATION, ROTATED = 0x0112, 6
pytestmark = pytest.mark.filterwarnings("ignore:Sparse:UserWarning")  # of torch, about its own products


def write_trained(folder: Path) -> None:
    tiny_training.write_set(folder.with_name("set"))
    tiny_training.run_training(folder.with_name("set"), folder, {"recipe.steps": 2})


def write_whole_words(folder: Path) -> None:
    tiny_stair.write_checkpoint(folder, tiny_stair.build_config(vocabulary="words"))


def write_distilled(folder: Path) -> None:
    dense = open_dense_model(ModelSpec(name=str(tiny_dense.write_clip(folder.parent / "clip"))))
    images = [item.locator for item in sample_images([open_source(str(PHOTOS))], 5, print)]
    words: dict[str, WordKind] = {"dog": "thing", "red": "attribute", "cat": "thing", "bus": "thing", "red dog": "thing"}
    distill_labels(dense, images, words, folder, LabelOptions(), lambda part, done, total: None)


WRITERS = {"trained": write_trained, "whole words": write_whole_words, "distilled": write_distilled}


@pytest.fixture(autouse=True)
def work_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture(params=WRITERS)
def checkpoint(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    WRITERS[request.param](tmp_path / "mine")
    return tmp_path / "mine"


@pytest.fixture(scope="module")
def mini() -> SparseEncoder:
    return SparseEncoder(modules=[StairModule("stair-mini")], device="cpu")


def load_encoder(name: str) -> Encoder:
    return registry.load_encoder(ModelSpec(name=name, device="cpu"))


def read_image(path: Path | str) -> Image.Image:
    image = Image.open(path)
    image.load()
    return image


def encode(model: SparseEncoder, inputs: Any, **options: Any) -> torch.Tensor:  # noqa: ANN401  images, too: the library says texts
    return torch.as_tensor(model.encode(inputs, **options)).to_dense()


def check_vectors(model: SparseEncoder, encoder: Encoder) -> None:
    """Check words, weights and dot products against those of the encoder, which the index gets."""
    images = encoder.encode(images=[CAT, KOALA], raise_errors=True)
    texts = encoder.encode(texts=TEXTS, raise_errors=True)
    queries, documents = model.encode_query(TEXTS), model.encode_document([CAT, KOALA])
    for rows, vectors in ((queries, texts), (documents, images)):
        decoded: list[Any] = model.decode(rows)
        assert [dict(row) for row in decoded] == [pytest.approx(vector.to_dict()) for vector in vectors]
    products = [[text.dot(image) for image in images] for text in texts]
    assert model.similarity(queries, documents).tolist() == [pytest.approx(row, abs=1e-5) for row in products]
    assert model.sparsity(documents)["active_dims"] == np.mean([len(vector) for vector in images])
    assert model.get_embedding_dimension() == queries.shape[1] == len(encoder.tokens)


def test_a_folder_has_the_vectors_of_the_index(checkpoint: Path) -> None:
    encoder = load_encoder(str(checkpoint))
    with pytest.raises(ValueError, match="trust_remote_code"):  # the library's rule for classes outside it
        SparseEncoder(str(checkpoint), device="cpu")
    check_vectors(SparseEncoder(str(checkpoint), trust_remote_code=True, device="cpu"), encoder)
    model = SparseEncoder(modules=[StairModule(str(checkpoint))], device="cpu")
    check_vectors(model, encoder)
    assert (model.similarity_fn_name, model.modalities[:2], model.device.type) == ("dot", ["text", "image"], "cpu")


def test_a_saved_model_is_the_same_model(checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "state.pt").write_text("only to resume a training")
    copy = tmp_path / "copy"
    SparseEncoder(str(checkpoint), trust_remote_code=True, device="cpu").save_pretrained(str(copy))
    check_vectors(SparseEncoder(str(copy), trust_remote_code=True, device="cpu"), load_encoder(str(checkpoint)))
    assert not (copy / "state.pt").exists()
    assert detect_family(copy) is detect_family(checkpoint)
    ids = {load_encoder(str(folder)).model_id for folder in (checkpoint, copy)}
    for name in (MODULES_JSON, LIBRARY_CONFIG_JSON):
        (checkpoint / name).unlink()  # as in folders of older releases
    assert {load_encoder(str(checkpoint)).model_id} == ids


def test_the_included_model_needs_no_folder(mini: SparseEncoder, tmp_path: Path) -> None:
    check_vectors(mini, load_encoder("stair-mini"))
    [kitten], [cat, koala] = mini.encode_query(["a kitten"]), mini.encode_document([CAT, KOALA])
    assert mini.similarity(kitten, cat) > 3 * mini.similarity(kitten, koala)
    assert [len(mini.decode(row)) for row in mini.encode([CAT, KOALA], max_active_dims=4)] == [4, 4]
    with expect_error("model-not-saved"):
        mini.save_pretrained(str(tmp_path / "copy"))


def test_a_model_of_the_library_stays_one(tmp_path: Path) -> None:
    tiny_sparse.write_text_model(tmp_path / "splade")
    model, original = SparseEncoder(modules=[StairModule(str(tmp_path / "splade"))]), SparseEncoder(str(tmp_path / "splade"))
    assert torch.allclose(encode(model, ["a cat", "red"]), encode(original, ["a cat", "red"]), atol=1e-4)
    with expect_error("model-not-saved"):
        model.save_pretrained(str(tmp_path / "copy"))


def test_an_image_has_many_forms(mini: SparseEncoder, tmp_path: Path) -> None:
    path = tmp_path / "turned.png"
    exif = Image.Exif()
    exif[ORIENTATION] = ROTATED
    read_image(CAT).save(path, exif=exif)
    data = path.read_bytes()
    forms: list[Any] = [str(path), path, data, f"data:image/png;base64,{base64.b64encode(data).decode()}"]
    forms += [read_image(path), {"image": str(path)}, {"image": read_image(path)}]
    rows = encode(mini, forms)
    assert torch.equal(rows, rows[:1].expand_as(rows))
    upright = ImageOps.exif_transpose(read_image(path))
    assert torch.equal(encode(mini, [upright, np.asarray(upright)]), rows[:2])
    assert not torch.equal(encode(mini, CAT), rows[0])
    file = io.BytesIO()
    read_image(CAT).convert("CMYK").convert("RGB").save(file, "PNG")
    cmyk = encode(mini, [read_image(CAT).convert("CMYK"), file.getvalue()])
    assert torch.equal(cmyk[0], cmyk[1])


def test_a_text_and_an_image_are_added(mini: SparseEncoder) -> None:
    both, text, image = (encode(mini, each) for each in ({"text": "snow", "image": CAT}, "snow", CAT))
    assert torch.equal(both, text + image)
    assert not torch.equal(encode(mini, {"text": CAT}), image)  # a file of this name exists
    assert torch.equal(encode(mini, "snow", prompt="a photo of "), encode(mini, "a photo of snow"))


def test_inputs_that_can_not_be_encoded(mini: SparseEncoder, tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    for sample, code in (
        (tmp_path / "missing.jpg", "file-unreadable"),
        (str(tmp_path / "text.png"), "unknown-image-format"),
        (b"", "file-empty"),
    ):
        with expect_error(code):
            encode(mini, [sample])
    with pytest.raises(ValueError, match="one call per modality"):
        encode(mini, ["a kitten", read_image(CAT)])
    with pytest.raises(TypeError):
        encode(mini, [("a kitten", "a cat")])


def test_models_that_can_not_be_one(tmp_path: Path) -> None:
    with expect_error("unknown-model"):
        StairModule("nonsense")
    with expect_error("model-without-tokens"):
        StairModule(str(tiny_dense.write_clip(tmp_path / "clip")))
    (tmp_path / "lost").mkdir()
    write_library_files(tmp_path / "lost")  # without the checkpoint: it doesn't lead back to the library
    with expect_error("checkpoint-error"):
        SparseEncoder(str(tmp_path / "lost"), trust_remote_code=True)


def test_another_process_loads_the_networks_itself(mini: SparseEncoder) -> None:
    kitten = mini.encode_query("a kitten")
    copy = pickle.loads(pickle.dumps(mini))
    assert torch.equal(copy.encode_query("a kitten").to_dense(), kitten.to_dense())


@pytest.mark.nightly("a download from a hub")
def test_a_repository_of_the_hub(tmp_path: Path) -> None:
    code = """
import json, sys
from sentence_transformers import SparseEncoder
model = SparseEncoder("org/mine", trust_remote_code=True, device="cpu", cache_folder=sys.argv[1])
print(json.dumps(model.decode(model.encode_query("a red dog"))))
"""
    with serve_hub(tmp_path / "hub") as hub:
        folder = tiny_stair.write_checkpoint(hub.root / "org" / "mine")
        environment = {**os.environ, **build_environment(hub.url, tmp_path / "hf")}
        environment.pop("HF_HUB_OFFLINE")
        command = [sys.executable, "-c", code, str(tmp_path / "cache")]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
    [vector] = load_encoder(str(folder)).encode_texts(["a red dog"])
    assert dict(json.loads(done.stdout)) == pytest.approx(vector.to_dict())


def test_the_files_need_no_library(tmp_path: Path) -> None:
    write_library_files(tmp_path)
    [module] = json.loads((tmp_path / MODULES_JSON).read_text())
    assert module["type"] == f"{StairModule.__module__}.{StairModule.__qualname__}"
    hidden = "import sys\nsys.modules['sentence_transformers'] = None\n"
    code = "from stair_es.errors import MissingExtra\ntry:\n    import stair_es.sentence_transformers\n"
    code += "except MissingExtra as error:\n    print(error.remedy)"
    done = subprocess.run([sys.executable, "-c", hidden + code], capture_output=True, text=True, check=True)
    assert "[models]" in done.stdout

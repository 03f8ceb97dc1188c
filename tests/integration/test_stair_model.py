"""A STAIR checkpoint as a user has it: `stair-es encode`, `ingest`, `search` with its folder. On Ray: see `test_ingest_ray`."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest
from support.models import tiny_stair
from support.warm_commands import run_warm

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search.query_encoder import encode_query_image

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images have random words, a text has its own."""
    config = tiny_stair.build_config(text_own_words=True, text_always_masked=True)
    return tiny_stair.write_checkpoint(tmp_path_factory.mktemp("models") / "Tiny Stair", config)


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for photo in sorted(PHOTOS.glob("*.jpg"))[:6]:
        (tmp_path / "photos" / photo.name).write_bytes(photo.read_bytes())
    return tmp_path / "photos"


def run_stair_es(*arguments: str | Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return run_warm([*map(str, arguments)], {**os.environ, **environment})


def test_encode_shows_the_words_of_images_and_texts(model_folder: Path) -> None:
    photo = PHOTOS / "tabby-cat.jpg"
    encoder = registry.load_encoder(ModelSpec(name=str(model_folder)))
    done = run_stair_es("encode", "--model", model_folder, photo, "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    output = json.loads(done.stdout)
    assert output["uri"] == photo.as_uri()
    assert output["tokens"] == pytest.approx(encode_query_image(encoder, photo).to_dict(), abs=1.01e-5)
    done = run_stair_es("encode", "--model", model_folder, "--text", "the Red Dogs", "--json")
    assert set(json.loads(done.stdout)["tokens"]) == {"red", "dog", "##s"}


@pytest.mark.parametrize("backend", ["onnx", "tensorrt"])
def test_encode_rejects_unsupported_inputs(model_folder: Path, backend: str) -> None:
    done = run_stair_es("encode", "--model", model_folder, "--text", "dog", "--backend", backend)
    assert done.returncode == {"onnx": 1, "tensorrt": 2}[backend]
    assert "Traceback" not in done.stderr
    if backend == "onnx":
        assert f"stair-es export '{model_folder}'" in done.stderr


def test_ingested_images_are_found_by_words(
    model_folder: Path, photo_folder: Path, node_url: str, index_name: str, tmp_path: Path
) -> None:
    environment = {"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name}
    letters = ("--dead-letters", tmp_path / "letters.jsonl")
    done = run_stair_es("ingest", photo_folder, "--model", model_folder, "--runner", "local", *letters, "--json", **environment)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    model_id = registry.resolve_model(ModelSpec(name=str(model_folder))).card.model_id
    assert (report["written"], report["failed"], report["model"]) == (6, 0, model_id)

    encoder = registry.load_encoder(ModelSpec(name=str(model_folder)))
    vectors = {photo.as_uri(): encode_query_image(encoder, photo).to_dict() for photo in photo_folder.iterdir()}
    word = max(tiny_stair.WORDS[5:12], key=lambda each: sum(each in vector for vector in vectors.values()))
    query = encoder.encode_texts([word])[0].to_dict()
    assert set(query) == {word}
    done = run_stair_es("search", word, "--model", model_folder, "--json", **environment)
    assert done.returncode == 0, done.stderr
    hits = {hit["uri"]: hit["score"] for hit in json.loads(done.stdout)["hits"]}
    expected = {uri: vector[word] * query[word] for uri, vector in vectors.items() if word in vector}
    assert expected
    assert hits == pytest.approx(expected, rel=0.01)  # rank_features keep 9 bits

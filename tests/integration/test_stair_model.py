"""A STAIR checkpoint as a user has it: `stair-es encode`, `ingest`, `search` with its folder. On Ray: see `test_ray`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from support.commands import CommandRunner
from support.models import tiny_stair

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


def test_encode_shows_the_words_of_images_and_texts(model_folder: Path) -> None:
    photo, cli = PHOTOS / "tabby-cat.jpg", CommandRunner({}, "encode", "--model", str(model_folder))
    encoder = registry.load_encoder(ModelSpec(name=str(model_folder)))
    done = cli.run(photo, "--json")
    assert (done.exit_code, done.stderr) == (0, ""), done.output
    output = json.loads(done.stdout)
    assert output["uri"] == photo.as_uri()
    assert output["tokens"] == pytest.approx(encode_query_image(encoder, photo).to_dict(), abs=1.01e-5)
    assert set(cli.read_json("--text", "the Red Dogs")["tokens"]) == {"red", "dog", "##s"}
    error = cli.read_error("--text", "dog", "--backend", "onnx")
    assert (error.exit_code, f"stair-es export '{model_folder}'" in error.remedy) == (1, True)
    assert cli.run("--text", "dog", "--backend", "tensorrt").exit_code == 2


def test_ingested_images_are_found_by_words(
    model_folder: Path, photo_folder: Path, node_url: str, index_name: str, tmp_path: Path
) -> None:
    cli = CommandRunner({"STAIR_ES_URL": node_url, "STAIR_ES_INDEX": index_name, "STAIR_ES_MODEL": str(model_folder)})
    letters = ("--dead-letters", tmp_path / "letters.jsonl")
    report = cli.read_json("ingest", photo_folder, "--runner", "local", *letters)
    model_id = registry.resolve_model(ModelSpec(name=str(model_folder))).card.model_id
    assert (report["written"], report["failed"], report["model"]) == (6, 0, model_id)

    encoder = registry.load_encoder(ModelSpec(name=str(model_folder)))
    vectors = {photo.as_uri(): encode_query_image(encoder, photo).to_dict() for photo in photo_folder.iterdir()}
    word = max(tiny_stair.WORDS[5:12], key=lambda each: sum(each in vector for vector in vectors.values()))
    query = encoder.encode_texts([word])[0].to_dict()
    assert set(query) == {word}
    hits = {hit["uri"]: hit["score"] for hit in cli.read_json("search", word)["hits"]}
    expected = {uri: vector[word] * query[word] for uri, vector in vectors.items() if word in vector}
    assert expected
    assert hits == pytest.approx(expected, rel=0.01)  # rank_features keep 9 bits

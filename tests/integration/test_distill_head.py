"""A checkpoint of `stair-es distill --method head` in the commands: encode, evaluate, an index of it."""

from __future__ import annotations

from pathlib import Path

import pytest
from opensearchpy import OpenSearch
from support.commands import CommandRunner
from support.models import tiny_dense, tiny_training

from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.search import ImageSearch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model in `clip`, 18 images with captions in `set`, and the checkpoint in `made`."""
    folder = tmp_path_factory.mktemp("head")
    tiny_training.write_set(folder / "set")
    tiny_dense.write_siglip(folder / "siglip")
    arguments = ("--captions", folder / "set" / "train.jsonl", "--out", folder / "made", "--steps", "20")
    make_command(folder).read_json("distill", folder / "siglip", "--method", "head", *arguments)
    return folder


def make_command(folder: Path) -> CommandRunner:
    return CommandRunner({"STAIR_ES_HOME": str(folder / "home"), "STAIR_ES_MODEL": None, "STAIR_ES_INDEX": None})


def test_evaluate_prints_the_dense_model_beside_it(folder: Path) -> None:
    report = make_command(folder).read_json(
        *("evaluate", "retrieval", folder / "set" / "val.jsonl", "--exact"),
        *("--model", folder / "made", "--compare", folder / "siglip"),
    )
    rows = {(row["method"], row["model"].rpartition("-")[0], row["direction"]): row for row in report["rows"] if row["model"]}
    for direction in ("text -> image", "image -> text"):
        assert rows["dense kNN", "siglip-head", direction]["exact"] == rows["dense kNN", "siglip", direction]["exact"]
        assert rows["STAIR", "siglip-head", direction]["tokens"]["unit"] == "tokens"


def test_an_index_of_it(folder: Path, client: OpenSearch, node_url: str, index_name: str) -> None:
    command = make_command(folder)
    arguments = ("--url", node_url, "--index", index_name, "--model", folder / "made", "--runner", "local")
    report = command.read_json("ingest", folder / "set", *arguments)
    assert (report["written"], report["failed"]) == (tiny_training.PAIRS, 0)
    encoder = registry.load_encoder(ModelSpec(name=str(folder / "made")))
    (query,) = encoder.encode_texts(["red dog"])
    stored = {hit["_source"]["uri"]: hit["_source"]["tokens"] for hit in client.search(index=index_name, size=20)["hits"]["hits"]}
    scores = [sum(weight * row.get(token, 0.0) for token, weight in query.to_dict().items()) for row in stored.values()]
    with ImageSearch(index_name, url=node_url, model=ModelSpec(name=str(folder / "made"))) as search:
        hits = search.search("red dog", k=20).hits
    assert [hit.score for hit in hits] == pytest.approx(sorted((score for score in scores if score > 0), reverse=True), rel=0.01)

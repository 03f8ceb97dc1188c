"""Every evaluation with models of other kinds beside the default: dense ones, and sparse ones with vocabularies of their own."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from support.models import tiny_checkpoints, tiny_dense

from stair_es.eval.datasets.captions import CaptionDataset, read_captions
from stair_es.eval.datasets.image_folder import LabeledDataset, read_image_folder
from stair_es.eval.interpretability import build_caption_task, evaluate_interpretability
from stair_es.eval.linear_probe import evaluate_linear_probe
from stair_es.eval.models import EvaluatedModel, load_models
from stair_es.eval.retrieval.run import EvalOptions, evaluate_retrieval
from stair_es.eval.sparsity import build_sparsity_dataset, evaluate_sparsity
from stair_es.eval.zero_shot import evaluate_zero_shot
from stair_es.model.base import ModelSpec

PHOTOS = Path(__file__).parents[2] / "examples" / "photos"


@pytest.fixture(scope="module")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> list[EvaluatedModel]:
    root = tmp_path_factory.mktemp("models")
    vdr = tiny_checkpoints.write_checkpoint(
        root / "vdr", tiny_checkpoints.build_vdr_config(), tiny_checkpoints.draw_vdr_weights()
    )
    folders = [vdr, tiny_dense.write_clip(root / "clip"), tiny_dense.write_siglip(root / "siglip")]
    return load_models([ModelSpec(name="stair-mini", text_tower="table"), *(ModelSpec(name=str(folder)) for folder in folders)])


@pytest.fixture(scope="module")
def caption_dataset() -> CaptionDataset:
    return read_captions(PHOTOS / "captions.jsonl", limit=4)


@pytest.fixture(scope="module")
def labeled_dataset(tmp_path_factory: pytest.TempPathFactory) -> LabeledDataset:
    root = tmp_path_factory.mktemp("classes")
    for name, photos in {"dog": ["two-spaniels"], "cat": ["tabby-cat", "kitten-with-yarn"]}.items():
        (root / name).mkdir()
        for photo in photos:
            shutil.copy(PHOTOS / f"{photo}.jpg", root / name)
    return read_image_folder(root)


def ignore_progress(what: str, done: int, total: int) -> None:
    """Show no progress."""


def list_kinds(rows: list[dict[str, str]], tiny_models: list[EvaluatedModel]) -> list[tuple[str, str]]:
    """Return vectors and kind of model of each row."""
    names = {model.label: Path(model.spec.name).name for model in tiny_models}
    return [(row["vectors"], names[row["model"]]) for row in rows]


TOKENS = [("tokens", "stair-mini"), ("tokens", "vdr")]
DENSE = [("dense", "clip"), ("dense", "siglip")]


def test_retrieval(tiny_models: list[EvaluatedModel], caption_dataset: CaptionDataset) -> None:
    report = evaluate_retrieval(caption_dataset, tiny_models, None, EvalOptions(), progress=ignore_progress)
    assert report.problems == ()
    measured = {(row.method, row.model) for row in report.rows if row.exact is not None}
    labels = [model.label for model in tiny_models]
    assert measured == {
        *(("STAIR", label) for label in labels[:2]),
        *(("bag of words", label) for label in labels[:2]),
        *(("dense kNN", label) for label in labels[2:]),
    }
    json.dumps(report.to_dict(), allow_nan=False)


def test_classes_and_words(
    tiny_models: list[EvaluatedModel], caption_dataset: CaptionDataset, labeled_dataset: LabeledDataset
) -> None:
    report = evaluate_zero_shot(labeled_dataset, tiny_models, ["a {}"], progress=ignore_progress)
    assert list_kinds(report.to_dict()["rows"], tiny_models) == [*TOKENS, *DENSE]
    report = evaluate_linear_probe(labeled_dataset, labeled_dataset, tiny_models, progress=ignore_progress)
    assert list_kinds(report.to_dict()["rows"], tiny_models) == [*TOKENS, *DENSE]
    report = evaluate_interpretability(build_caption_task(caption_dataset), tiny_models[1:], progress=ignore_progress)
    rows = report.to_dict()["rows"]
    assert list_kinds(rows, tiny_models) == [TOKENS[1], *DENSE]
    assert len({row["vocabulary"] for row in rows}) == 1  # dense models take the one of the model with words
    report = evaluate_sparsity(build_sparsity_dataset(caption_dataset), tiny_models, progress=ignore_progress)
    assert [row["dense_dimensions"] for row in report.to_dict()["rows"]] == [None, None, 6, 8]

"""`stair-es distill` on tiny dense models: the checkpoint, its vectors, moved and tampered folders, an index of it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opensearchpy import OpenSearch
from PIL import Image
from safetensors.numpy import load_file, save_file
from support.commands import CommandRunner
from support.errors import expect_error
from support.models import tiny_dense, tiny_stair, tiny_training

from stair_es.cluster.client.connection import Connection
from stair_es.distill.dense_model import DenseModel, open_dense_model, sample_images
from stair_es.distill.labels import DistillReport, LabelOptions, distill_labels
from stair_es.errors import ModelError, UsageError
from stair_es.eval.models import load_models
from stair_es.ingest.options import IngestOptions
from stair_es.ingest.pipeline import run_ingest
from stair_es.model import registry
from stair_es.model.base import Encoder, ModelSpec
from stair_es.model.labels.distilled import MATCH_THRESHOLDS, DistilledEncoder
from stair_es.model.labels.word_list import PROMPTS, WordKind
from stair_es.search import ImageSearch, QueryInputs
from stair_es.sources.registry import open_source
from stair_es.types import Floats, Pixels

ENVIRONMENT = {"STAIR_ES_MODEL": None, "STAIR_ES_INDEX": None, "STAIR_ES_URL": "http://127.0.0.1:9"}
KINDS: dict[str, WordKind] = {
    "dog": "thing",
    "red": "attribute",
    "cat": "thing",
    "bus": "thing",
    "red dog": "thing",
    "a cat": "thing",
}
WORDS = tuple(KINDS)
MAKERS: dict[str, Callable[[Path], Path]] = {
    "clip": tiny_dense.write_clip,
    "siglip": tiny_dense.write_siglip,
    "align": tiny_dense.write_align,
    "blip": tiny_dense.write_blip,
}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Nine pictures of noise, in different colors."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(1)
    for number in range(9):
        pixels = rng.integers(0, 256, (20, 20, 3)) * rng.random(3)
        Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{number}.png")
    return folder


@pytest.fixture(autouse=True)
def set_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Use a data folder of the test's own: the models and the state of this machine must not matter."""
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))


@pytest.fixture
def command() -> CommandRunner:
    return CommandRunner(ENVIRONMENT)


def distill_words(dense: Path, photos: Path, out: Path, **options: Any) -> DistillReport:  # noqa: ANN401
    """Build a checkpoint with the six words."""
    model = open_dense_model(ModelSpec(name=str(dense)))
    locators = [item.locator for item in sample_images([open_source(str(photos))], 100, print)]
    return distill_labels(model, locators, KINDS, out, LabelOptions(**options), lambda part, done, total: None)


def load_distilled(folder: Path) -> DistilledEncoder:
    """Load the encoder of a checkpoint."""
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    assert isinstance(encoder, DistilledEncoder)
    return encoder


def load_dense(folder: Path) -> Encoder:
    """Load the encoder of a dense model."""
    dense = open_dense_model(ModelSpec(name=str(folder))).evaluated.dense
    assert dense is not None
    return dense


def draw_pixels(encoder: DistilledEncoder, count: int = 3) -> Pixels:
    """Return noise in the size of the encoder."""
    side = encoder.image_spec.size_px
    return np.random.default_rng(5).integers(0, 256, (count, side, side, 3), np.uint8)


def normalize_rows(rows: Floats) -> Floats:
    """Return the rows with length 1."""
    scaled: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return scaled


@pytest.mark.parametrize("form", MAKERS)
def test_vectors_are_what_the_formulas_say(form: str, photos: Path, tmp_path: Path) -> None:
    dense_folder = MAKERS[form](tmp_path / form)
    report = distill_words(dense_folder, photos, tmp_path / "words", text_tokens=3)
    encoder, dense = load_distilled(tmp_path / "words"), load_dense(dense_folder)
    assert (encoder.tokens, encoder.tokenize_word("Dogs"), encoder.tokenize_word("cats-bus")) == (WORDS, ("dog",), ("cat", "bus"))
    assert (report.model_id, report.images, report.words, report.problems) == (encoder.model_id, 9, 6, ())
    assert encoder.match_thresholds == MATCH_THRESHOLDS
    words_VD = np.stack(
        [
            dense.encode_texts_dense([prompt.replace("{}", word) for prompt in PROMPTS[kind]]).mean(axis=0)
            for word, kind in KINDS.items()
        ]
    )
    words_VD = normalize_rows(words_VD - words_VD.mean(axis=0))
    texts = ["a red dog", "cat"]
    vectors, texts_BD = encoder.encode_texts_both(texts)
    assert texts_BD == pytest.approx(dense.encode_texts_dense(texts), abs=1e-6)
    for vector, words in zip(vectors, ({"red dog", "red", "dog"}, {"cat"}), strict=True):
        assert words <= set(vector.tokens)
        assert len(vector) <= 3
        assert np.linalg.norm(vector.weights) == pytest.approx(1, abs=1e-5)
    items = sample_images([open_source(str(photos))], 100, print)
    samples_ND, _ = open_dense_model(ModelSpec(name=str(dense_folder))).encode_images(
        [item.locator for item in items], lambda part, done, total: None
    )
    mean_D, pixels = samples_ND.mean(axis=0), draw_pixels(encoder)
    similarities_NV = normalize_rows(samples_ND - mean_D) @ words_VD.T
    variances_V = similarities_NV.var(axis=0)
    spreads_V = np.sqrt((9 * variances_V + 100 * variances_V.mean()) / 109)
    image_vectors, images_BD = encoder.encode_images_both(pixels)
    assert images_BD == pytest.approx(dense.encode_images_dense(pixels), abs=1e-6)
    excess_BV = (normalize_rows(images_BD - mean_D) @ words_VD.T - similarities_NV.mean(axis=0)) / spreads_V - 0.85
    weights_BV = np.maximum(excess_BV, 0) ** 1.5
    if np.linalg.norm(samples_ND - mean_D, axis=1).min() > 1e-4:  # the tiny ALIGN's differ by rounding only
        for image_vector, weights_V in zip(image_vectors, weights_BV, strict=True):
            found = [image_vector.to_dict().get(word, 0.0) for word in WORDS]
            assert found == pytest.approx(weights_V / max(np.linalg.norm(weights_V), 1e-9), abs=1e-3)
    assert (image_vectors, vectors) == (encoder.encode_images(pixels), encoder.encode_texts(texts))


def test_texts_without_a_word_have_no_vector(photos: Path, tmp_path: Path) -> None:
    distill_words(tiny_dense.write_clip(tmp_path / "clip"), photos, tmp_path / "words")
    vectors = load_distilled(tmp_path / "words").encode_texts(["", " ?! ", "bus"])
    assert [len(vector) > 0 for vector in vectors] == [False, False, True]


def test_a_stair_checkpoint_with_a_dense_head(photos: Path, tmp_path: Path) -> None:
    config = tiny_stair.build_config(heads=("dense",), dense_dim=8)
    dense_folder = tiny_stair.write_checkpoint(tmp_path / "stair", config)
    distill_words(dense_folder, photos, tmp_path / "words")
    encoder = load_distilled(tmp_path / "words")
    assert encoder.image_spec == registry.resolve_model(ModelSpec(name=str(dense_folder))).card.image_spec
    assert any(map(len, encoder.encode_images(draw_pixels(encoder))))
    with expect_error("no-dense-vectors", UsageError):
        open_dense_model(ModelSpec(name=str(tiny_stair.write_checkpoint(tmp_path / "tokens"))))


def test_a_moved_folder_needs_nothing_else(photos: Path, tmp_path: Path) -> None:
    dense_folder = tiny_dense.write_siglip(tmp_path / "siglip")
    report = distill_words(dense_folder, photos, tmp_path / "here")
    before = load_distilled(tmp_path / "here").encode_texts(["a red dog"])
    shutil.rmtree(dense_folder)
    moved = shutil.move(tmp_path / "here", tmp_path / "elsewhere")
    assert load_distilled(Path(moved)).model_id == report.model_id
    assert load_distilled(Path(moved)).encode_texts(["a red dog"]) == before
    assert str(tmp_path) not in "".join(path.read_text() for path in Path(moved).glob("*.json")) + (
        (Path(moved) / "README.md").read_text()
    )


def test_pickled_weights_become_safetensors(photos: Path, tmp_path: Path) -> None:
    dense_folder = tiny_dense.write_clip(tmp_path / "clip")
    distill_words(dense_folder, photos, tmp_path / "safe")
    torch.save(
        {name: torch.from_numpy(t) for name, t in load_file(dense_folder / "model.safetensors").items()},
        dense_folder / "pytorch_model.bin",
    )
    (dense_folder / "model.safetensors").unlink()
    distill_words(dense_folder, photos, tmp_path / "pickled")
    assert not list((tmp_path / "pickled").rglob("*.bin"))
    first, second = load_distilled(tmp_path / "safe"), load_distilled(tmp_path / "pickled")
    pixels = draw_pixels(first)
    assert first.encode_images_dense(pixels) == pytest.approx(second.encode_images_dense(pixels), abs=1e-6)


def change_dense_weights(folder: Path, dense: str = "dense", change: float = 0.01) -> None:
    path = folder / dense / "model.safetensors"
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith("weight"))
    save_file({**tensors, name: tensors[name] + np.float32(change)}, path, metadata={"format": "pt"})


def change_config(folder: Path, **changes: Any) -> None:  # noqa: ANN401
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_changed_file_is_another_model(photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "words"
    distill_words(tiny_dense.write_clip(tmp_path / "clip"), photos, folder)
    ids = [registry.resolve_model(ModelSpec(name=str(folder))).card.model_id]
    for change in (change_dense_weights, lambda folder: change_config(folder, image_tokens=5), replace_word):
        change(folder)
        ids.append(registry.resolve_model(ModelSpec(name=str(folder))).card.model_id)
    assert len(set(ids)) == len(ids)


def replace_word(folder: Path) -> None:
    path = folder / "words.json"
    path.write_text(path.read_text().replace('"bus"', '"car"'))


def add_word(folder: Path) -> None:
    path = folder / "words.json"
    path.write_text(path.read_text().replace('"bus"', '"bus", "car"', 1))


def truncate_weights(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-8])


def use_other_dense(folder: Path) -> None:
    shutil.rmtree(folder / "dense")
    tiny_dense.write_align(folder / "dense")


def use_tokens_only(folder: Path) -> None:
    shutil.rmtree(folder / "dense")
    tiny_stair.write_checkpoint(folder / "dense")


def mark_dense_as_pickle(folder: Path) -> None:
    (folder / "dense" / "model.safetensors").rename(folder / "dense" / "pytorch_model.bin")


def change_tensor(folder: Path, name: str, value: float) -> None:
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file({**tensors, name: np.full_like(tensors[name], value)}, path)


@pytest.mark.parametrize(
    ("spoil", "code", "fact"),
    [
        (add_word, "checkpoint-error", "7 words"),
        (truncate_weights, "checkpoint-error", "model.safetensors"),
        (lambda folder: change_tensor(folder, "text_mean_D", np.nan), "checkpoint-error", "model.safetensors"),
        (use_other_dense, "checkpoint-error", "8 dimensions"),
        (use_tokens_only, "no-dense-vectors", "dense"),
        (mark_dense_as_pickle, "checkpoint-error", "safetensors"),
        (lambda folder: shutil.rmtree(folder / "dense"), "checkpoint-incomplete", "dense/config.json"),
        (lambda folder: (folder / "words.json").unlink(), "checkpoint-incomplete", "words.json"),
        (lambda folder: change_config(folder, version=1), "checkpoint-error", "version 1"),
        (lambda folder: change_config(folder, text_tokens=500), "checkpoint-error", "text_tokens"),
        (lambda folder: change_config(folder, prompts=["{}"]), "checkpoint-error", "prompts"),
        (lambda folder: change_tensor(folder, "spreads_V", 0.0), "checkpoint-error", "model.safetensors"),
        (lambda folder: change_tensor(folder, "floors_V", np.inf), "checkpoint-error", "model.safetensors"),
        (lambda folder: change_config(folder, image_tokens=None), "checkpoint-error", "image_tokens"),
        (lambda folder: change_config(folder, secret=1), "checkpoint-error", "secret"),
    ],
)
def test_a_broken_checkpoint_is_reported(
    spoil: Callable[[Path], Any], code: str, fact: str, photos: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "words"
    distill_words(tiny_dense.write_clip(tmp_path / "clip"), photos, folder)
    spoil(folder)
    with expect_error(code, ModelError) as caught:
        load_distilled(folder).encode_texts(["dog"])
    assert fact in caught.value.message
    assert caught.value.remedy


def test_other_fits_are_refused(photos: Path, tmp_path: Path) -> None:
    distill_words(tiny_dense.write_clip(tmp_path / "clip"), photos, tmp_path / "words")
    with expect_error("fit-not-supported"):
        registry.resolve_model(ModelSpec(name=str(tmp_path / "words"), fit="pad"))


def ingest_and_check_scores(client: OpenSearch, url: str, index: str, checkpoint: Path, images: Path, text: str) -> int:
    """Ingest images with a checkpoint, compare a search by the model that the index names with dot products, and count them."""
    spec = ModelSpec(name=str(checkpoint))
    options = IngestOptions(alias=index, model=spec, runner="local", dead_letters=checkpoint.parent / "failed.jsonl")
    report = run_ingest([open_source(str(images))], Connection(url=url), options, progress=lambda _: None)
    assert report.failed == 0
    (query,) = registry.load_encoder(spec).encode_texts([text])
    stored = [hit["_source"]["tokens"] for hit in client.search(index=index, size=20)["hits"]["hits"]]
    assert len(stored) == report.written
    scores = [sum(weight * tokens.get(token, 0.0) for token, weight in query) for tokens in stored]
    with ImageSearch(index, url=url) as search:
        hits = search.search(QueryInputs(query_string=text, literal=True), k=20).hits  # colors are words here
    assert [hit.score for hit in hits] == pytest.approx(sorted(filter(None, scores), reverse=True), rel=0.01)
    return report.written


def check_comparison(report: dict[str, Any], name: str, dense_name: str) -> None:
    rows = {(row["method"], row["model"].rpartition("-")[0], row["direction"]): row for row in report["rows"] if row["model"]}
    for direction in ("text -> image", "image -> text"):
        assert rows["dense kNN", name, direction]["exact"] == rows["dense kNN", dense_name, direction]["exact"]
        assert rows["STAIR", name, direction]["tokens"]["unit"] == "tokens"


def test_an_index_of_labels(photos: Path, tmp_path: Path, client: OpenSearch, node_url: str, index_name: str) -> None:
    distill_words(tiny_dense.write_clip(tmp_path / "clip"), photos, tmp_path / "words")
    assert ingest_and_check_scores(client, node_url, index_name, tmp_path / "words", photos, "a red dog") == 9


def test_evaluate_compares_labels_with_their_dense_model(photos: Path, tmp_path: Path, command: CommandRunner) -> None:
    dense_folder = tiny_dense.write_clip(tmp_path / "clip")
    distill_words(dense_folder, photos, tmp_path / "words")
    captions = photos / "captions.jsonl"
    texts = ["a red dog", "a cat", "red bus", "dog", "cat", "bus", "red", "a dog . cat", "! bus"]
    captions.write_text("".join(json.dumps({"image": f"{n}.png", "caption": text}) + "\n" for n, text in enumerate(texts)))
    models = ("--model", tmp_path / "words", "--compare", dense_folder)
    check_comparison(command.read_json("evaluate", "retrieval", captions, "--exact", *models), "clip-words", "clip")
    [model] = load_models([ModelSpec(name=str(tmp_path / "words"))])
    assert model.has_tokens
    assert isinstance(model.dense, DistilledEncoder)


@pytest.fixture(scope="module")
def head_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dense model in `siglip`, 18 images with captions in `set`, and the checkpoint of `--method head` in `made`."""
    folder = tmp_path_factory.mktemp("head")
    tiny_training.write_set(folder / "set")
    tiny_dense.write_siglip(folder / "siglip")
    arguments = ("--captions", folder / "set" / "train.jsonl", "--out", folder / "made", "--steps", "20")
    runner = CommandRunner({**ENVIRONMENT, "STAIR_ES_HOME": str(folder / "home")})
    runner.read_json("distill", folder / "siglip", "--method", "head", *arguments)
    return folder


def test_an_index_of_a_head(head_folder: Path, client: OpenSearch, node_url: str, index_name: str) -> None:
    written = ingest_and_check_scores(client, node_url, index_name, head_folder / "made", head_folder / "set", "red dog")
    assert written == client.count(index=index_name)["count"] == tiny_training.PAIRS


def test_evaluate_compares_a_head_with_its_dense_model(head_folder: Path, command: CommandRunner) -> None:
    models = ("--model", head_folder / "made", "--compare", head_folder / "siglip")
    report = command.read_json("evaluate", "retrieval", head_folder / "set" / "val.jsonl", "--exact", *models)
    check_comparison(report, "siglip-head", "siglip")


class TestCommand:
    """The command, in this process."""

    def test_report(self, command: CommandRunner, photos: Path, tmp_path: Path) -> None:
        (photos / "broken.png").write_bytes(b"no image")
        dense_folder = tiny_dense.write_clip(tmp_path / "clip")
        (tmp_path / "words.txt").write_text("Dog\nred bus\n\ncat\ndog\n")
        (photos / "captions.jsonl").write_text('{"image": "1.png", "caption": "Two birds above the sea, a bird"}\n')
        arguments = ("--images", photos, "--words", tmp_path / "words.txt", "--captions", photos / "captions.jsonl")
        options = ("--image-tokens", "5", "--text-tokens", "128", "--only-given-words", "--prompt", "a {}")
        report = command.read_json("distill", dense_folder, *arguments, "--out", tmp_path / "out" / "clip", *options)
        assert (report["words"], report["images"], len(report["problems"])) == (5, 9, 1)
        assert report["dense_model"] == registry.resolve_model(ModelSpec(name=str(dense_folder))).card.model_id
        encoder = load_distilled(tmp_path / "out" / "clip")
        assert json.loads((tmp_path / "out" / "clip" / "config.json").read_text())["prompts"]["scene"] == ["a {}"]
        mean_D = load_dense(dense_folder).encode_texts_dense(["Two birds above the sea, a bird"])[0]
        assert load_file(tmp_path / "out" / "clip" / "model.safetensors")["text_mean_D"] == pytest.approx(mean_D, abs=1e-6)
        assert set(encoder.tokens) == {"bird", "sea", "dog", "red bus", "cat"}
        assert "clauses" in (tmp_path / "out" / "clip" / "README.md").read_text()
        assert "--model" in command.run("distill", dense_folder, *arguments, "--out", tmp_path / "second").output
        assert len(load_distilled(tmp_path / "second").tokens) > 3000

    @pytest.mark.parametrize(
        ("arguments", "code", "fact"),
        [
            (("stair-mini", "--images", "photos"), "not-a-checkpoint-folder", "stair-mini"),
            (("nowhere", "--images", "photos"), "unknown-model", "'nowhere'"),
            (("clip", "--images", "empty"), "no-images", "empty"),
            (("clip", "--images", "broken"), "dataset-error", "1 images"),
            (("clip", "--images", "photos/1.png"), "dataset-error", "1 of 1"),
            (("clip", "--images", "gone"), "no-such-file", "gone"),
            (("clip", "--images", "photos", "--words", "blank.txt"), "dataset-error", "blank.txt"),
            (("clip", "--images", "photos", "--words", "odd.txt"), "dataset-error", "line 2: '!!'"),
            (("clip", "--images", "photos", "--words", "photos/1.png"), "dataset-error", "UTF-8"),
            (("clip", "--images", "photos", "--captions", "odd.txt"), "dataset-error", "odd.txt"),
            (("clip", "--images", "photos", "--out", "photos"), "folder-not-empty", "photos"),
            (("tokens", "--images", "photos"), "no-dense-vectors", "tokens"),
            (("clip", "--images", "photos", "--prompt", "a photo"), "config-error", "{}"),
            (("clip", "--images", "photos", "--only-given-words"), "no-words", "--only-given-words"),
            (("clip", "--images", "same"), "dataset-error", "1 of 3"),
            (("nan", "--images", "photos"), "weight-not-finite", "finite"),
            (("clip", "--method", "head", "--captions", "odd.txt", "--words", "odd.txt"), "option-conflict", "--captions"),
            (("clip", "--images", "photos", "--words", "kind.txt"), "dataset-error", "line 1: 'animal'"),
        ],
    )
    def test_errors(
        self,
        arguments: tuple[str, ...],
        code: str,
        fact: str,
        command: CommandRunner,
        photos: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        tiny_dense.write_clip(tmp_path / "clip")
        tiny_stair.write_checkpoint(tmp_path / "tokens")
        (tmp_path / "empty").mkdir()
        (tmp_path / "broken").mkdir()
        (tmp_path / "broken" / "1.png").write_bytes(b"no image")
        (tmp_path / "blank.txt").write_text("\n \n")
        (tmp_path / "odd.txt").write_text("dog\n!!\n")
        (tmp_path / "same").mkdir()
        for number in range(3):
            shutil.copy(photos / "1.png", tmp_path / "same" / f"{number}.png")
        change_dense_weights(tiny_dense.write_clip(tmp_path / "nan").parent, "nan", np.nan)
        (tmp_path / "kind.txt").write_text("dog\tanimal\n")
        error = command.read_error("distill", *arguments, *(() if "--out" in arguments else ("--out", "out")))
        assert (error.code, fact in error.message) == (code, True)
        assert error.remedy
        assert not (tmp_path / "out").exists()


def test_images_are_sampled_from_all_over_the_sources(photos: Path) -> None:
    items = sample_images([open_source(str(photos)), open_source(str(photos / "0.png"))], 4, print)
    assert items == sample_images([open_source(str(photos)), open_source(str(photos / "0.png"))], 4, print)
    assert len({item.uri for item in items}) == 4


def test_a_dense_model_reports_unreadable_images(photos: Path, tmp_path: Path) -> None:
    (photos / "broken.png").write_bytes(b"no image")
    model: DenseModel = open_dense_model(ModelSpec(name=str(tiny_dense.write_blip(tmp_path / "blip"))))
    locators = [item.locator for item in sample_images([open_source(str(photos))], 100, print)]
    images_ND, problems = model.encode_images(locators, lambda part, done, total: None)
    assert (images_ND.shape, len(problems)) == ((9, 6), 1)

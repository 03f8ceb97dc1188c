"""Meaning and cost of tokens, against plain counts over whole vectors."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from support.errors import expect_error

from stair_es import SparseVector
from stair_es.eval.datasets.captions import read_captions, read_word_lists
from stair_es.eval.datasets.image_folder import read_image_folder
from stair_es.eval.interpretability import (
    build_caption_task,
    build_class_task,
    compute_hit_rates,
    evaluate_interpretability,
    rank_best_token,
    sample_negatives,
    spread_weights,
    strip_wordpiece_prefix,
)
from stair_es.eval.metrics import bootstrap_interval, compute_ranks
from stair_es.eval.models import EvaluatedModel, build_evaluated_model, choose_label_space, load_models, load_reference_tokens
from stair_es.eval.readability import evaluate_readability, is_whole_word, judge_tokens
from stair_es.eval.retrieval.run import EvalOptions, evaluate_retrieval
from stair_es.eval.sparsity import (
    build_sparsity_dataset,
    compute_flops,
    compute_gini,
    compute_weighted_flops,
    evaluate_sparsity,
    measure_postings,
    measure_sizes,
    read_sparsity_folder,
)
from stair_es.eval.zero_shot import compute_accuracy
from stair_es.model.base import Encoder, ModelCard, ModelSpec
from stair_es.types import Floats, ImageSpec, Pixels

WORDS = ("red", "green", "blue", "dark", "##ish")
COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200)}


class ColorEncoder(Encoder):
    """An encoder of the brightest channel and of `dark`, which is heavier than `blue`."""

    card = ModelCard(name="colors", model_id="colors@1", image_spec=ImageSpec(size_px=8), description="")
    tokens = WORDS

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        colors = [WORDS[int(pixels_HWC[4, 4].argmax())] for pixels_HWC in pixels_BHWC]
        return [SparseVector.from_mapping({color: 1.0, "dark": 2.0 if color == "blue" else 0.5}) for color in colors]

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return [SparseVector.from_pairs((word, 1.0) for word in WORDS if word in text.lower()) for text in texts]

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        stem = word.lower().removesuffix("ish")
        pieces = (stem, "##ish") if stem != word.lower() else (stem,)
        return tuple(piece for piece in pieces if piece in WORDS)


class DenseColorEncoder(ColorEncoder):
    card = replace(ColorEncoder.card, model_id="dense@1", has_tokens=False)
    has_dense = True

    def encode_images_dense(self, pixels_BHWC: Pixels) -> Floats:
        return np.stack([np.eye(3, dtype=np.float32)[int(pixels_HWC[4, 4].argmax())] for pixels_HWC in pixels_BHWC])

    def encode_texts_dense(self, texts: Sequence[str]) -> Floats:
        rows_BD = [[float(word in text) for word in WORDS[:3]] for text in texts]
        return np.array([row_D if any(row_D) else [0.6, 0.8, 0.0] for row_D in rows_BD], dtype=np.float32)


class HybridEncoder(DenseColorEncoder):
    card = replace(ColorEncoder.card, model_id="both@1")


class OpaqueEncoder(Encoder):
    """An encoder that doesn't list its tokens."""

    card = ModelCard(name="opaque", model_id="opaque@1", image_spec=ImageSpec(size_px=8), description="")

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        return ColorEncoder().encode_images(pixels_BHWC)

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        return ColorEncoder().encode_texts(texts)


def build_models(*encoders: ColorEncoder | OpaqueEncoder) -> list[EvaluatedModel]:
    return [build_evaluated_model(encoder, ModelSpec(name=encoder.model_id)) for encoder in encoders]


def ignore_progress(what: str, done: int, total: int) -> None:
    """Show nothing."""


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Three classes of two images, and captions of four of them."""
    for name, color in COLORS.items():
        (tmp_path / "set" / name).mkdir(parents=True)
        for number in range(2):
            Image.new("RGB", (8, 8), color).save(tmp_path / "set" / name / f"{number}.png")
    rows = [
        {"image": "red/0.png", "captions": ["the Reddish RED one", "a red square"]},
        {"image": "green/0.png", "caption": "green, of course"},
        {"image": "blue/0.png", "caption": "the blue one"},
        {"image": "blue/1.png", "caption": "mauve"},
    ]
    (tmp_path / "set" / "captions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path / "set"


def test_ranks_cover_the_whole_vocabulary() -> None:
    rng = np.random.default_rng(4)
    words = [f"w{index}" for index in range(30)]
    for _ in range(200):
        scores_V = np.where(rng.random(30) < 0.6, 0.0, rng.integers(1, 5, 30)).astype(np.float64)
        own_indices = rng.choice(30, rng.integers(1, 5), replace=False).tolist()
        vector = SparseVector.from_pairs((word, float(score)) for word, score in zip(words, scores_V, strict=True) if score)
        [weights_V] = spread_weights([vector], words)
        assert rank_best_token(weights_V, own_indices) == compute_ranks(scores_V, own_indices)[0]
    assert rank_best_token(weights_V, []) is None


def test_single_words_give_top_k_accuracy() -> None:
    rng = np.random.default_rng(5)
    scores_NV = rng.normal(size=(80, 50))
    labels = rng.integers(0, 50, 80).tolist()
    hit_rates = compute_hit_rates(scores_NV, list(map(str, range(50))), [(str(label), "elsewhere") for label in labels])
    accuracy = compute_accuracy(scores_NV, labels)
    assert (hit_rates.at[1], hit_rates.at[5], hit_rates.at[100]) == (accuracy.top1, accuracy.top5, 1.0)
    assert hit_rates.chance is not None
    assert hit_rates.chance[20] == pytest.approx(20 / 50, abs=0.1)


def test_chance_uses_images_with_other_words() -> None:
    words = [("a",)] * 5 + [("b",)] * 5
    for image, others in enumerate(sample_negatives(words)):
        assert all(words[other] != words[image] for other in others)
    assert compute_hit_rates(np.eye(2), ["a", "b"], [("a",)] * 2).chance is None


def test_words_of_classes(image_folder: Path) -> None:
    report = evaluate_interpretability(
        build_class_task(read_image_folder(image_folder)),
        build_models(ColorEncoder(), DenseColorEncoder(), OpaqueEncoder()),
        progress=ignore_progress,
    ).to_dict()
    hit_rates = {(row["vectors"], row["model"]): (row["vocabulary"], row["at"][1], row["at"][5]) for row in report["rows"]}
    assert hit_rates == {
        ("tokens", "colors@1"): (5, pytest.approx(2 / 3), 1.0),  # for blue, `dark` is heavier
        ("dense", "dense@1"): (5, 1.0, 1.0),  # in the vocabulary of the first
        ("tokens", "opaque@1"): (4, pytest.approx(2 / 3), 1.0),
    }
    assert report["rows"][0]["chance"][1] == 0.0
    assert strip_wordpiece_prefix("##ish") + strip_wordpiece_prefix("dog") + strip_wordpiece_prefix("##") == "ishdog##"


def test_the_vocabulary_is_encoded_on_request(image_folder: Path) -> None:
    task = build_class_task(read_image_folder(image_folder))
    for dense, kinds in ((False, ["tokens"]), (True, ["tokens", "dense"])):
        report = evaluate_interpretability(task, build_models(HybridEncoder()), dense=dense, progress=ignore_progress).to_dict()
        assert [row["vectors"] for row in report["rows"]] == kinds


def test_words_of_captions(image_folder: Path) -> None:
    captions = read_captions(image_folder / "captions.jsonl")
    report = evaluate_interpretability(build_caption_task(captions), build_models(ColorEncoder()), progress=ignore_progress)
    row = report.to_dict()["rows"][0]
    assert (row["images"], row["unknown"], row["at"][1], row["at"][5]) == (4, 1, 0.5, 0.75)
    assert "colors@1: 1 " in report.to_markdown()
    with expect_error("config-error") as caught:
        evaluate_interpretability(
            build_caption_task(captions), build_models(ColorEncoder()), prompt="a photo", progress=ignore_progress
        )
    assert "'a photo'" in caught.value.message


@pytest.mark.parametrize(
    ("token", "accepted", "is_accepted"),
    [
        ("sky", "sky", True),
        ("Sky", "SKY", True),
        ("clouds", "cloud", True),
        ("berry", "berries", True),
        ("bus", "bu", False),
        ("sky", "skyline", False),
        ("ĠTree", "tree", True),
        ("▁tree", "tree", True),
        ("tree</w>", "tree", True),
        ("sports_car", "car", False),
        ("Red Fox", "fox red", True),
        ("t-shirt", "t-shirt", True),
        ("\uff53\uff4b\uff59", "sky", True),
        ("\u72ac", "\u72ac", True),
    ],
)
def test_a_token_is_compared_as_a_word(token: str, accepted: str, *, is_accepted: bool) -> None:
    assert judge_tokens([token], accepted.split()) == (is_accepted,)
    assert is_whole_word(token)


@pytest.mark.parametrize(
    "token", ["##sky", "[id 5]", "[CLS]", "<s>", "<|endoftext|>", "s", "!", "42", "##", "", " ", "Ġ", "\ud800", "\0\0"]
)
def test_what_is_no_word_is_never_accepted(token: str) -> None:
    assert judge_tokens([token], [token, token.strip("#")]) == (False,)
    assert not is_whole_word(token)


def test_intervals_of_means() -> None:
    rng = np.random.default_rng(7)
    values_N = rng.random(150)
    low, high = bootstrap_interval(values_N)
    assert low < values_N.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * values_N.std() / 150**0.5, rel=0.1)
    at_once = values_N[np.random.default_rng(0).integers(150, size=(10_000, 150))].mean(axis=1)  # more than are drawn at once
    assert (low, high) == pytest.approx(tuple(np.quantile(at_once, (0.025, 0.975))))
    assert bootstrap_interval(np.ones(3)) == (1.0, 1.0)


def test_accepted_words(image_folder: Path) -> None:
    accepted = {"red/0.png": ["Red"], "green/0.png": ["green", "dark"], "blue/0.png": ["blue"], "blue/1.png": ["sea"]}
    path = image_folder / "lists.jsonl"
    path.write_text("".join(json.dumps({"image": name, "accepted": words}) + "\n" for name, words in accepted.items()))
    (image_folder / "blue" / "1.png").write_bytes(b"broken")
    report = evaluate_readability(
        read_word_lists(path),
        build_models(ColorEncoder(), DenseColorEncoder(), OpaqueEncoder()),
        progress=ignore_progress,
    )
    values = report.to_dict()
    assert [problem.split(":")[0] for problem in values["problems"]] == ["blue/1.png"]
    rows = {row["model"]: row for row in values["rows"]}
    shares = {model: [round(row["accepted"][most]["share"], 3) for most in (5, 1, 10)] for model, row in rows.items()}
    # of two tokens each, one, two and one are accepted; the heaviest one except for blue, whose heaviest is `dark`
    assert shares["colors@1"] == shares["opaque@1"] == [round(4 / 15, 3), round(2 / 3, 3), round(4 / 30, 3)]
    assert rows["colors@1"]["accepted_of_written"] == pytest.approx(4 / 6)
    assert (rows["colors@1"]["images"], rows["colors@1"]["fewer_than_five"], rows["colors@1"]["without_tokens"]) == (3, 3, 0)
    assert rows["colors@1"]["readings"][2] == {"image": "blue/0.png", "tokens": ["dark", "blue"], "accepted": ["blue"]}
    assert rows["dense@1"]["readings"][0]["tokens"][0] == "red"
    assert (len(rows["dense@1"]["readings"][0]["tokens"]), rows["dense@1"]["pieces"]) == (5, pytest.approx(1 / 5))  # `##ish`
    assert "| dense@1 " in report.to_markdown()
    with expect_error("config-error"):
        evaluate_readability(read_word_lists(path), build_models(ColorEncoder()), prompt="photo", progress=ignore_progress)


def test_the_label_space_of_only_dense_models_is_that_of_bert() -> None:
    space = choose_label_space(build_models(DenseColorEncoder()))
    assert space.tokens == load_reference_tokens()
    assert len(space.tokens) > 29_000
    assert "dog" in space.tokens
    assert not {"the", "[CLS]", "[unused5]", "!"} & set(space.tokens)
    assert space.split_word("spaniel") == ("span", "##iel")
    with expect_error("model-given-twice"):
        load_models([ModelSpec(name="stair-mini"), ModelSpec(name="stair-mini")])


def draw_vectors(rng: np.random.Generator, count: int) -> list[SparseVector]:
    rows = [rng.choice(40, rng.integers(0, 12), replace=False) for _ in range(count)]
    return [SparseVector.from_pairs((f"w{word}", float(rng.random() + 0.01)) for word in row) for row in rows]


def test_flops_are_the_multiplications_counted_one_by_one() -> None:
    rng = np.random.default_rng(6)
    items, queries = draw_vectors(rng, 50), draw_vectors(rng, 30)
    multiplications = sum(len({*item.tokens} & {*query.tokens}) for item, query in itertools.product(items, queries))
    assert compute_flops(items, queries) == pytest.approx(multiplications / (50 * 30), rel=1e-12)
    columns = [f"w{word}" for word in range(40)]
    means = [[np.mean([vector.to_dict().get(word, 0.0) for vector in side]) for word in columns] for side in (items, queries)]
    expected = math.fsum(item_mean * query_mean for item_mean, query_mean in zip(*means, strict=True))
    assert compute_weighted_flops(items, queries) == pytest.approx(expected, rel=1e-12)


def test_sizes_and_postings() -> None:
    vectors = [SparseVector.from_pairs((word, 1.0) for word in words) for words in ("abc", "ab", "a", "")]
    size = measure_sizes(vectors)
    assert (size.items, size.mean, size.p50, size.max, size.without_tokens) == (4, 1.5, 1.5, 3, 1)
    assert size.p95 == pytest.approx(2.85)
    stats = measure_postings(vectors, "abcdefgh")
    assert (stats.tokens, stats.vocabulary, stats.unused, stats.longest, stats.longest_token) == (3, 8, 5, 3, "a")
    assert stats.top_share == pytest.approx(0.5)
    stats = measure_postings(vectors, None)
    assert (stats.vocabulary, stats.unused) == (None, None)
    assert stats.gini == pytest.approx(compute_gini([3, 2, 1]))
    assert measure_postings([SparseVector((), ())], None).gini == 0.0


@pytest.mark.parametrize("seed", range(4))
def test_gini_is_half_the_relative_mean_difference(seed: int) -> None:
    lengths_N = np.random.default_rng(seed).integers(0, 30, 25)
    expected = np.abs(lengths_N[:, None] - lengths_N[None, :]).mean() / (2 * lengths_N.mean())
    assert compute_gini(lengths_N.tolist()) == pytest.approx(float(expected))
    assert compute_gini([7, 7, 7]) == 0.0


def test_sparsity_of_captions_and_of_a_folder(image_folder: Path) -> None:
    items = build_sparsity_dataset(read_captions(image_folder / "captions.jsonl"))
    report = evaluate_sparsity(items, build_models(ColorEncoder(), DenseColorEncoder()), progress=ignore_progress)
    sparse_row, dense_row = report.to_dict()["rows"]
    assert sparse_row["items"]["images"]["mean"] == 2.0
    assert sparse_row["items"]["texts"]["without_tokens"] == 1
    assert sparse_row["postings"]["images"]["unused"] == 1
    # of five texts two have `red`, one `green`, one `blue`; of four images one is red, one green, two are blue
    assert sparse_row["flops"]["texts -> images"]["multiplications"] == pytest.approx((2 * 1 + 1 * 1 + 1 * 2) / (5 * 4))
    assert (dense_row["dense_dimensions"], dense_row["items"]) == (3, {})
    assert "dense@1" in report.to_markdown()
    report = evaluate_sparsity(
        read_sparsity_folder(image_folder, limit=3), build_models(ColorEncoder()), progress=ignore_progress
    )
    [row] = report.to_dict()["rows"]
    assert list(row["items"]) == ["images"]
    assert row["items"]["images"]["items"] == 3
    with expect_error("no-images"):
        read_sparsity_folder(image_folder / "captions.jsonl")


def test_the_dimensions_of_a_dense_model_need_no_image(image_folder: Path) -> None:
    (image_folder / "red" / "0.png").write_bytes(b"broken")
    report = evaluate_sparsity(
        read_sparsity_folder(image_folder), build_models(DenseColorEncoder()), progress=ignore_progress
    ).to_dict()
    assert report["rows"][0]["dense_dimensions"] == 3


def test_retrieval_of_several_models_without_a_cluster(image_folder: Path) -> None:
    captions = read_captions(image_folder / "captions.jsonl")
    models = build_models(ColorEncoder(), DenseColorEncoder())
    report = evaluate_retrieval(captions, models, None, EvalOptions(), progress=ignore_progress)
    methods = [(row.method, row.model) for row in report.rows if row.direction == "text -> image"]
    assert methods == [
        ("STAIR", "colors@1"),
        ("bag of words", "colors@1"),
        ("BM25 on captions", ""),
        ("dense kNN", "colors@1"),
        ("dense kNN", "dense@1"),
    ]
    by_model = {(row.method, row.model, row.direction): row for row in report.rows}
    stair = by_model["STAIR", "colors@1", "text -> image"]
    assert stair.exact is not None
    assert (stair.exact.queries, stair.exact.hit[1], stair.engine) == (5, 0.6, None)  # two blue ones, and one not known
    dense = by_model["dense kNN", "dense@1", "image -> text"]
    assert dense.exact is not None
    assert by_model["dense kNN", "colors@1", "image -> text"].exact is None
    markdown = report.to_markdown()
    assert "dense kNN of colors@1" in markdown
    assert not [line for line in markdown.splitlines() if line.startswith("|") and "engine" in line]
    assert report.to_dict()["cluster"] is None
    assert report.to_dict()["compared"] == ["dense@1"]

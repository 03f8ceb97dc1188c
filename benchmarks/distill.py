"""Compare checkpoints of `stair-es distill` with their dense model, on small real sets.

    python benchmarks/small_sets/build.py --out SETS
    python benchmarks/distill.py --sets SETS --out RUNS --seeds 1

The dense model is the arm `dense` of small_recipes.py. It is distilled in three ways: by label scoring without training; into
heads trained on the pairs that the dense model was trained on; and into heads trained on those images alone, with the dense model
as teacher. Vectors are computed once and kept, so an interrupted run can be resumed.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from harness.bootstrap import compute_interval
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from small.arms import ARMS
from small.score import SPLITS, WORD_CUTS, Split, SplitScores, score_own_words
from small_recipes import DENSE, TUNED, VALIDATION, Runs, shrink_sets, train_arm
from torch import Tensor

from stair_es.config.settings import resolve_settings
from stair_es.distill.dense_model import DenseModel, open_dense_model
from stair_es.distill.head import HeadOptions, distill_captions, distill_images
from stair_es.distill.labels import LabelOptions, collect_words, distill_labels
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.labels.distilled import DistilledEncoder
from stair_es.model.stair import checkpoint
from stair_es.model.stair.modeling import TextBatch
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.sources.base import Locator
from stair_es.sources.registry import open_source
from stair_es.training.callbacks import NO_CALLBACKS
from stair_es.training.data import dataset
from stair_es.training.data.dataset import PairFile, ProblemCounter
from stair_es.training.data.dense_features import DenseFeatures, load_dense_features
from stair_es.training.data.feature_cache import PixelReader
from stair_es.training.data.transforms import NO_AUGMENTATION
from stair_es.training.losses import normalize_rows
from stair_es.types import Floats, PartProgressCallback

METHODS = {
    "labels": "no training: scores of the words that come with stair-es, with 1,000 training images as samples",
    "head": "heads trained on the pairs that the dense model was trained on",
    "head-images": "heads trained on the images alone, captioned with the same words",
}
TOKENS = 64
_SAMPLE_IMAGES = 1000


@dataclass(frozen=True, kw_only=True)
class DenseVectors:
    """The vectors of a split."""

    images_ND: Tensor
    texts_MD: Tensor


def main() -> None:
    """Train or build, score, print."""
    parser = build_parser(__doc__)
    parser.add_argument("--sets", type=Path, required=True, help="output of small_sets/build.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models; existing models aren't built again")
    parser.add_argument("--methods", nargs="+", choices=sorted(METHODS), default=list(METHODS))
    parser.add_argument("--splits", nargs="+", default=list(SPLITS), help=f"{' '.join(VALIDATION)} to choose values")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--steps", type=int, default=600, help="updates of the dense model")
    parser.add_argument("--pairs", type=int, help="maximum size of each set, to check that the benchmark works")
    args = parser.parse_args()
    sets, out = args.sets.absolute(), args.out.absolute()
    sets = shrink_sets(sets, out / f"sets-{args.pairs}", args.pairs) if args.pairs else sets
    splits = {name: Split(sets / f"{name}.jsonl") for name in args.splits}
    runs: Runs = {name: [] for name in (DENSE, *args.methods)}
    for seed in range(args.seeds):
        folder = out / f"{DENSE}-{args.steps}-{seed}"
        if not (folder / "config.json").is_file():
            train_arm(ARMS[DENSE], sets, folder, json.loads(TUNED.read_text())[DENSE], args.steps, seed)
        dense = load_dense_features(str(folder), resolve_settings(None))
        vectors = {name: encode_split(dense, split) for name, split in splits.items()}
        runs[DENSE].append({name: score_dense(split, vectors[name]) for name, split in splits.items()})
        for method in args.methods:
            made = make_checkpoint(method, folder, sets, out / f"{method}-{args.steps}-{seed}", seed)
            runs[method].append({name: score_tokens(made, split, vectors[name]) for name, split in splits.items()})
    publish_result(build_distill_result(runs, args.splits, args.seeds), args.json)


def make_checkpoint(method: str, dense: Path, sets: Path, out: Path, seed: int) -> Path:
    """Make a checkpoint from the dense model, unless it exists."""
    if (out / "config.json").is_file():
        return out
    start, settings = time.perf_counter(), resolve_settings(None)
    train, options = sets / "train.jsonl", HeadOptions(image_tokens=TOKENS, text_tokens=TOKENS, seed=seed, device="cpu")
    if method == "head":
        distill_captions(str(dense), [train], out, options, NO_CALLBACKS, settings)
    else:
        pairs = dataset.read_pairs([PairFile(path=train)])
        if method == "head-images":
            images = link_images(pairs, out.with_name("training-images"))
            distill_images(str(dense), [open_source(str(images))], collect_words(), out, options, NO_CALLBACKS, settings)
        else:
            chosen = np.random.default_rng(seed).permutation(len(pairs))[:_SAMPLE_IMAGES]
            locators = [pairs[int(number)].locator for number in chosen]
            limits = LabelOptions(image_tokens=TOKENS, text_tokens=TOKENS)
            distill_labels(open_kept_model(dense, pairs), locators, collect_words(), out, limits, NO_CALLBACKS.on_progress)
    print(f"{out.name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return out


@dataclass(frozen=True, kw_only=True)
class KeptModel(DenseModel):
    """A dense model whose vectors of texts and of training images are kept on disk."""

    features: DenseFeatures
    pairs: dataset.TrainingSet

    def encode_images(self, locators: Sequence[Locator], progress: PartProgressCallback) -> tuple[Floats, dict[int, str]]:
        """Return the vectors of training images."""
        rows = {pair.locator: row for row, pair in enumerate(self.pairs)}
        vectors_ND = encode_pairs(self.features, self.pairs)[[rows[locator] for locator in locators]]
        return vectors_ND.numpy(), {}

    def encode_texts(self, texts: Sequence[str], progress: PartProgressCallback) -> Floats:
        """Encode texts, unless they are already encoded."""
        return self.features.encode_texts(texts, progress)


def open_kept_model(folder: Path, pairs: dataset.TrainingSet) -> KeptModel:
    """Open the dense model in a folder."""
    opened = open_dense_model(ModelSpec(name=str(folder)))
    features = load_dense_features(str(folder), resolve_settings(None))
    parts = {name: getattr(opened, name) for name in ("folder", "card", "evaluated")}
    return KeptModel(**parts, features=features, pairs=pairs)


def link_images(pairs: dataset.TrainingSet, folder: Path) -> Path:
    """Fill a folder with copies of the training images, with neutral names."""
    if not folder.is_dir():
        folder.mkdir(parents=True)
        for number, pair in enumerate(pairs):
            data = dataset.read_image_bytes(pair.locator)
            (folder / f"{number:05}{Path(pair.name).suffix}").write_bytes(data)
    return folder


def encode_split(dense: DenseFeatures, split: Split) -> DenseVectors:
    """Return the dense vectors of a split's images and texts."""
    images_ND = encode_pairs(dense, dataset.read_pairs([PairFile(path=split.path)]))
    if len(images_ND) != len(split.rows):
        raise SystemExit(f"{split.path}: images are missing: build the sets again")
    texts = torch.from_numpy(dense.encode_texts(list(split.texts), NO_CALLBACKS.on_progress))
    return DenseVectors(images_ND=images_ND, texts_MD=texts)


def encode_pairs(dense: DenseFeatures, pairs: dataset.TrainingSet) -> Tensor:
    """Return the dense vectors of images [N, D]."""
    spec, problems = dense.card.image_spec, ProblemCounter()
    reader = PixelReader(pairs=pairs, spec=spec, augment=NO_AUGMENTATION, seed=0, problems=problems)
    kept = dense.cache_images(reader, 1, NO_CALLBACKS.on_progress, 2)
    states, bad = kept.load_batch(range(len(pairs)), [0] * len(pairs))
    if bad:
        raise SystemExit(f"{len(bad)} images can't be read: build the sets again")
    return states[:, 0]


def score_dense(split: Split, vectors: DenseVectors) -> SplitScores:
    """Return the scores of the dense model."""
    t2i, i2t = split.find_hits(normalize_rows(vectors.images_ND), normalize_rows(vectors.texts_MD))
    return SplitScores(t2i=t2i, i2t=i2t, words=(0.0, 0.0), own={})


def score_tokens(folder: Path, split: Split, vectors: DenseVectors) -> SplitScores:
    """Return the scores of a checkpoint, from the dense vectors below it; its own words are shares of all images."""
    images_NF, texts_MF = encode_tokens(folder, split, vectors)
    t2i, i2t = split.find_hits(images_NF, texts_MF)
    counts = [float((rows > 0).sum(dim=1).float().mean()) for rows in (images_NF, texts_MF)]
    vocabulary = WholeWordVocabulary.from_file(folder / WHOLE_WORDS_FILE)
    own = [{match.word_index for match in vocabulary.match_words(row["caption"])} for row in split.rows]
    return SplitScores(t2i=t2i, i2t=i2t, words=(counts[0], counts[1]), own=score_own_words(own, images_NF))


def encode_tokens(folder: Path, split: Split, vectors: DenseVectors) -> tuple[Tensor, Tensor]:
    """Return the token weights of images [N, F] and texts [M, F], as they are compared."""
    texts = list(split.texts)
    encoder = registry.load_encoder(ModelSpec(name=str(folder)))
    if isinstance(encoder, DistilledEncoder):
        row_of_token = {token: row for row, token in enumerate(encoder.tokens)}
        sides = (encoder.weigh_images(vectors.images_ND.numpy()), encoder.weigh_texts(texts, vectors.texts_MD.numpy()))
        dense_rows = []
        for side in sides:
            rows = torch.zeros(len(side), len(row_of_token))
            for row, vector in enumerate(side):
                rows[row, [row_of_token[token] for token in vector.tokens]] = torch.tensor(vector.weights)
            dense_rows.append(rows)
        return dense_rows[0], dense_rows[1]
    model = checkpoint.load_stair_model(folder)
    batch = TextBatch.from_tokenized(model.tokens.encode(texts))
    with torch.inference_mode():
        images = model.encode_images(vectors.images_ND[:, None]).weights_BF
        words = model.encode_texts(replace(batch, states_BLD=vectors.texts_MD[:, None])).weights_BF
    return normalize_rows(images), normalize_rows(words)


def build_distill_result(runs: Runs, splits: Sequence[str], seeds: int) -> Result:
    """Return a table for each split, with the differences to the dense model."""
    tables = tuple(
        ReportTable(heading=split, head=_COLUMNS, rows=tuple(_format_distill_row(name, split, runs) for name in runs))
        for split in splits
    )
    ratios = [_build_mean_ratio(name, runs, splits) for name in runs if name != DENSE]
    return Result(
        about=f"{seeds} seeds (mean); {TOKENS} tokens an image and {TOKENS} a text; differences in points with their 95 % "
        "intervals (paired bootstrap over queries)",
        tables=tables,
        ratios=tuple(ratios),
        remarks=tuple(f"**{name}**: {METHODS[name]}" for name in runs if name != DENSE),
        figures={name: [{split: asdict(s) for split, s in seed.items()} for seed in each] for name, each in runs.items()},
    )


_COLUMNS = (
    "model",
    "text -> image R@1",
    "minus dense",
    "image -> text R@1",
    "minus dense",
    "tokens image / text",
    "caption word in top 1 / 5 / 20, %",
)


def _format_distill_row(name: str, split: str, runs: Runs) -> tuple[str, ...]:
    seeds = [seed[split] for seed in runs[name]]
    cells = []
    for way in ("t2i", "i2t"):
        ours, theirs = ([getattr(seed[split], way)[1] for seed in runs[arm]] for arm in (name, DENSE))
        apart, low, high = compute_interval(ours, theirs)
        cells += [f"{100 * np.mean(ours):.1f}", "" if name == DENSE else f"{apart:+.1f} [{low:+.1f}, {high:+.1f}]"]
    if name == DENSE:
        return name, *cells, "", ""
    words = " / ".join(f"{np.mean([seed.words[side] for seed in seeds]):.0f}" for side in (0, 1))
    own = " / ".join(f"{100 * np.mean([seed.own[cut] for seed in seeds]):.0f}" for cut in WORD_CUTS)
    return name, *cells, words, own


def _build_mean_ratio(name: str, runs: Runs, splits: Sequence[str]) -> Ratio:
    def compute_mean(arm: str) -> float:
        return float(
            np.mean([getattr(seed[split], way)[1].mean() for seed in runs[arm] for split in splits for way in ("t2i", "i2t")])
        )

    value = compute_mean(name) / compute_mean(DENSE) if compute_mean(DENSE) else 0.0
    return Ratio(what=f"R@1 of {name}, mean of all sets and both ways", against="its dense model", value=value)


if __name__ == "__main__":
    main()

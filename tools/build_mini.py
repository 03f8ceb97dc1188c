"""Train the heads of stair-mini and write what is shipped of it (stair_es/model/data/stair-mini).

    python benchmarks/small_sets/build.py --out SETS
    python tools/build_mini.py --sets SETS --work RUN        # broken off, it goes on where it was

Needs the extras [train]. About 20 minutes on 2 cores, most of it for the networks below the heads, whose answers are kept in
STAIR_ES_HOME. Pictures of Tux Paint (GPL-2, and by the authors of the test photographs) aren't learned from. The same sets on the
same machine give the same bytes.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from stair_es.model import stair_checkpoint, stair_mini_files, starter_data
from stair_es.model.stair_config import CARD_FILE, read_config
from stair_es.model.stair_mini_files import Blend, Mini
from stair_es.model.starter import meaningful
from stair_es.training.config import TrainConfig, read_train_config
from stair_es.training.ears import Ears, Moment
from stair_es.training.logs import CSV_FILE
from stair_es.training.run import Trained, train

CONFIG = Path(__file__).with_name("mini.toml")
LOG = Path(__file__).with_name("mini-log.csv")
LEFT_OUT = "tuxpaint"
VALIDATION = ("val_style", "val_concepts")
BLEND = Blend(image_power=1.5, image_starter=0.5, image_starter_sure=1.0, image_words=64, text_starter=1.0, text_words=48)
"""Chosen on the validation sets and the 40 photographs of examples/photos."""
_THREADS = 2
"""Of PyTorch: another number may round otherwise."""


def configured(sets: Path, work: Path) -> TrainConfig:
    """The training, on what of the sets may be learned from.

    Raises:
        OSError: The sets aren't there.
    """
    lines = (sets / "train.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
    kept = [line for line in lines if not json.loads(line)["source"].startswith(LEFT_OUT)]
    work.mkdir(parents=True, exist_ok=True)
    (work / "train.jsonl").write_text("".join(kept), encoding="utf-8")
    changes = {
        "data.train": [{"captions": str(work / "train.jsonl"), "images": str(sets)}],
        "data.validation": [{"captions": str(sets / f"{name}.jsonl")} for name in VALIDATION],
    }
    return read_train_config(CONFIG, changes)


def shipped(folder: Path) -> Mini:
    """The heads of a trained checkpoint, without the features that no text searches for (stop words, punctuation)."""
    config = read_config(folder)
    ids_F, arrays = stair_checkpoint.feature_ids(folder), stair_checkpoint.read_arrays(folder)
    words, stop = starter_data.load_vocabulary().words, starter_data.load_stop_words()
    kept_F = np.array([meaningful(words[token], stop) for token in ids_F])
    of_words = {name for name, array in arrays.items() if name.rsplit(".", 1)[-1] in ("embedding_FT", "bias_F", "word_F")}
    rows = {name: array[kept_F] if name in of_words else array for name, array in arrays.items() if name != "log_scale"}
    return Mini(config=config, blend=BLEND, feature_ids_F=ids_F[kept_F], arrays=rows)


def card(sets: Path, trained: Trained, mini: Mini) -> str:
    """The model card, with the credit that each source asks for."""
    told = json.loads((sets / "sets.json").read_text(encoding="utf-8"))
    sources: dict[str, int] = told["files"]["train"]["sources"]
    learned = ", ".join(f"{count:,} of {name}" for name, count in sources.items() if not name.startswith(LEFT_OUT))
    credits = "\n".join(
        f"| {each['name']} {each['version']} | {each['credit']} | {each['licence']} |"
        for each in told["packages"]
        if not each["name"].startswith((LEFT_OUT, "openmoji", "emoji-datasource-twitter"))
    )
    return f"""---
library_name: stair-es
pipeline_tag: image-feature-extraction
tags: [image-search, sparse, rank_features, STAIR]
---

# stair-mini

Heads of a STAIR model by the grounded recipe of stair-es, over EfficientNet-Lite2 and all-MiniLM-L6-v2 (neither is in here),
for {len(mini.feature_ids_F):,} words of BERT's vocabulary; their words are added to those of the starter. Matrices are int8 with
a scale for each row. `docs/stair-mini.md` of stair-es says how good it is and what it can't see.

- Trained by `tools/build_mini.py` with `tools/mini.toml` on {trained.pairs:,} pictures ({learned}); {trained.steps} steps
- Recall@1 of the heads alone on the validation sets, both directions: {100 * trained.best:.1f} % at step {trained.best_step}
- Not learned from: Tux Paint's stamps (GPL-2), Twemoji (test), OpenMoji (validation: values were chosen on it)

## Data and credits

The pictures themselves are not in here. What was learned from:

| package | by | licence |
|---|---|---|
{credits}

EmojiOne 2.x: artwork by EmojiOne, <https://www.emojione.com>, CC-BY-4.0 <https://creativecommons.org/licenses/by/4.0/>; scaled,
put on white and turned into numbers here. The heads are under stair-es's licence, Apache-2.0, as far as they are ours to license.
"""


def build(sets: Path, work: Path, out: Path, log: Path) -> None:
    """Train and write."""
    torch.set_num_threads(_THREADS)
    ears = Ears(say=_say, tell=_tell, progress=lambda what, done, total: None)
    trained = train(configured(sets, work), work / "heads", ears, device="cpu")
    mini = shipped(trained.folder)
    out.mkdir(parents=True, exist_ok=True)
    for name, data in {**stair_mini_files.files(mini), CARD_FILE: card(sets, trained, mini).encode()}.items():
        (out / name).write_bytes(data)
        _say(f"{out / name}: {len(data):,} bytes")
    log.write_bytes((trained.folder / CSV_FILE).read_bytes())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _tell(moment: Moment) -> None:
    if not moment.step % 100:
        _say(f"{moment.step}/{moment.steps} " + " ".join(f"{name} {value:.4g}" for name, value in moment.values.items()))


def main(arguments: Sequence[str] | None = None) -> None:
    """Parse the arguments, build."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=Path, required=True, help="what benchmarks/small_sets/build.py made")
    parser.add_argument("--work", type=Path, required=True, help="folder of the training")
    parser.add_argument("--out", type=Path, default=stair_mini_files.FOLDER)
    parser.add_argument("--log", type=Path, default=LOG, help="where the training's log is kept")
    given = parser.parse_args(arguments)
    build(given.sets.absolute(), given.work.absolute(), given.out, given.log)


if __name__ == "__main__":
    main()

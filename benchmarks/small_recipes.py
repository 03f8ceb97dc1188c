"""Compare training recipes on a small real set: dense, bag of words, STAIR's stages, single-stage, grounded.

    python benchmarks/small_sets/build.py --out SETS
    python benchmarks/small_recipes.py --sets SETS --out RUNS              # with the values in small/tuned.json
    python benchmarks/small_recipes.py --sets SETS --out RUNS --tune       # chooses the values again on the validation sets
    python benchmarks/small_recipes.py --sets SETS --out RUNS --arms dense grounded --seeds 1 --steps 100 --pairs 600

All arms have the same towers (frozen EfficientNet-Lite2 and all-MiniLM-L6-v2 under trained heads), data and number of updates.
The values in which they differ were chosen on validation sets, whose styles and concepts are not in the test sets. An interrupted
run can be resumed. 27 runs take 40 minutes on 2 free cores, and choosing the values takes as long again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from harness.bootstrap import compute_interval
from harness.program import build_parser, publish_result
from harness.result import Ratio, ReportTable, Result
from small.arms import ARMS, Arm
from small.score import SPLITS, Split, SplitScores

from stair_es.model.stair import checkpoint
from stair_es.training.config.train_config import TrainConfig, read_train_config
from stair_es.training.train import TrainingResult, train_model

BASE = Path(__file__).parent / "small" / "base.toml"
TUNED = Path(__file__).parent / "small" / "tuned.json"
VALIDATION = ("val_style", "val_concepts")
TUNING_STEPS = 300
DENSE, PHOTOS = "dense", "test_photos"
COMPARED_WITH = (DENSE, "grounded")

Runs = dict[str, list[dict[str, SplitScores]]]
"""Arm -> scores by split, for each seed."""


def build_config(arm: Arm, sets: Path, chosen: Mapping[str, Any], steps: int, seed: int) -> TrainConfig:
    """Return the training configuration of an arm."""
    changes = {
        "data.train": [{"captions": str(sets / "train.jsonl")}],
        "data.validation": [{"captions": str(sets / f"{name}.jsonl")} for name in VALIDATION],
        "name": arm.name,
        "seed": seed,
        **arm.changes,
        **chosen,
        "recipe.steps": steps,
        "validation.every": steps,
    }
    return read_train_config(BASE, changes)


def shrink_sets(sets: Path, to: Path, pairs: int) -> Path:
    """Write the sets with at most `pairs` lines each, evenly spread."""
    to.mkdir(parents=True, exist_ok=True)
    if not (to / "images").exists():
        (to / "images").symlink_to(sets / "images")
    for file in sorted(sets.glob("*.jsonl")):
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        step = max(1, len(lines) / pairs)
        kept = [lines[int(place * step)] for place in range(min(pairs, len(lines)))]
        (to / file.name).write_text("".join(kept), encoding="utf-8")
    return to


def train_arm(arm: Arm, sets: Path, out: Path, chosen: Mapping[str, Any], steps: int, seed: int) -> TrainingResult:
    """Train an arm, unless it is already trained."""
    start = time.perf_counter()
    done = train_model(build_config(arm, sets, chosen, steps, seed), out, device="cpu")
    print(f"{out.name}: validation {100 * done.best:.1f}, {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
    return done


def tune(arms: Sequence[Arm], sets: Path, out: Path, seeds: int) -> tuple[dict[str, dict[str, Any]], ReportTable]:
    """Return for each arm the point of its grid with the best recall on the validation sets, and the recall of all points."""
    chosen, rows = {}, []
    for arm in arms:
        points = arm.list_variants()
        found = []
        for place, point in enumerate(points):
            folders = [out / "tuning" / f"{arm.name}-{place}-{seed}" for seed in range(seeds)]
            results = [train_arm(arm, sets, folder, point, TUNING_STEPS, seed) for seed, folder in enumerate(folders)]
            found.append([100 * result.best for result in results])
        means = [float(np.mean(values)) for values in found]
        chosen[arm.name] = points[int(np.argmax(means))]
        for point, values, mean in zip(points, found, means, strict=True):
            mark = "chosen" if point is chosen[arm.name] else ""
            rows.append((arm.name, _format_values(point), f"{mean:.1f}", f"{min(values):.1f}-{max(values):.1f}", mark))
        print(f"{arm.name}: {chosen[arm.name]}", file=sys.stderr, flush=True)
    heading = f"R@1 on the validation sets, mean of both directions, {TUNING_STEPS} updates, {seeds} seeds"
    return chosen, ReportTable(heading=heading, head=("arm", "values", "mean", "spread", ""), rows=tuple(rows))


def measure(arms: Sequence[Arm], sets: Path, out: Path, chosen: Mapping[str, Mapping[str, Any]], steps: int, seeds: int) -> Runs:
    """Train each arm with each seed, and score it on each test set."""
    splits = {name: Split(sets / f"{name}.jsonl") for name in SPLITS}
    runs: Runs = {arm.name: [] for arm in arms}
    for seed in range(seeds):
        for arm in arms:
            folder = out / f"{arm.name}-{steps}-{seed}"
            train_arm(arm, sets, folder, chosen.get(arm.name, {}), steps, seed)
            model = checkpoint.load_stair_model(folder)
            runs[arm.name].append({name: split.score(model) for name, split in splits.items()})
    return runs


def build_result(runs: Runs, arms: Sequence[Arm], steps: int, chosen: Mapping[str, Mapping[str, Any]]) -> Result:
    """Return a table for each split, and the differences to two of the arms."""
    tables = [
        ReportTable(
            heading=split,
            head=_COLUMNS,
            rows=tuple(_format_row(arm.name, [seed[split] for seed in runs[arm.name]]) for arm in arms),
        )
        for split in SPLITS
    ]
    for base in COMPARED_WITH:
        if base in runs and len(runs) > 1:
            heading = f"R@1 minus {base}, paired bootstrap over queries (95 %)"
            rows = tuple(_format_differences(name, base, runs) for name in runs if name != base)
            tables.append(ReportTable(heading=heading, head=("arm", *_WAYS), rows=rows))
    ratios = [_build_ratio(name, runs) for name in runs if name != DENSE] if DENSE in runs else []
    return Result(
        about=f"{steps} updates of 256 pairs, {len(next(iter(runs.values())))} seeds: mean and spread over seeds",
        tables=tuple(tables),
        ratios=tuple(ratios),
        remarks=tuple(f"**{arm.name}**: {arm.about}; {_format_values(chosen.get(arm.name, {}))}" for arm in arms),
        figures={name: [{split: asdict(s) for split, s in seed.items()} for seed in seeds] for name, seeds in runs.items()},
    )


_COLUMNS = (
    "arm",
    "text -> image R@1 / 5 / 10",
    "image -> text R@1 / 5 / 10",
    "spread of R@1",
    "tokens image / text",
    "caption word in top 1 / 5 / 20",
)
_WAYS = tuple(f"{split.removeprefix('test_')} {way}" for split in SPLITS for way in ("t2i", "i2t"))


def _format_row(name: str, seeds: Sequence[SplitScores]) -> tuple[str, ...]:
    def format_mean(way: str) -> str:
        return " / ".join(f"{100 * np.mean([getattr(seed, way)[cut].mean() for seed in seeds]):.1f}" for cut in (1, 5, 10))

    def format_spread(way: str) -> str:
        found = [100 * float(getattr(seed, way)[1].mean()) for seed in seeds]
        return f"{min(found):.1f}-{max(found):.1f}"

    words = " / ".join(f"{np.mean([seed.words[side] for seed in seeds]):.0f}" for side in (0, 1)) if seeds[0].own else ""
    own = " / ".join(f"{100 * np.mean([seed.own[cut] for seed in seeds]):.0f}" for cut in (1, 5, 20)) if seeds[0].own else ""
    return name, format_mean("t2i"), format_mean("i2t"), f"{format_spread('t2i')}, {format_spread('i2t')}", words, own


def _format_differences(name: str, base: str, runs: Runs) -> tuple[str, ...]:
    cells = []
    for split in SPLITS:
        for way in ("t2i", "i2t"):
            ours, theirs = ([getattr(seed[split], way)[1] for seed in runs[arm]] for arm in (name, base))
            apart, low, high = compute_interval(ours, theirs)
            cells.append(f"{apart:+.1f} [{low:+.1f}, {high:+.1f}]")
    return name, *cells


def _build_ratio(name: str, runs: Runs) -> Ratio:
    ours, theirs = (np.mean([seed[PHOTOS].t2i[1].mean() for seed in runs[arm]]) for arm in (name, DENSE))
    value = float(ours / theirs) if theirs else 0.0
    return Ratio(what=f"R@1 of {name}, text -> image, photographs", against="dense, same towers and data", value=value)


def _format_values(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {_format_value(value)}" for name, value in values.items()) or "as in base.toml"


def _format_value(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float) else json.dumps(value)


def main() -> None:
    """Train, score, print."""
    parser = build_parser(__doc__)
    parser.add_argument("--sets", type=Path, required=True, help="output of small_sets/build.py")
    parser.add_argument("--out", type=Path, required=True, help="folder of the models; existing ones aren't trained again")
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=[name for name, arm in ARMS.items() if not arm.extra])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--tune", action="store_true", help="choose values on the validation sets, and write small/tuned.json")
    parser.add_argument("--tuning-seeds", type=int, default=1)
    parser.add_argument("--pairs", type=int, help="maximum size of each set, to check that the benchmark works")
    args = parser.parse_args()
    arms, sets, out = [ARMS[name] for name in args.arms], args.sets.absolute(), args.out.absolute()
    sets = shrink_sets(sets, out / f"sets-{args.pairs}", args.pairs) if args.pairs else sets
    chosen = json.loads(TUNED.read_text()) if TUNED.is_file() else {}
    searched = []
    if args.tune:
        found, table = tune(arms, sets, out, args.tuning_seeds)
        chosen = {**chosen, **found}
        TUNED.write_text(json.dumps(chosen, indent=2) + "\n")
        searched = [table]
    runs = measure(arms, sets, out, chosen, args.steps, args.seeds)
    result = build_result(runs, arms, args.steps, chosen)
    publish_result(replace(result, tables=(*searched, *result.tables)), args.json)


if __name__ == "__main__":
    main()

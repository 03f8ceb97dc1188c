"""Run every named model on captioned images: files, speed, tokens, and recall beside that of its own dense vectors.

    python benchmarks/hub_models.py               # on the example photographs; the models that are in the cache
    python benchmarks/hub_models.py --download    # fetches the others from the hub: a few GB
    python benchmarks/hub_models.py --captions dataset_coco.json --images coco    # also on COCO-5k, or any caption set

The models are those of `stair-es models`. One that can't be loaded has a row with the code of the error, and its message below
the tables. One with Python code needs your consent before: name it once to stair-es on a terminal, or set
STAIR_ES_TRUST_REMOTE_CODE.

R@1/5/10 are those of `stair-es evaluate retrieval --exact`, of token weights and of the dense vectors of the same checkpoint.
Loading includes the first image and text. Images/s include reading and decoding, and both rates include the dense vectors.

If a model reaches its published figure, set `tested` in `stair_es/model/hub.py`, and put its row into `docs/models.md`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from harness.photos import PHOTOS
from harness.program import build_parser, publish_result
from harness.result import ReportTable, Result

from stair_es.errors import StairError
from stair_es.eval.datasets.captions import CaptionDataset, read_captions
from stair_es.eval.encode import encode_dataset
from stair_es.eval.models import EvaluatedModel, build_evaluated_model
from stair_es.eval.retrieval.report import RetrievalReport
from stair_es.eval.retrieval.run import EvalOptions, evaluate_retrieval
from stair_es.model import hub, registry
from stair_es.model.base import ModelSpec
from stair_es.model.registry import ModelEntry

TO_IMAGE, TO_TEXT = "text -> image", "image -> text"
MODEL_HEAD = ("model", "id", "commits", "files", "on", "load, s", "published")
SET_HEAD = (
    *("model", "images/s", "texts/s", "tokens image / text"),
    *(f"{direction}, {vectors}" for direction in (TO_IMAGE, TO_TEXT) for vectors in ("tokens", "dense")),
)


@dataclass(frozen=True, kw_only=True)
class SetFigures:
    """The measurements of a model on one caption set."""

    images_per_s: float
    texts_per_s: float
    report: RetrievalReport

    def to_cells(self) -> tuple[str, ...]:
        """Return the cells of a row, after the name of the model."""
        found = {(row.direction, row.method): row for row in self.report.rows}
        recalls = (found[direction, method].exact for direction in (TO_IMAGE, TO_TEXT) for method in ("STAIR", "dense kNN"))
        return (
            f"{self.images_per_s:.1f}",
            f"{self.texts_per_s:.1f}",
            " / ".join(f"{mean:.1f}" for mean in found[TO_IMAGE, "STAIR"].tokens or ()),
            *(" / ".join(f"{100 * share:.1f}" for share in each.hit.values()) if each else "none" for each in recalls),
        )


@dataclass(frozen=True, kw_only=True)
class ModelFigures:
    """A named model, and its measurements or why there are none."""

    entry: ModelEntry
    model_id: str = ""
    commits: Mapping[str, str] = field(default_factory=dict)
    """Repository -> commit."""
    file_bytes: int = 0
    """Of its repositories in the cache."""
    device: str = ""
    load_s: float | None = None
    sets: tuple[SetFigures, ...] = ()
    error: StairError | None = None

    def to_cells(self) -> tuple[str, ...]:
        """Return the cells of a row; the size is the published one if the model has no files of its own here."""
        return (
            self.entry.name,
            f"not here: {self.error.code}" if self.error else self.model_id,
            ", ".join(commit[:7] for commit in self.commits.values()),
            f"{self.file_bytes / 1e6:.1f} MB" if self.commits else self.entry.facts.size,
            self.device,
            "" if self.load_s is None else f"{self.load_s:.1f}",
            self.entry.facts.recall,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return all figures."""
        sets = [{**vars(each), "report": each.report.to_dict()} for each in self.sets]
        return {**vars(self), "entry": self.entry.to_dict(), "sets": sets, "error": self.error and vars(self.error)}


def measure_model(entry: ModelEntry, sets: Sequence[CaptionDataset]) -> ModelFigures:
    """Load a model, and measure it on all sets."""
    try:
        start = time.perf_counter()
        resolved = registry.resolve_model(ModelSpec(name=entry.name))
        model = build_evaluated_model(resolved.load(), resolved.portable_spec)
        encode_dataset(replace(sets[0], images=sets[0].images[:1]), model, lambda *_: None)  # networks load when first used
        load_s = time.perf_counter() - start
        figures = tuple(measure_set(model, captions) for captions in sets)
    except StairError as error:
        return ModelFigures(entry=entry, error=error)
    revisions = hub.get_revisions()
    commits = {name: revisions[name] for name in entry.repositories if name in revisions}
    folders = [hub.get_cache_folder(name) / "snapshots" / commit for name, commit in commits.items()]
    return ModelFigures(
        entry=entry,
        model_id=model.label,
        commits=commits,
        file_bytes=sum(path.stat().st_size for folder in folders for path in folder.rglob("*") if path.is_file()),
        device="GPU" if resolved.can_use_gpu else "CPU",
        load_s=load_s,
        sets=figures,
    )


def measure_set(model: EvaluatedModel, captions: CaptionDataset) -> SetFigures:
    """Measure speed and recall on one caption set."""
    ends_s: dict[str, float] = {}

    def note_end(part: str, _done: int, _total: int) -> None:
        ends_s[part] = time.perf_counter()

    start = time.perf_counter()
    report = evaluate_retrieval(captions, [model], None, EvalOptions(), progress=note_end)
    images_s, texts_s = ends_s["images"] - start, ends_s["texts"] - ends_s["images"]
    return SetFigures(images_per_s=report.images / images_s, texts_per_s=report.texts / texts_s, report=report)


def build_result(models: Sequence[ModelFigures], sets: Sequence[CaptionDataset]) -> Result:
    """Return a table of the models, and one of each caption set."""
    tables = [ReportTable(head=MODEL_HEAD, rows=tuple(each.to_cells() for each in models))]
    for place, captions in enumerate(sets):
        rows = tuple((each.entry.name, *each.sets[place].to_cells()) for each in models if each.sets)
        tables.append(ReportTable(heading=f"{captions.name}: {len(captions.images):,} images", head=SET_HEAD, rows=rows))
    return Result(
        about="R@1/5/10 in percent, exact",
        tables=tuple(tables),
        remarks=tuple(f"{each.entry.name}: {each.error.message}. {each.error.remedy}" for each in models if each.error),
        figures={"models": [each.to_dict() for each in models]},
    )


def main() -> None:
    """Run the benchmark, and print its result."""
    parser = build_parser(__doc__)
    parser.add_argument("--captions", type=Path, metavar="FILE", help="also run this caption set, such as COCO's")
    parser.add_argument("--images", type=Path, metavar="FOLDER", help="folder of its images (default: that of the file)")
    parser.add_argument("--limit", type=int, metavar="N", help="only its first N images")
    parser.add_argument("--download", action="store_true", help="fetch models that aren't in the cache from the hub")
    args = parser.parse_args()
    sets = [replace(read_captions(PHOTOS / "captions.jsonl"), name="example photographs")]
    if args.captions:
        sets.append(read_captions(args.captions, images=args.images, limit=args.limit))
    with nullcontext() if args.download else hub.disable_downloads():
        models = [measure_model(entry, sets) for entry in registry.list_models()]
    publish_result(build_result(models, sets), args.json)


if __name__ == "__main__":
    main()

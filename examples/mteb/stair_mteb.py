"""Evaluate models of stair-es in MTEB, as models of sentence-transformers with texts and images.

python stair_mteb.py stair-mini                                     the 40 photos of examples/photos and their captions
python stair_mteb.py models/mine --task Flickr30kT2IRetrieval       a task of MTEB, which downloads its data
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import mteb
from datasets import Dataset, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import SparseEncoderWrapper
from sentence_transformers import SparseEncoder

from stair_es.sentence_transformers import StairModule

PHOTOS = Path(__file__).parents[1] / "photos"


def load_model(name: str) -> SparseEncoderWrapper:
    """Return a model for MTEB. Complete its description (license, training data, reference) before you publish results."""
    model = SparseEncoderWrapper(SparseEncoder(modules=[StairModule(name)]))
    description = {"name": f"stair-es/{Path(name).name}", "revision": "1", "modalities": ["text", "image"]}
    model.mteb_model_meta = model.mteb_model_meta.model_copy(update={**description, "languages": ["eng-Latn"]})
    return model


class BundledPhotos(AbsTaskRetrieval):
    """The photos of this repository, searched by their captions. Too small to compare models."""

    metadata = TaskMetadata(
        name="BundledPhotos",
        description="40 photos, searched by their captions",
        dataset={"path": "examples/photos", "revision": "1"},
        type="Any2AnyRetrieval",
        category="t2i",
        modalities=["text", "image"],
        eval_splits=["test"],
        eval_langs=["eng-Latn"],
        main_score="recall_at_1",
        date=None,
        reference=None,
        domains=None,
        task_subtypes=None,
        license=None,
        annotations_creators=None,
        dialect=None,
        sample_creation=None,
        bibtex_citation=None,
    )

    def load_data(self, num_proc: int | None = None, **_: object) -> None:
        """Read photos and captions."""
        rows = [json.loads(line) for line in (PHOTOS / "captions.jsonl").read_text(encoding="utf-8").splitlines()]
        names = [row["file"] for row in rows]
        images = Dataset.from_dict({"id": names, "image": [str(PHOTOS / name) for name in names]}).cast_column("image", Image())
        captions = Dataset.from_dict({"id": [f"q-{name}" for name in names], "text": [row["caption"] for row in rows]})
        right = {f"q-{name}": {name: 1} for name in names}
        self.dataset = {
            "default": {"test": RetrievalSplitData(corpus=images, queries=captions, relevant_docs=right, top_ranked=None)}
        }
        self.data_loaded = True


def main() -> None:
    """Evaluate a model on a task, and print the main measures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--task", help="a task of MTEB; by default the bundled photos")
    parser.add_argument("--batch-size", type=int, default=32)
    args = parser.parse_args()
    task = mteb.get_task(args.task) if args.task else BundledPhotos()
    results = mteb.evaluate(
        load_model(args.model), [task], encode_kwargs={"batch_size": args.batch_size}, cache=None, co2_tracker=False
    )
    for result in results.task_results:
        for scores in result.scores.values():
            for each in scores:
                print(result.task_name, {name: each[name] for name in ("recall_at_1", "recall_at_5", "ndcg_at_10")})


if __name__ == "__main__":
    main()

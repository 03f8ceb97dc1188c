"""Evaluate models of stair-es in MTEB: sparse vectors of texts and images, for every model with a vocabulary.

python stair_mteb.py stair-mini                               the 40 photos of examples/photos and their captions
python stair_mteb.py photos --task Flickr30kT2IRetrieval      a task of MTEB, which downloads its data
"""

from __future__ import annotations

import argparse
import io
import json
from functools import reduce
from pathlib import Path
from typing import TYPE_CHECKING

import mteb
import numpy as np
import torch
from datasets import Dataset, Image
from mteb.abstasks.retrieval import AbsTaskRetrieval
from mteb.abstasks.retrieval_dataset_loaders import RetrievalSplitData
from mteb.abstasks.task_metadata import TaskMetadata
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction

from stair_es.api import ImageSpec, ModelSpec, SparseVector
from stair_es.model.registry import load_encoder
from stair_es.sources.image.decode import DecodeLimits, decode_image

if TYPE_CHECKING:
    from mteb.types import Array, BatchedInput
    from PIL.Image import Image as PilImage
    from torch.utils.data import DataLoader

PHOTOS = Path(__file__).parents[1] / "photos"


class StairModel(AbsEncoder):
    """An encoder of stair-es behind MTEB's `EncoderProtocol`; the similarity is the dot product, as in the index."""

    def __init__(self, model_name: str, revision: str | None = None, *, checkpoint: str, **_: object) -> None:
        """Load the encoder; `checkpoint` is a name that `stair-es models` lists, a folder or a repository."""
        self.model = load_encoder(ModelSpec(name=checkpoint))
        if not self.model.tokens:
            raise ValueError(f"the model {checkpoint!r} doesn't list its tokens, so its vectors have no dimension")
        self._numbers = {token: number for number, token in enumerate(self.model.tokens)}

    def encode(self, inputs: DataLoader[BatchedInput], *, task_metadata: TaskMetadata, **_: object) -> torch.Tensor:
        """Return the vectors, [N, V]: sparse for retrieval, dense for other tasks. Those of a text and its image are added."""
        vectors = torch.cat([reduce(torch.add, self._encode_parts(batch)) for batch in inputs])
        is_retrieval = task_metadata.simplified_task_type == "retrieval" and "Reranking" not in task_metadata.type
        return vectors if is_retrieval else vectors.to_dense()

    def similarity(self, embeddings1: Array, embeddings2: Array) -> Array:
        """Return the dot products, [N, M]."""
        if isinstance(embeddings1, torch.Tensor) and embeddings1.is_sparse:
            return torch.sparse.mm(embeddings1, embeddings2.T).to_dense()
        return super().similarity(embeddings1, embeddings2)

    def _encode_parts(self, batch: BatchedInput) -> list[torch.Tensor]:
        parts = []
        if "text" in batch:
            parts.append(self.model.encode_texts(batch["text"]))
        if "image" in batch:
            pixels = [_convert_image(image, self.model.image_spec) for image in batch["image"]]
            parts.append(self.model.encode_images(np.stack(pixels)))
        return [self._convert_to_tensor(vectors) for vectors in parts]

    def _convert_to_tensor(self, vectors: list[SparseVector]) -> torch.Tensor:
        rows = [row for row, vector in enumerate(vectors) for _ in vector]
        columns = [self._numbers[token] for vector in vectors for token in vector.tokens]
        weights = [weight for vector in vectors for weight in vector.weights]
        shape = len(vectors), len(self._numbers)
        return torch.sparse_coo_tensor(torch.tensor([rows, columns]), weights, shape, check_invariants=True)


def _convert_image(image: PilImage, spec: ImageSpec) -> np.ndarray:
    """Return the pixels that the model requires, [H, W, C], through the decoder that `ingest` uses."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return decode_image(file.getvalue(), spec, DecodeLimits()).pixels_HWC


def build_model_meta(checkpoint: str) -> ModelMeta:
    """Describe a model for MTEB. Complete it (license, training data, reference) before you publish results."""
    encoder = load_encoder(ModelSpec(name=checkpoint))
    return ModelMeta.create_empty(
        {
            "name": f"stair-es/{encoder.model_id.rpartition('/')[2]}",
            "revision": encoder.model_id,
            "loader": StairModel,
            "loader_kwargs": {"checkpoint": checkpoint},
            "model_type": ["sparse"],
            "modalities": ["text", "image"],
            "languages": ["eng-Latn"],
            "embed_dim": len(encoder.tokens) or None,
            "similarity_fn_name": ScoringFunction.DOT_PRODUCT,
        }
    )


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
        build_model_meta(args.model), [task], encode_kwargs={"batch_size": args.batch_size}, cache=None, co2_tracker=False
    )
    for result in results.task_results:
        for scores in result.scores.values():
            for each in scores:
                print(result.task_name, {name: each[name] for name in ("recall_at_1", "recall_at_5", "ndcg_at_10")})


if __name__ == "__main__":
    main()

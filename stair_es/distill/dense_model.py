"""The dense model that is distilled: open it, encode images and texts."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from stair_es.errors import UsageError
from stair_es.eval.encode import encode_images, encode_texts
from stair_es.eval.models import EvaluatedModel
from stair_es.model import registry
from stair_es.model.base import ModelCard, ModelSpec
from stair_es.model.checkpoint import DENSE_FOLDER, Checkpoint
from stair_es.model.families import DENSE_FAMILIES
from stair_es.model.labels.recipe import LabelRecipe
from stair_es.sources.base import Locator, Source, SourceItem
from stair_es.types import Floats, PartProgressCallback

_SAMPLED_FROM = 20_000
"""Listed images from which a sample is taken, so that a bucket of millions isn't listed to its end."""
_REMEDY = "Use a CLIP, SigLIP, ALIGN or BLIP (for retrieval), as a folder or hub id, or a checkpoint of ours with a dense head."


@dataclass(frozen=True, kw_only=True)
class DenseModel:
    """A loaded model with dense vectors, and the folder of its checkpoint."""

    folder: Path
    card: ModelCard
    evaluated: EvaluatedModel
    """The encoder without tokens, as the functions of `eval.encode` take it."""

    def encode_images(self, locators: Sequence[Locator], progress: PartProgressCallback) -> tuple[Floats, dict[int, str]]:
        """Encode the readable images.

        Returns:
            Their unit vectors [N, D], and for each unreadable image its position and the reason.

        Raises:
            UsageError: If no image is readable.
        """
        readable = encode_images(locators, self.evaluated, progress)
        assert readable.vectors.dense is not None
        return readable.vectors.dense, readable.problems

    def encode_texts(self, texts: Sequence[str], progress: PartProgressCallback) -> Floats:
        """Encode texts as unit vectors [N, D]."""
        vectors = encode_texts(texts, self.evaluated, progress)
        assert vectors.dense is not None
        return vectors.dense


def open_dense_model(spec: ModelSpec) -> DenseModel:
    """Open a dense model. A repository on the hub is downloaded first; networks are loaded when they are first used.

    Raises:
        UsageError: If the model has no dense vectors, is already built from a dense model, or isn't a checkpoint.
        ModelError: If it is unknown or broken.
        MissingExtra: If a library isn't installed.
    """
    model = registry.resolve_model(spec)
    if isinstance(model.plugin, LabelRecipe):
        raise UsageError(
            f"the model {spec.name!r} already makes tokens from a dense model",
            f"Give its dense model: {model.plugin.dense_name}.",
            code="already-distilled",
        )
    if model.folder is None or not isinstance(model.plugin, Checkpoint):
        raise UsageError(
            f"the model {spec.name!r} is part of an installed package, not a checkpoint folder: it can't be distilled",
            _REMEDY,
            code="not-a-checkpoint-folder",
        )
    folder = model.folder
    if not isinstance(model.plugin, DENSE_FAMILIES):
        raise UsageError(
            f"the model {spec.name!r} has the format {model.plugin.family}, which can't be distilled",
            _REMEDY,
            code="format-not-distillable",
        )
    if (folder / DENSE_FOLDER).is_dir():
        raise UsageError(
            f"the model {spec.name!r} was already made from a dense model",
            f"Give its dense model: {folder / DENSE_FOLDER}.",
            code="already-distilled",
        )
    encoder = model.load()
    if not encoder.has_dense:
        raise UsageError(
            f"the model {spec.name!r} has no dense vectors, so it can't be distilled", _REMEDY, code="no-dense-vectors"
        )
    evaluated = EvaluatedModel(spec=spec, encoder=encoder, dense=encoder, has_tokens=False)
    return DenseModel(folder=folder, card=model.card, evaluated=evaluated)


def iterate_source_items(sources: Sequence[Source], on_problem: Callable[[str], None]) -> Iterator[SourceItem]:
    """Iterate over the images of sources.

    Raises:
        SourceError: If listing can't continue.
    """
    for source in sources:
        for found in source.list_items():
            if isinstance(found, SourceItem):
                yield found
            else:
                on_problem(f"{found.uri}: {found.reason}")


def build_no_image_error(sources: Sequence[Source]) -> UsageError:
    """Return the error for sources that contain no image."""
    names = ", ".join(source.uri for source in sources)
    return UsageError(
        f"no image in {names}", "Specify a folder, table, tar or URL with images: --images SOURCE.", code="no-images"
    )


def sample_images(sources: Sequence[Source], count: int, on_problem: Callable[[str], None]) -> list[SourceItem]:
    """Sample images evenly from the first 20,000 that the sources list; the same ones each time.

    Raises:
        UsageError: If the sources contain no image.
        SourceError: If listing can't continue.
    """
    items = list({item.uri: item for item in islice(iterate_source_items(sources, on_problem), _SAMPLED_FROM)}.values())
    if not items:
        raise build_no_image_error(sources)
    if len(items) <= count:
        return items
    return [items[index] for index in sorted(random.Random(0).sample(range(len(items)), count))]

"""Documents for `growth.py`: drawn by several processes, kept on disk load by load, and made as ingest makes them.

The drawn images are those of `query_corpus.py`: the first 100,000 here are the 100,000 there. Each load is a file of its own, so
that drawing goes on where it was interrupted, and read from disk by parts, so that a load takes no memory worth mentioning.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from search.corpus import BATCH, Corpus, Documents, Views, load_corpus
from search.indices import IMAGE_SIZES, make_uri

from stair_es.cluster.documents.document import DocumentSettings, ImageMetadata, build_document, make_document_id
from stair_es.model.stair_mini.plugin import KIND
from stair_es.sources.io.uris import split_image_uri
from stair_es.types import SparseVector

PART = 10_000
"""Documents that one task draws."""
_ARRAYS = ("word_ids_NW", "weights_NW", "classes_NC", "shares_NC")

_corpus: Corpus | None = None
"""Of a process that draws."""


class Loads:
    """A corpus in loads of `size` documents."""

    def __init__(self, cache: Path, size: int, loads: int) -> None:
        """Draw nothing yet.

        Args:
            cache: Folder where drawn documents stay.
            size: Documents a load, a multiple of `PART`.
            loads: How many.
        """
        if size % PART:
            raise SystemExit(f"a load has {size} documents: let it be a multiple of {PART}")
        self.size, self.loads = size, loads
        self.corpus, _ = load_corpus(BATCH, cache)
        self._folder = cache / KIND.card.model_id / "parts"
        self._folder.mkdir(parents=True, exist_ok=True)
        self._views = {name: cache / KIND.card.model_id / f"{name}.npy" for name in ("posteriors_BK", "scores_BO")}

    def draw(self) -> None:
        """Draw what isn't on disk, on all cores."""
        starts = range(0, self.size * self.loads, PART)
        missing = [start for start in starts if not all(file.exists() for file in _list_files(self._folder, start).values())]
        if not missing:
            return
        print(f"drawing {len(missing) * PART:,} documents", flush=True)
        spawned = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(os.cpu_count(), spawned, _prepare_process, (self._views,)) as pool:
            for number, _ in enumerate(pool.map(_draw_part, [self._folder] * len(missing), missing), 1):
                if number % 10 == 0:
                    print(f"  {number * PART:,}", flush=True)

    def build_documents(self, number: int, pictures: Sequence[str | None]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield `_id` and document of each image of one load, as `stair-es ingest` writes them.

        Args:
            number: Of the load, from 0.
            pictures: Thumbnails, which they have in turn; or one None for none.
        """
        for start in range(number * self.size, (number + 1) * self.size, PART):
            rng = np.random.default_rng((3, start))
            for row, vector in enumerate(self.corpus.make_vectors(_read_part(self._folder, start)), start):
                yield _build_document(row, vector, rng, pictures[row % len(pictures)])


def _build_document(
    row: int, vector: SparseVector, rng: np.random.Generator, thumbnail: str | None
) -> tuple[str, dict[str, Any]]:
    width, height = IMAGE_SIZES[row % len(IMAGE_SIZES)]
    noise = rng.bytes(64).hex()
    name, folder = split_image_uri(make_uri(row))
    taken = f"2026-{1 + row % 12:02}-{1 + row % 28:02}T{row % 24:02}:{row % 60:02}:07"
    metadata = ImageMetadata(
        uri=make_uri(row),
        name=name,
        folder=folder,
        source="s3://photos-of-the-archive/2026",
        version=noise[:32],
        modified_at=f"{taken}.000+00:00",
        bytes=200_000 + row % 7_800_000,
        sha256=noise[32:96],
        perceptual_hash=noise[16:32],
        width=width,
        height=height,
        format="jpeg",
        taken_at=taken,
        thumbnail=thumbnail,
    )
    made = build_document(
        vector,
        metadata,
        fields={},
        model_id=KIND.card.model_id,
        fingerprint=noise[96:],
        ingested_at=f"2026-11-24T{row // 3600 % 24:02}:{row // 60 % 60:02}:{row % 60:02}.{row % 1000:03}Z",
        settings=DocumentSettings(),
    )
    return make_document_id(metadata.uri), made


def _list_files(folder: Path, start: int) -> dict[str, Path]:
    return {name: folder / f"{name}-{start:010}.npy" for name in _ARRAYS}


def _read_part(folder: Path, start: int) -> Documents:
    return Documents(**{name: np.load(file) for name, file in _list_files(folder, start).items()})


def _prepare_process(views: dict[str, Path]) -> None:
    global _corpus
    _corpus = Corpus(Views(**{name: np.load(file) for name, file in views.items()}))


def _draw_part(folder: Path, start: int) -> None:
    if _corpus is None:
        raise RuntimeError("the process is not prepared")
    parts = list(_corpus.draw_batches(start + PART, start))
    for name, file in _list_files(folder, start).items():
        written = file.with_suffix(f".{os.getpid()}.tmp")
        with written.open("wb") as stream:
            np.save(stream, np.concatenate([getattr(part, name) for part in parts]))
        written.replace(file)

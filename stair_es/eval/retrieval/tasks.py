"""Retrieval tasks of a caption dataset: queries, gallery, and relevant items. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stair_es.eval.datasets.captions import CaptionedImage

Direction: TypeAlias = Literal["text -> image", "image -> text"]
_MAX_QUERIES_PER_IMAGE = 32
"""Maximum number of captions of an image that BM25 searches for it with; further ones are ignored."""


@dataclass(frozen=True, kw_only=True)
class RetrievalTask:
    """One direction. Queries and items are identified by position."""

    direction: Direction
    queries: tuple[str, ...]
    """Readable names: the text, or the name of the image."""
    items: tuple[str, ...]
    relevant: tuple[tuple[int, ...], ...]
    """Per query the positions of the relevant items, at least one."""


def build_text_to_image(images: Sequence[CaptionedImage], texts: Sequence[str]) -> RetrievalTask:
    """Build the task in which each distinct text searches for its image; a text of several images is relevant for each."""
    positions = defaultdict[str, list[int]](list)
    for position, image in enumerate(images):
        for text in image.captions:
            positions[text].append(position)
    return RetrievalTask(
        direction="text -> image",
        queries=tuple(texts),
        items=tuple(image.name for image in images),
        relevant=tuple(tuple(positions[text]) for text in texts),
    )


def build_image_to_text(images: Sequence[CaptionedImage], texts: Sequence[str]) -> RetrievalTask:
    """Build the task in which each image searches for its texts."""
    positions = {text: position for position, text in enumerate(texts)}
    return RetrievalTask(
        direction="image -> text",
        queries=tuple(image.name for image in images),
        items=tuple(texts),
        relevant=tuple(tuple(positions[text] for text in image.captions) for image in images),
    )


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """Task for BM25 on captions: an image is represented by its texts without the query."""

    task: RetrievalTask
    fields: tuple[str, ...]
    """Per query the field without it in its own image; in the others that field lacks the text of the same position."""
    documents: tuple[dict[str, str], ...]
    """Field -> text, per image."""


def name_field_without(number: int) -> str:
    """Return the name of the field with all captions of an image except the one at `number`."""
    return f"without_{number}"


def build_leave_one_out(images: Sequence[CaptionedImage], texts: Sequence[str]) -> LeaveOneOut | None:
    """Build the task for BM25; None if no image has a second caption.

    Queries are the texts that belong to exactly one image which has another text: if several images share a text, leaving it out
    in one would keep the answer in the others.

    Args:
        images: The gallery: all images, also those with one caption (which no query finds).
        texts: The distinct captions.
    """
    image_counts = defaultdict[str, int](int)
    for image in images:
        for text in image.captions:
            image_counts[text] += 1
    positions = {
        text: (position, number)
        for position, image in enumerate(images)
        if len(image.captions) > 1
        for number, text in enumerate(image.captions[:_MAX_QUERIES_PER_IMAGE])
        if image_counts[text] == 1
    }
    if not positions:
        return None
    numbers = range(max(number for _, number in positions.values()) + 1)
    queries = [text for text in texts if text in positions]
    documents = tuple(
        {
            name_field_without(number): " ".join(text for other, text in enumerate(image.captions) if other != number)
            for number in numbers
        }
        for image in images
    )
    task = RetrievalTask(
        direction="text -> image",
        queries=tuple(queries),
        items=tuple(image.name for image in images),
        relevant=tuple((positions[text][0],) for text in queries),
    )
    return LeaveOneOut(task=task, fields=tuple(name_field_without(positions[text][1]) for text in queries), documents=documents)

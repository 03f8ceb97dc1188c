"""What is asked of a caption set: queries on one side, a gallery on the other, and which items are right. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from stair_es.eval.captions import Captioned

Direction: TypeAlias = Literal["text -> image", "image -> text"]
_MOST_ASKING = 32
"""Only the first so many captions of an image ask for it by BM25."""


@dataclass(frozen=True, kw_only=True)
class Task:
    """One direction. Queries and items are known by their positions."""

    direction: Direction
    queries: tuple[str, ...]
    """For people: the text, or the name of the image."""
    items: tuple[str, ...]
    right: tuple[tuple[int, ...], ...]
    """For each query the positions of the right items, at least one."""


def text_to_image(images: Sequence[Captioned], texts: Sequence[str]) -> Task:
    """Each different text asks for its image; a text that several images have is right for each of them."""
    owners = defaultdict[str, list[int]](list)
    for position, image in enumerate(images):
        for text in image.captions:
            owners[text].append(position)
    return Task(
        direction="text -> image",
        queries=tuple(texts),
        items=tuple(image.name for image in images),
        right=tuple(tuple(owners[text]) for text in texts),
    )


def image_to_text(images: Sequence[Captioned], texts: Sequence[str]) -> Task:
    """Each image asks for its texts."""
    positions = {text: position for position, text in enumerate(texts)}
    return Task(
        direction="image -> text",
        queries=tuple(image.name for image in images),
        items=tuple(texts),
        right=tuple(tuple(positions[text] for text in image.captions) for image in images),
    )


@dataclass(frozen=True, kw_only=True)
class LeaveOneOut:
    """For BM25 on captions: an image is the texts that it has besides the one that asks."""

    task: Task
    fields: tuple[str, ...]
    """For each query the field that leaves it out at its own image, and at the others the text of the same place."""
    documents: tuple[dict[str, str], ...]
    """Field -> text, for each image."""


def field_without(place: int) -> str:
    """The field with all captions of an image but the one at `place`."""
    return f"without_{place}"


def leave_one_out(images: Sequence[Captioned], texts: Sequence[str]) -> LeaveOneOut | None:
    """The task for BM25, or None where no image has a second caption.

    Queries are the texts that exactly one image has, and that image another one besides: where several images share a text,
    leaving it out at one would leave the answer in the others.

    Args:
        images: The gallery: all images, those with one caption too (they are found by nothing then).
        texts: The different captions.
    """
    shared = defaultdict[str, int](int)
    for image in images:
        for text in image.captions:
            shared[text] += 1
    asking = {
        text: (position, place)
        for position, image in enumerate(images)
        if len(image.captions) > 1
        for place, text in enumerate(image.captions[:_MOST_ASKING])
        if shared[text] == 1
    }
    if not asking:
        return None
    places = range(max(place for _, place in asking.values()) + 1)
    queries = [text for text in texts if text in asking]
    documents = tuple(
        {field_without(place): " ".join(text for other, text in enumerate(image.captions) if other != place) for place in places}
        for image in images
    )
    task = Task(
        direction="text -> image",
        queries=tuple(queries),
        items=tuple(image.name for image in images),
        right=tuple((asking[text][0],) for text in queries),
    )
    return LeaveOneOut(task=task, fields=tuple(field_without(asking[text][1]) for text in queries), documents=documents)

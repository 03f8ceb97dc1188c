"""`evaluate zero-shot`: from a folder of classes to a report."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from stair_es.eval.contenders import Contender, in_turn
from stair_es.eval.encode import Pictures, Progress, Vectors, encode_images, encode_texts
from stair_es.eval.tables import Report, Table, percent
from stair_es.eval.zero_shot import Accuracy, accuracy, dense_classes, dense_scores, texts_of, word_classes, word_scores

if TYPE_CHECKING:
    from stair_es.eval.class_folders import LabelledSet
    from stair_es.eval.metrics import Doubles

_HEAD = ("vectors", "model", "top-1", "top-5", "mean per class", "images")


def zero_shot(
    labelled: LabelledSet,
    models: Sequence[Contender],
    prompts: Sequence[str],
    *,
    say: Callable[[str], None],
    progress: Progress,
) -> Report:
    """The accuracy of each model, by its words and by its dense vectors.

    Raises:
        UsageError: Not one image can be read, or a prompt has no place for a name.
        ModelError: The first model fails.
    """
    start = time.perf_counter()
    texts = texts_of(labelled.names, prompts)
    problems: list[str] = []
    remarks: list[str] = []
    flat, sizes = [text for own in texts for text in own], [len(own) for own in texts]

    def work(model: Contender) -> list[tuple[str, str, Accuracy]]:
        pictures = encode_images(labelled.places, model, progress)
        read = encode_texts(flat, model, progress)
        problems.extend(unread(labelled, pictures))
        labels = [labelled.labels[position] for position in pictures.kept]
        rows = []
        for kind, scores_NK, silent in _scores(pictures.vectors, read, sizes):
            rows.append((kind, model.label, accuracy(scores_NK, labels)))
            if silent:
                remarks.append(f"{kind} of {model.label}: {silent} classes have no known word, and are never found")
        return rows

    rows = in_turn(models, work, problems, say)
    return Report(
        title=f"{labelled.name}: {labelled.about()}",
        about=f"Zero-shot, {len(prompts)} prompts, ensembled; in percent. Equal scores count against the model.",
        tables=(Table(head=_HEAD, rows=tuple(_cells(*row) for row in rows)),),
        values=_values(labelled, prompts, rows),
        remarks=tuple(remarks),
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )


def unread(labelled: LabelledSet, pictures: Pictures) -> list[str]:
    """Why images of a set were left out."""
    return [f"{labelled.files[position]}: {reason}" for position, reason in pictures.problems.items()]


def _scores(images: Vectors, texts: Vectors, sizes: Sequence[int]) -> Iterable[tuple[str, Iterable[Doubles], int]]:
    """Kind of the vectors, [K] scores image after image, and how many classes have no vector."""
    if images.words is not None and texts.words is not None:
        classes = word_classes(texts.words, sizes)
        yield "words", word_scores(images.words, classes), sum(not len(each) for each in classes)
    if images.dense is not None and texts.dense is not None:
        yield "dense", dense_scores(images.dense, dense_classes(texts.dense, sizes)), 0


def _cells(kind: str, model: str, found: Accuracy) -> tuple[str, ...]:
    shares = (found.top1, found.top5, found.mean_class)
    return (kind, model, *map(percent, shares), str(found.images))


def _values(labelled: LabelledSet, prompts: Sequence[str], rows: Sequence[tuple[str, str, Accuracy]]) -> dict[str, Any]:
    return {
        "set": labelled.name,
        "images": len(labelled.files),
        "classes": {name: list(names) for name, names in zip(labelled.classes, labelled.names, strict=True)},
        "prompts": list(prompts),
        "rows": [{"vectors": kind, "model": model, **asdict(found)} for kind, model, found in rows],
    }

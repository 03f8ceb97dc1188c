"""Readability of tokens: how many of an image's heaviest tokens are words that a person accepts for it.

The protocol is docs/readability.md. A row is of a model, or of the tokens that some program wrote into an index.
"""

from __future__ import annotations

import re
import time
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean
from typing import TYPE_CHECKING, Any

import numpy as np

from stair_es.cluster.documents.document import get_field_value, parse_token_vector
from stair_es.cluster.documents.read import find_last_writes, scan_writes
from stair_es.errors import DatasetError, IndexMismatch, IndexNotFound
from stair_es.eval.encode import encode_images
from stair_es.eval.interpretability import check_prompt, score_vocabulary
from stair_es.eval.metrics import Doubles, bootstrap_interval
from stair_es.eval.models import EvaluatedModel, choose_label_space, run_for_each_model
from stair_es.eval.tables import ReportTable, TableReport, format_percent
from stair_es.model.vocabularies.readable import is_piece
from stair_es.model.vocabularies.whole_words import list_singulars
from stair_es.sources.io.uris import split_image_uri
from stair_es.types import PartProgressCallback, SparseVector

if TYPE_CHECKING:
    from stair_es.cluster.client.cluster import Cluster
    from stair_es.eval.datasets.captions import ListedImage, WordLists

ACCEPTED_OF = (5, 1, 10)
"""Numbers of heaviest tokens that are judged; the first one is what a page shows."""
_SHOWN = ACCEPTED_OF[0]
_WORD_START_MARKS, _WORD_END_MARK = "Ġ▁", "</w>"
_SPECIAL = re.compile(r"\[.*\]|<.*>")
"""`[CLS]`, `[id 5]`, `<|endoftext|>`."""


def normalize_token(token: str) -> str:
    """Return a token as lists write words: in lower case, `_` as a blank, without a tokenizer's mark of a beginning or end."""
    text = token.removesuffix(_WORD_END_MARK).lstrip(_WORD_START_MARKS)
    return " ".join(unicodedata.normalize("NFKC", text).casefold().replace("_", " ").split())


def is_whole_word(token: str) -> bool:
    """Return whether a token is a word, rather than a piece (`##x`), a name for no word (`[id 5]`), punctuation or a letter."""
    text = normalize_token(token)
    if len(text) == 1:
        return unicodedata.category(text) == "Lo"  # of a script without capitals, where a letter may be a word
    return any(map(str.isalpha, text)) and not is_piece(token) and not _SPECIAL.fullmatch(text)


def judge_tokens(tokens: Sequence[str], accepted: Collection[str]) -> tuple[bool, ...]:
    """Return for each token whether it is an accepted word: the same in any case, or with a regular plural ending on one side.

    Of several words each must be accepted. A piece of a word never is.
    """
    words = {normalize_token(word) for word in accepted}
    words |= {singular for word in words for singular in list_singulars(word)}
    return tuple(is_whole_word(token) and _is_accepted(normalize_token(token), words) for token in tokens)


def _is_accepted(text: str, words: Collection[str]) -> bool:
    if text in words or any(singular in words for singular in list_singulars(text)):
        return True
    parts = text.split()
    return len(parts) > 1 and all(_is_accepted(part, words) for part in parts)


@dataclass(frozen=True, kw_only=True)
class ImageReading:
    """The heaviest tokens of an image, and which of them are accepted."""

    image: str
    tokens: tuple[str, ...]
    accepted: tuple[bool, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        accepted = [token for token, is_accepted in zip(self.tokens, self.accepted, strict=True) if is_accepted]
        return {"image": self.image, "tokens": list(self.tokens), "accepted": accepted}


@dataclass(frozen=True, kw_only=True)
class MeanShare:
    """The mean of a share over images, 0..1, with its 95 % interval."""

    share: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{format_percent(self.share)} [{format_percent(self.low)}, {format_percent(self.high)}]"


@dataclass(frozen=True, kw_only=True)
class ReadabilityRow:
    """The readability of one model, or of one index."""

    kind: str
    """`tokens`, `dense` or `index`."""
    name: str
    readings: tuple[ImageReading, ...]
    not_found: int = 0
    """Images without a document, which count as images without tokens."""

    def compute_accepted(self, most: int) -> MeanShare:
        """Return the share of accepted words in the `most` first places; a place without a token has none."""
        shares_N = np.array([sum(reading.accepted[:most]) / most for reading in self.readings])
        low, high = bootstrap_interval(shares_N)
        return MeanShare(share=float(shares_N.mean()), low=low, high=high)

    def compute_accepted_of_written(self) -> float | None:
        """Return the share of accepted words among the tokens in the first places; None without any token."""
        accepted = [each for reading in self.readings for each in reading.accepted[:_SHOWN]]
        return fmean(accepted) if accepted else None

    def compute_pieces(self) -> float:
        """Return the share of the first places with a token that is no whole word."""
        return fmean(sum(not is_whole_word(token) for token in reading.tokens[:_SHOWN]) / _SHOWN for reading in self.readings)

    def count_shorter(self, tokens: int) -> int:
        """Count the images with fewer tokens."""
        return sum(len(reading.tokens) < tokens for reading in self.readings)

    def format_cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        written = self.compute_accepted_of_written()
        counts = (len(self.readings), self.count_shorter(_SHOWN), self.count_shorter(1))
        return (
            self.kind,
            self.name,
            *(str(self.compute_accepted(most)) for most in ACCEPTED_OF),
            "n/a" if written is None else format_percent(written),
            format_percent(self.compute_pieces()),
            *map(str, counts),
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the values for JSON."""
        return {
            "vectors": self.kind,
            "model": self.name,
            "images": len(self.readings),
            "accepted": {most: asdict(self.compute_accepted(most)) for most in ACCEPTED_OF},
            "accepted_of_written": self.compute_accepted_of_written(),
            "pieces": self.compute_pieces(),
            "fewer_than_five": self.count_shorter(_SHOWN),
            "without_tokens": self.count_shorter(1),
            "not_found": self.not_found,
            "readings": [reading.to_dict() for reading in self.readings],
        }


_HEAD = (
    "vectors",
    "model",
    "accepted of 5 [95 %]",
    "heaviest [95 %]",
    "accepted of 10 [95 %]",
    "of those written",
    "pieces",
    "images",
    "fewer than 5",
    "without tokens",
)
_ABOUT = (
    "Share of the heaviest tokens that a person accepts as words for the image, and of pieces among the first five; in percent,"
    " with a bootstrap over images. A missing token isn't an accepted one, except in `of those written`: of the first five."
)


def evaluate_readability(
    lists: WordLists,
    models: Sequence[EvaluatedModel],
    *,
    prompt: str = "{}",
    dense: bool = False,
    progress: PartProgressCallback,
) -> TableReport:
    """Measure how many of the heaviest tokens of models are accepted; of dense vectors, the nearest tokens of the vocabulary.

    Args:
        lists: Images with accepted words.
        models: At least one. Models without a vocabulary use that of the first model that has one, else BERT's.
        prompt: Prompt in which tokens are encoded for dense vectors.
        dense: Whether to measure dense vectors of models with tokens, too; this encodes one text per token of the vocabulary.
        progress: Progress callback.

    Raises:
        UsageError: If no image is readable, or the prompt has no placeholder.
        ModelError: If the first model fails.
    """
    check_prompt(prompt)
    start = time.perf_counter()
    shared_tokens = choose_label_space(models).tokens
    problems = list(lists.problems)
    located = [(image, image.locator) for image in lists.images if image.locator is not None]

    def measure_model(model: EvaluatedModel) -> list[ReadabilityRow]:
        readable = encode_images([locator for _, locator in located], model, progress, dense=dense or not model.has_tokens)
        problems.extend(f"{located[position][0].name}: {reason}" for position, reason in readable.problems.items())
        images = [located[position][0] for position in readable.kept]
        rows = []
        if readable.vectors.sparse is not None:
            rows.append(_build_row("tokens", model.label, images, [vector.tokens for vector in readable.vectors.sparse]))
        if readable.vectors.dense is not None:
            scores_NV = score_vocabulary(readable.vectors.dense, shared_tokens, model, prompt, progress)
            rows.append(_build_row("dense", model.label, images, [_list_nearest(each, shared_tokens) for each in scores_NV]))
        return rows

    return _build_report(lists, run_for_each_model(models, measure_model, problems), problems, start)


def _list_nearest(scores_V: Doubles, tokens: Sequence[str]) -> tuple[str, ...]:
    return tuple(tokens[position] for position in np.argsort(-scores_V, kind="stable")[: max(ACCEPTED_OF)])


def evaluate_index_readability(
    lists: WordLists, cluster: Cluster, index: str, *, tokens_field: str = "tokens", image_field: str = "uri"
) -> TableReport:
    """Measure how many of the heaviest tokens in the documents of an index are accepted, whoever wrote them.

    The document of an image is the one that names a file of the same name.

    Args:
        lists: Images with accepted words.
        cluster: The cluster.
        index: Index or alias.
        tokens_field: Field with token weights: an object of tokens with numbers.
        image_field: Field with the path or URL of the image.

    Raises:
        UsageError: If two images of the list have the same file name.
        ClusterError: If no document names an image of the list, several name the same, or none of them has token weights.
    """
    start = time.perf_counter()
    names = [split_image_uri(image.name)[0] for image in lists.images]
    [(most_frequent, count)] = Counter(names).most_common(1)
    if count > 1:
        raise DatasetError(
            f"{count} images of {lists.name} are called {most_frequent!r}, and documents are found by the name of the file",
            "Give each image of the list another file name.",
        )
    vectors: dict[str, SparseVector] = {}
    for name, tokens in _scan_documents(cluster, index, frozenset(names), tokens_field, image_field):
        if name in vectors:
            raise IndexMismatch(
                f"several documents of {index!r} name a file {name!r} in {image_field!r}",
                "Use an index of these images alone, with one document for each.",
                code="several-documents",
            )
        vectors[name] = parse_token_vector(tokens)
    if not any(map(len, vectors.values())):
        raise _build_empty_error(lists, index, len(vectors), tokens_field, image_field)
    empty = SparseVector((), ())
    label = f"{index}: {tokens_field}"
    row = _build_row("index", label, lists.images, [vectors.get(name, empty).tokens for name in names], len(names) - len(vectors))
    remark = f"images without a document in {index}, which count as images without tokens: {row.not_found}"
    return _build_report(lists, [row], lists.problems, start, (remark,) if row.not_found else ())


def _scan_documents(
    cluster: Cluster, index: str, names: Collection[str], tokens_field: str, image_field: str
) -> Iterator[tuple[str, object]]:
    """Yield file name and tokens of the documents that name one of the files. Reads all documents: no field has to be indexed."""
    if not cluster.call(cluster.client.indices.exists, index=index):
        raise IndexNotFound(f"there is no index or alias {index!r} at {cluster.connection.safe_url}", "Check --index.")
    found: Mapping[str, Any] = cluster.call(cluster.client.indices.get, index=index)
    for concrete in found:
        last_writes = find_last_writes(cluster, concrete)
        for hit in scan_writes(cluster, concrete, last_writes, [image_field, tokens_field]):
            source = hit.get("_source") or {}
            image = get_field_value(source, image_field)
            name = split_image_uri(image)[0] if isinstance(image, str) else ""
            if name in names:
                yield name, get_field_value(source, tokens_field)


def _build_empty_error(lists: WordLists, index: str, found: int, tokens_field: str, image_field: str) -> IndexMismatch:
    if not found:
        return IndexMismatch(
            f"no document of {index!r} names one of the {len(lists.images)} images of {lists.name} in {image_field!r}",
            "Ingest these images, or choose the field with the path or URL of the image with --image-field.",
            code="no-images",
        )
    return IndexMismatch(
        f"none of the {found} documents of these images in {index!r} has token weights in {tokens_field!r}",
        "Choose a field with an object of tokens and numbers, such as rank_features, with --tokens-field.",
        code="no-token-weights",
    )


def _build_row(
    kind: str, name: str, images: Sequence[ListedImage], tokens: Sequence[Sequence[str]], not_found: int = 0
) -> ReadabilityRow:
    readings = []
    for image, all_tokens in zip(images, tokens, strict=True):
        heaviest = tuple(all_tokens[: max(ACCEPTED_OF)])
        readings.append(ImageReading(image=image.name, tokens=heaviest, accepted=judge_tokens(heaviest, image.accepted)))
    return ReadabilityRow(kind=kind, name=name, readings=tuple(readings), not_found=not_found)


def _build_report(
    lists: WordLists, rows: Sequence[ReadabilityRow], problems: Sequence[str], start: float, remarks: tuple[str, ...] = ()
) -> TableReport:
    return TableReport(
        title=f"{lists.name}: {len(lists.images)} images",
        about=_ABOUT,
        tables=(ReportTable(head=_HEAD, rows=tuple(row.format_cells() for row in rows)),),
        values={"dataset": lists.name, "rows": [row.to_dict() for row in rows]},
        remarks=remarks,
        problems=tuple(dict.fromkeys(problems)),
        seconds=time.perf_counter() - start,
    )

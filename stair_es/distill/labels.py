"""Label scoring as a distillation: words that a dense model reads, and what is usual for them in images, become a checkpoint.

Nothing is trained. The words are those of stair-mini that pictures can show, those of a file, and those of captions.

Shape suffixes: N images, V words, D dimensions.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from stair_es.distill.dense_model import DenseModel
from stair_es.errors import DatasetError, UsageError
from stair_es.eval.datasets.captions import read_captions
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.checkpoint import CONFIG_JSON, DENSE_FOLDER, copy_dense_model, write_library_files
from stair_es.model.labels.distilled import DistilledConfig, ScoredWords, build_scored_words
from stair_es.model.labels.word_list import PROMPTS, WORD_KINDS, WordKind, load_seen_words
from stair_es.model.stair_mini.artifacts import read_mini_artifacts
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.whole_words import list_singulars, list_uncovered_words
from stair_es.sources.base import Locator
from stair_es.system.user_files import read_text_file
from stair_es.types import PartProgressCallback

MAX_SAMPLE_IMAGES = 1000
"""Images, and captions, that means and noise floors are computed from."""
_MIN_LENGTH = 3
_MAX_WORD_CHARACTERS = 100
_MIN_IMAGES = _MIN_WORDS = 2
_FEW_IMAGES = 100
_MEASURED_IMAGES = 200


def read_caption_texts(paths: Sequence[Path]) -> list[str]:
    """Return the texts of caption sets.

    Raises:
        UsageError: If a caption set can't be read.
    """
    return [caption for path in paths for image in read_captions(path).images for caption in image.captions]


def list_caption_words(captions: Iterable[str]) -> list[str]:
    """Return the words of captions, the most frequent first, without stop words and regular plurals of other words."""
    counts = Counter(word for caption in captions for word in list_uncovered_words(caption, ()))
    return list(_drop_plurals(sorted(counts, key=lambda word: (-counts[word], word))))


def collect_words(captions: Sequence[str] = (), file: Path | None = None, *, with_own_list: bool = True) -> dict[str, WordKind]:
    """Collect the words of a model and their kinds: those of a file, of captions, and of the list of stair-mini.

    Raises:
        UsageError: If the file can't be read, a line is not a word, or there are fewer than two words.
    """
    known = load_seen_words()
    given = read_word_file(file) if file is not None else {}
    words = dict.fromkeys([*given, *list_caption_words(captions), *(known if with_own_list else ())])
    if len(words) < _MIN_WORDS:
        raise DatasetError(
            f"the file and the captions have {len(words)} words: their mean needs at least {_MIN_WORDS}",
            "Add words to --words, or leave out --only-given-words.",
        )
    return {word: given.get(word) or known.get(word, "thing") for word in words}


def read_word_file(path: Path) -> dict[str, WordKind | None]:
    """Return the words of a text file in lower case, each once, and their kinds.

    A line is a word or phrase, and perhaps its kind after a tab.

    Raises:
        UsageError: If the file can't be read, or a line is not a word.
    """
    try:
        lines = read_text_file(path).splitlines()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it isn't UTF-8" if isinstance(error, UnicodeError) else error
        raise DatasetError(
            f"the words in {path} can't be read: {reason}", "Specify a text file with one word per line."
        ) from error
    words: dict[str, WordKind | None] = {}
    for number, line in enumerate(lines, 1):
        text, tab, name = unicodedata.normalize("NFC", line).strip().lower().partition("\t")
        word, kind = " ".join(text.split()), next((each for each in WORD_KINDS if each == name.strip()), None)
        if not word:
            continue
        if len(word) > _MAX_WORD_CHARACTERS or not word.isprintable() or not any(map(str.isalnum, word)):
            raise DatasetError(
                f"{path}, line {number}: {word[:40]!r} is not a word",
                f"Write one word or phrase per line, at most {_MAX_WORD_CHARACTERS} characters.",
            )
        if tab and kind is None:
            raise DatasetError(
                f"{path}, line {number}: {name.strip()[:40]!r} is not a kind of word",
                f"Write one of {', '.join(WORD_KINDS)} after the tab, or nothing.",
            )
        words.setdefault(word, kind)
    if not words:
        raise DatasetError(f"{path} has no words", "Write one word per line.")
    return words


def _drop_plurals(words: Sequence[str]) -> Iterator[str]:
    """Yield the content words, each once, unless a singular or another spelling of it is among them."""
    stop_words, spellings = load_stop_words(), read_mini_artifacts().vocabulary.spellings
    content = {word: None for word in words if len(word) >= _MIN_LENGTH and is_content_token(word, stop_words)}
    for word in content:
        if not any(other in content for other in (*list_singulars(word), *filter(None, (spellings.get(word),)))):
            yield word


@dataclass(frozen=True, kw_only=True)
class LabelOptions:
    """Options of a distillation without training."""

    image_tokens: int = 64
    """Maximum number of tokens per image."""
    text_tokens: int = 64
    """Maximum number of tokens per text."""
    prompts: Mapping[WordKind, Sequence[str]] = field(default_factory=lambda: PROMPTS)
    """Texts with `{}` for each kind of word; the vector of a word is the mean of theirs."""


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """What was built."""

    folder: Path
    model_id: str
    dense_model: str
    words: int
    images: int
    """Images that the noise floors were computed from."""
    problems: tuple[str, ...]
    """Images that can't be read, and why."""
    tokens: float
    """Mean number of tokens of an image."""
    seconds: float

    @property
    def has_few_images(self) -> bool:
        """Return whether more images would make the noise floors better."""
        return self.images < _FEW_IMAGES

    def to_dict(self) -> dict[str, Any]:
        """Return the report for JSON."""
        return {
            "checkpoint": str(self.folder),
            "model": self.model_id,
            "dense_model": self.dense_model,
            "words": self.words,
            "images": self.images,
            "problems": list(self.problems),
            "tokens_per_image": round(self.tokens, 1),
            "seconds": round(self.seconds, 2),
        }


def distill_labels(
    dense: DenseModel,
    locators: Sequence[Locator],
    words: Mapping[str, WordKind],
    out: Path,
    options: LabelOptions,
    progress: PartProgressCallback,
    captions: Sequence[str] = (),
) -> DistillReport:
    """Build a checkpoint whose tokens are words that the dense model reads. Nothing is trained.

    Args:
        dense: The dense model.
        locators: Images of the user's own, whose mean and noise are removed; 100 to 1,000 of them are enough.
        words: The words and their kinds.
        out: Folder to write; it must not exist, or be empty.
        options: Options.
        progress: Progress callback.
        captions: Texts like the queries, whose mean is removed from texts; the mean of the words if there are none.

    Raises:
        UsageError: If the folder is in use, or fewer than two different images are readable.
        ModelError: If an option is out of range, or the dense model is broken.
        OSError: If the folder can't be written.
    """
    start = time.perf_counter()
    check_empty_folder(out)
    config = DistilledConfig(
        name=f"{dense.card.model_id.rpartition('-')[0] or 'dense'}-words",
        dense_model=dense.card.model_id,
        image_tokens=options.image_tokens,
        text_tokens=options.text_tokens,
        prompts=dict(options.prompts),
    )
    images_ND, unreadable = dense.encode_images(locators, progress)
    different = len(np.unique(images_ND.round(6), axis=0))
    if different < _MIN_IMAGES:
        raise DatasetError(
            f"only {different} of {len(locators)} images can be read and differ: a mean needs at least {_MIN_IMAGES}",
            "Specify more images; 100 or more of the kind that will be searched are best.",
        )
    distinct = list(dict.fromkeys(captions))
    texts = random.Random(0).sample(distinct, min(len(distinct), MAX_SAMPLE_IMAGES))
    encode = partial(dense.encode_texts, progress=progress)
    scored = build_scored_words(encode, words, config.prompts, images_ND, texts)
    weights_NV = scored.weigh_images(images_ND[:_MEASURED_IMAGES], config.image_tokens)
    report = DistillReport(
        folder=out,
        model_id="",
        dense_model=config.dense_model,
        words=len(words),
        images=len(images_ND),
        problems=tuple(unreadable.values()),
        tokens=float(np.count_nonzero(weights_NV, axis=1).mean()),
        seconds=0.0,
    )
    _write_checkpoint(out, dense, config, scored, report)
    return replace(
        report, model_id=registry.resolve_model(ModelSpec(name=str(out))).card.model_id, seconds=time.perf_counter() - start
    )


def check_empty_folder(out: Path) -> None:
    """Raise UsageError if a checkpoint can't be written to a folder because something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} isn't an empty folder", "Specify a new folder with --out, or remove this one.", code="folder-not-empty"
        )


def _write_checkpoint(out: Path, dense: DenseModel, config: DistilledConfig, scored: ScoredWords, report: DistillReport) -> None:
    """Write the folder next to its destination, then move it there, so that it is complete or missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        temporary.chmod(0o755)
        copy_dense_model(dense.folder, temporary / DENSE_FOLDER)
        scored.write(temporary)
        (temporary / "README.md").write_text(render_distilled_card(config, dense, report), encoding="utf-8")
        write_library_files(temporary)
        (temporary / CONFIG_JSON).write_text(config.to_json(), encoding="utf-8")
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def render_distilled_card(config: DistilledConfig, dense: DenseModel, report: DistillReport) -> str:
    """Return the model card as Markdown, with the front matter that model hubs read."""
    prompts = "; ".join(f"{kind}: {', '.join(f'`{each}`' for each in texts)}" for kind, texts in config.prompts.items())
    licenses = "\n".join(f"- {line}" for line in dense.card.licenses) or "- not stated in its folder: see where you got it"
    return f"""---
library_name: stair-es
pipeline_tag: image-feature-extraction
tags: [image-search, sparse, rank_features, sentence-transformers, sparse-encoder]
---

# {config.name}

The dense model `{config.dense_model}` as weights over {report.words:,} words, written by `stair-es distill`.
For `stair-es ingest --model DIR` and `stair-es search --model DIR`, and with stair-es installed for sentence-transformers:
`SparseEncoder(DIR, trust_remote_code=True)`.

**No training. Queries have up to {config.text_tokens} clauses.** `stair-es evaluate retrieval CAPTIONS --model DIR` prints
the dense model beside it, on your images.

- Image: at most {config.image_tokens} words, those whose similarity is furthest above what is usual for them
- Text: the {config.text_tokens} most similar words, and its own
- Prompts: {prompts}
- Usual similarities: those with {report.images:,} images
- On these images: {report.tokens:.1f} words each

License of the dense model, which is in `dense/`:

{licenses}
"""

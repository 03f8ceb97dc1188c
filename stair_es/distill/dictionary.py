"""Distillation without training: words that the dense model reads, and the means of its vectors, become a checkpoint.

The words are those shipped with stair-es, those of a file, or those of captions.

Shape suffixes: N images, V words, P prompts, D dimensions.
"""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from stair_es.distill.dense_model import DenseModel
from stair_es.errors import DatasetError, UsageError
from stair_es.eval.datasets.captions import read_captions
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.checkpoint import CONFIG_JSON, DENSE_FOLDER, copy_dense_model, write_library_files
from stair_es.model.decomposition import center_vectors, decompose_images
from stair_es.model.distilled import DICTIONARY_FILE, Dictionary, DistilledConfig
from stair_es.model.stair_mini.artifacts import read_mini_artifacts
from stair_es.model.vocabularies.stop_words import is_content_token, load_stop_words
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary, list_singulars, list_uncovered_words
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.sources.base import Locator
from stair_es.system.user_files import read_text_file
from stair_es.types import Floats, PartProgressCallback

DEFAULT_WORDS = 10_000
"""Words of the default dictionary, as many as in SpLiCE."""
_MIN_LENGTH = 3
_MAX_WORD_CHARACTERS = 100
DEFAULT_L1 = 0.3
PROMPTS = ("{}",)
"""On the validation sets of the small benchmark, the bare word did as well as three prompts."""
MAX_MEAN_IMAGES = 1000
"""Images, and captions, from which a mean is computed."""
_MIN_IMAGES = 2
_MEASURED_IMAGES = 200


def load_default_words(count: int = DEFAULT_WORDS) -> list[str]:
    """Return the words of stair-mini, which can be seen in images, then the most frequent whole words of BERT's vocabulary.

    Stop words, pieces and regular plurals of other words are left out.
    """
    seen = list(read_mini_artifacts().vocabulary.words)
    frequent = (token for token in load_wordpiece_vocabulary().tokens if token.isascii() and token.isalpha())
    return list(_drop_plurals([*seen, *frequent]))[:count]


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


def read_word_file(path: Path) -> list[str]:
    """Return the words of a text file with one word or phrase per line, in lower case, each once.

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
    words: dict[str, None] = {}
    for number, line in enumerate(lines, 1):
        word = " ".join(line.lower().split())
        if not word:
            continue
        if len(word) > _MAX_WORD_CHARACTERS or not word.isprintable() or not any(map(str.isalnum, word)):
            raise DatasetError(
                f"{path}, line {number}: {word[:40]!r} is not a word",
                f"Write one word or phrase per line, at most {_MAX_WORD_CHARACTERS} characters.",
            )
        words[word] = None
    if not words:
        raise DatasetError(f"{path} has no words", "Write one word per line.")
    return list(words)


def build_word_vocabulary(words: Iterable[str]) -> WholeWordVocabulary:
    """Return a vocabulary of words, with the irregular plurals and other spellings that stair-mini knows for them."""
    unique = dict.fromkeys(words)
    known = read_mini_artifacts().vocabulary.spellings
    spellings = {spelling: word for spelling, word in known.items() if word in unique and spelling not in unique}
    return WholeWordVocabulary(tuple(unique), spellings)


def _drop_plurals(words: Sequence[str]) -> Iterator[str]:
    """Yield the content words, each once, unless a singular or another spelling of it is among them."""
    stop_words, spellings = load_stop_words(), read_mini_artifacts().vocabulary.spellings
    content = {word: None for word in words if len(word) >= _MIN_LENGTH and is_content_token(word, stop_words)}
    for word in content:
        if not any(other in content for other in (*list_singulars(word), *filter(None, (spellings.get(word),)))):
            yield word


@dataclass(frozen=True, kw_only=True)
class DictionaryOptions:
    """Options of a distillation without training."""

    image_tokens: int = 64
    """Maximum number of tokens per image."""
    text_tokens: int = 64
    """Maximum number of tokens per text."""
    l1: float = DEFAULT_L1
    """Penalty of the decomposition, as a share of the image's largest correlation with a word."""
    prompts: tuple[str, ...] = PROMPTS
    """Texts with `{}`; the vector of a word is the mean of theirs."""


@dataclass(frozen=True, kw_only=True)
class DistillReport:
    """What was built, and how well the dictionary fits the images."""

    folder: Path
    model_id: str
    dense_model: str
    words: int
    images: int
    """Images that the mean was computed from."""
    problems: tuple[str, ...]
    """Images that can't be read, and why."""
    tokens: float
    """Mean number of tokens of an image."""
    cosine: float
    """Mean cosine of an image's centered vector and the sum of its weighted words."""
    seconds: float

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
            "cosine": round(self.cosine, 3),
            "seconds": round(self.seconds, 2),
        }


def distill_dictionary(
    dense: DenseModel,
    locators: Sequence[Locator],
    vocabulary: WholeWordVocabulary,
    out: Path,
    options: DictionaryOptions,
    progress: PartProgressCallback,
    captions: Sequence[str] = (),
) -> DistillReport:
    """Build a checkpoint whose tokens are words that the dense model reads. Nothing is trained.

    Args:
        dense: The dense model.
        locators: Images of the user's own, whose mean vector is removed; 100 to 1,000 of them are enough.
        vocabulary: The words.
        out: Folder to write; it must not exist, or be empty.
        options: Options.
        progress: Progress callback.
        captions: Texts like the queries, whose mean is removed from texts; the mean of the words if there are none.

    Raises:
        UsageError: If the folder is in use, or fewer than two images are readable.
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
        l1=options.l1,
        prompts=options.prompts,
    )
    images_ND, unreadable = dense.encode_images(locators, progress)
    problems = tuple(unreadable.values())
    if len(images_ND) < _MIN_IMAGES:
        raise DatasetError(
            f"only {len(images_ND)} of {len(locators)} images can be read: a mean needs at least {_MIN_IMAGES}",
            "Specify more images; 100 or more of the kind that will be searched are best.",
        )
    dictionary = build_dictionary(dense, vocabulary, images_ND.mean(axis=0), options.prompts, progress, captions)
    tokens, cosine = measure_fit(images_ND[:_MEASURED_IMAGES], dictionary, config)
    report = DistillReport(
        folder=out,
        model_id="",
        dense_model=config.dense_model,
        words=len(vocabulary),
        images=len(images_ND),
        problems=problems,
        tokens=tokens,
        cosine=cosine,
        seconds=0.0,
    )
    _write_checkpoint(out, dense, config, dictionary, report)
    return replace(
        report, model_id=registry.resolve_model(ModelSpec(name=str(out))).card.model_id, seconds=time.perf_counter() - start
    )


def check_empty_folder(out: Path) -> None:
    """Raise UsageError if a checkpoint can't be written to a folder because something is there."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(
            f"{out} isn't an empty folder", "Specify a new folder with --out, or remove this one.", code="folder-not-empty"
        )


def build_dictionary(
    dense: DenseModel,
    vocabulary: WholeWordVocabulary,
    image_mean_D: Floats,
    prompts: Sequence[str],
    progress: PartProgressCallback,
    captions: Sequence[str] = (),
) -> Dictionary:
    """Build a dictionary: the vector of a word is the mean over its prompts, minus the mean of all words, of length 1.

    Args:
        dense: The dense model, which reads the prompts.
        vocabulary: The words.
        image_mean_D: Mean dense vector of images.
        prompts: Texts with `{}` in them.
        progress: Progress callback.
        captions: Texts whose mean is removed from texts; the mean of the words if there are none.
    """
    words_VD = encode_words(dense.encode_texts, vocabulary, prompts, progress)
    word_mean_D = text_mean_D = words_VD.mean(axis=0)
    distinct = list(dict.fromkeys(captions))
    if distinct:
        sample = random.Random(0).sample(distinct, min(len(distinct), MAX_MEAN_IMAGES))
        text_mean_D = dense.encode_texts(sample, progress).mean(axis=0)
    return Dictionary(
        vocabulary=vocabulary,
        words_VD=center_vectors(words_VD, word_mean_D),
        image_mean_D=image_mean_D.astype(np.float32),
        text_mean_D=text_mean_D.astype(np.float32),
    )


def encode_words(
    encode_texts: Callable[[Sequence[str], PartProgressCallback], Floats],
    vocabulary: WholeWordVocabulary,
    prompts: Sequence[str],
    progress: PartProgressCallback,
) -> Floats:
    """Encode words as the means [V, D] of their vectors in the prompts.

    Args:
        encode_texts: Returns the dense vectors of texts, given a progress callback.
        vocabulary: The words.
        prompts: Texts with `{}` in them.
        progress: Progress callback.
    """
    texts_ND = encode_texts([prompt.replace("{}", word) for word in vocabulary.words for prompt in prompts], progress)
    words_VD: Floats = texts_ND.reshape(len(vocabulary), len(prompts), -1).mean(axis=1)
    return words_VD


def measure_fit(images_ND: Floats, dictionary: Dictionary, config: DistilledConfig) -> tuple[float, float]:
    """Measure how well a dictionary represents images.

    Returns:
        The mean number of tokens, and the mean cosine of an image's centered vector and the sum of its weighted words.
    """
    centered_ND = center_vectors(images_ND, dictionary.image_mean_D)
    weights_NV = decompose_images(centered_ND, dictionary.words_VD, l1=config.l1, max_tokens=config.image_tokens)
    cosines_N = ((weights_NV @ dictionary.words_VD) * centered_ND).sum(axis=1)
    return float(np.count_nonzero(weights_NV, axis=1).mean()), float(cosines_N.mean())


def _write_checkpoint(
    out: Path, dense: DenseModel, config: DistilledConfig, dictionary: Dictionary, report: DistillReport
) -> None:
    """Write the folder next to its destination, then move it there, so that it is complete or missing."""
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=out.parent, prefix=f".{out.name}-"))
    try:
        temporary.chmod(0o755)
        copy_dense_model(dense.folder, temporary / DENSE_FOLDER)
        save_file(dictionary.to_tensors(), temporary / DICTIONARY_FILE)
        (temporary / WHOLE_WORDS_FILE).write_text(dictionary.vocabulary.to_json(), encoding="utf-8")
        (temporary / "README.md").write_text(render_distilled_card(config, dense, report), encoding="utf-8")
        write_library_files(temporary)
        (temporary / CONFIG_JSON).write_text(config.to_json(), encoding="utf-8")
        temporary.replace(out)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def render_distilled_card(config: DistilledConfig, dense: DenseModel, report: DistillReport) -> str:
    """Return the model card as Markdown, with the front matter that model hubs read."""
    licenses = "\n".join(f"- {line}" for line in dense.card.licenses) or "- not stated in its folder: see where you got it"
    return f"""---
library_name: stair-es
pipeline_tag: image-feature-extraction
tags: [image-search, sparse, rank_features, sentence-transformers, sparse-encoder, SpLiCE]
---

# {config.name}

The dense model `{config.dense_model}` as weights over {report.words:,} words, written by `stair-es distill`.
For `stair-es ingest --model DIR` and `stair-es search --model DIR`, and with stair-es installed for sentence-transformers:
`SparseEncoder(DIR, trust_remote_code=True)`.

**No training: the words are the dense model's own, weaker to read than trained ones. Queries have up to {config.text_tokens}
clauses.** `stair-es evaluate retrieval CAPTIONS --model DIR` prints the dense model beside it, on your images.

- Image: at most {config.image_tokens} words, by a non-negative lasso over the words (l1 {config.l1:g} of the largest correlation)
- Text: the {config.text_tokens} most similar words, and its own
- Prompts: {", ".join(f"`{prompt}`" for prompt in config.prompts)}
- Means removed: of {report.images:,} images, and of captions if there were some, otherwise of the words
- On these images: {report.tokens:.1f} words each; the cosine of an image and the sum of its words is {report.cosine:.2f}

License of the dense model, which is in `dense/`:

{licenses}
"""

"""Captions for images that have none: the heaviest words of the decomposition of their dense vectors."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from stair_es.distill.dense_model import build_no_image_error, iterate_source_items
from stair_es.distill.dictionary import PROMPTS, encode_words
from stair_es.model.distilled.decomposition import center_vectors, decompose_images
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.sources.base import Source
from stair_es.sources.io.local_file import FileLocator
from stair_es.sources.io.uris import from_file_uri
from stair_es.training.data.dataset import TrainingPair, TrainingSet
from stair_es.training.data.dense_features import DenseFeatures
from stair_es.training.data.feature_cache import PixelReader
from stair_es.training.data.transforms import NO_AUGMENTATION
from stair_es.types import Floats, PartProgressCallback

PSEUDO_CAPTIONS_FILE = "captions.jsonl"
_CAPTION_WORDS, _TAG_WORDS = 4, 4
_L1 = 0.7
"""Penalty of the decomposition: a caption has the few words that stand out, about three."""
_BATCH_SIZE = 256
_DECODE_THREADS = 2


def list_image_pairs(sources: Sequence[Source], on_message: Callable[[str], None]) -> TrainingSet:
    """List the images of sources, as pairs with an empty caption.

    Args:
        sources: Sources.
        on_message: Called with each location that can't be listed.

    Raises:
        UsageError: If there is no image.
        SourceError: If listing can't continue.
    """
    items = iterate_source_items(sources, on_message)
    images = TrainingSet.from_pairs(TrainingPair(item.uri, item.locator, ("",)) for item in items)
    if not len(images):
        raise build_no_image_error(sources)
    return images


def write_pseudo_captions(
    dense: DenseFeatures, images: TrainingSet, vocabulary: WholeWordVocabulary, path: Path, progress: PartProgressCallback
) -> TrainingSet:
    """Caption images with words, and write the captions as JSON Lines.

    The first caption has the four heaviest words, the others fewer of them; further words are tags.

    Args:
        dense: Dense model, whose vectors are decomposed.
        images: Images.
        vocabulary: Words that an image may be captioned with.
        path: File to write.
        progress: Progress callback.

    Returns:
        The readable images with their captions.

    Raises:
        OSError: If a file can't be written.
    """
    reader = PixelReader(pairs=images, spec=dense.card.image_spec, augment=NO_AUGMENTATION, seed=0, problems=images.problems)
    loader = dense.cache_images(reader, 1, progress, _DECODE_THREADS)
    states_BLD, unreadable = loader.load_batch(range(len(images)), [0] * len(images))
    readable = sorted(set(range(len(images))) - set(unreadable))
    vectors_ND: Floats = states_BLD[readable, 0].numpy()
    words = _find_heaviest_words(dense, vectors_ND, vocabulary, progress)
    pairs = [_caption_pair(images[number], own) for number, own in zip(readable, words, strict=True) if own]
    lines = ({"image": _name_image(pair), "captions": pair.captions, "tags": pair.tags} for pair in pairs)
    path.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8")
    return TrainingSet.from_pairs(pairs, images.problems)


def _find_heaviest_words(
    dense: DenseFeatures, vectors_ND: Floats, vocabulary: WholeWordVocabulary, progress: PartProgressCallback
) -> list[list[str]]:
    """Return the words of each image, heaviest first, by a decomposition over a dictionary of all words."""
    words_VD = encode_words(dense.encode_texts, vocabulary, PROMPTS, progress)
    dictionary_VD = center_vectors(words_VD, words_VD.mean(axis=0))
    centered_ND = center_vectors(vectors_ND, vectors_ND.mean(axis=0))
    found, count = [], _CAPTION_WORDS + _TAG_WORDS
    for begin in range(0, len(centered_ND), _BATCH_SIZE):
        weights_BV = decompose_images(centered_ND[begin : begin + _BATCH_SIZE], dictionary_VD, l1=_L1, max_tokens=count)
        for weights_V in weights_BV:
            order = np.argsort(-weights_V, kind="stable")[:count]
            found.append([vocabulary.words[index] for index in order if weights_V[index] > 0])
        progress("words of images", len(found), len(centered_ND))
    return found


def _caption_pair(image: TrainingPair, words: Sequence[str]) -> TrainingPair:
    main, tags = words[:_CAPTION_WORDS], words[_CAPTION_WORDS:]
    captions = dict.fromkeys((", ".join(main), main[0], ", ".join(main[:2]), ", ".join(main[1:])) if len(main) > 1 else main)
    return image._replace(captions=tuple(captions), tags=tuple(tags))


def _name_image(pair: TrainingPair) -> str:
    """Return the path of a local file, with which the captions are a caption set; else the URI."""
    return str(from_file_uri(pair.locator.uri)) if isinstance(pair.locator, FileLocator) else pair.name

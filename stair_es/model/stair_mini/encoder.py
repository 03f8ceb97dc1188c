"""stair-mini: token weights from an image classifier and an object detector, and for drawings from trained heads.

The image side follows ConSE (Norouzi et al., "Zero-Shot Learning by Convex Combination of Semantic Embeddings", 2014), with
tokens instead of a dense embedding; the heads follow STAIR (Chen et al., 2023). `docs/stair-mini.md` has formulas and limits.

Shape suffixes: B batch, H height, W width, C channels; others as in `artifacts`.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from stair_es.model.base import Encoder, ModelSpec, ReadText, check_encoder_pixels, check_model_spec
from stair_es.model.networks import image_networks
from stair_es.model.networks.image_networks import CLASSIFIER_SIZE_PX, Detector, ImageNetwork, ImageNetworkOutput
from stair_es.model.networks.minilm import compute_softmax
from stair_es.model.sparse_rows import SparseRowBuilder, keep_top_k, scale_to_unit
from stair_es.model.stair_mini import artifacts
from stair_es.model.stair_mini.artifacts import MINI_CARD, ClassTokens, Float64Array, MiniArtifacts
from stair_es.model.stair_mini.heads import DrawingGate, NumpyHeads, SceneProbe
from stair_es.model.stair_mini.text_encoder import MiniTextEncoder, TextOutputs
from stair_es.types import Floats, Pixels, SparseVector


class ImageOutputs(NamedTuple):
    """Images with the output of the classifier."""

    pixels_BHWC: Pixels
    small_BHWC: Pixels
    """Resized for the classifier."""
    classifier_output: ImageNetworkOutput


class StairMiniEncoder(Encoder):
    """The encoder of stair-mini. Each network is loaded once, when it is first used, by any thread."""

    card = MINI_CARD

    def __init__(self, spec: ModelSpec) -> None:
        """Check and keep the spec."""
        check_model_spec(spec)
        self._spec = spec
        self._lock = threading.RLock()

    def encode_images(self, pixels_BHWC: Pixels) -> list[SparseVector]:
        """Return one sparse vector per image, with 1 to 64 tokens."""
        return self.encode_image_outputs(self.run_image_network(pixels_BHWC))

    def run_image_network(self, pixels_BHWC: Pixels) -> ImageOutputs:
        """Run the classifier, for `encode_image_outputs` and other uses of its output."""
        check_encoder_pixels(pixels_BHWC, self.card)
        small_BHWC = resize_square_pixels(pixels_BHWC, CLASSIFIER_SIZE_PX)
        return ImageOutputs(pixels_BHWC, small_BHWC, self.image_network.run_network(small_BHWC))

    def encode_image_outputs(self, outputs: ImageOutputs) -> list[SparseVector]:
        """Encode images like `encode_images`, from the output of the classifier."""
        classified, scores_BO = outputs.classifier_output, self.detector.score_classes(outputs.pixels_BHWC)
        rows = zip(outputs.small_BHWC, classified.logits_BK, classified.features_BD, scores_BO, strict=True)
        return [self._build_vector(self._weigh_image(*row)) for row in rows]

    def compute_head_share(self, small_HWC: Pixels, features_P: Floats) -> float:
        """Compute how much the heads count for an image: 0 for a photograph, up to 1 for a drawing."""
        blend, probability = self._artifacts.blend, self._gate.predict_probability(small_HWC, features_P)
        drawn = (probability - blend.drawing_threshold) / (blend.drawing_full_threshold - blend.drawing_threshold)
        return min(1.0, max(0.0, drawn))

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one sparse vector per text, of its own and near tokens, at most 48. Texts are truncated after 254 WordPieces."""
        return self._texts.encode_texts(texts)

    def run_text_network(self, texts: Sequence[str]) -> list[TextOutputs]:
        """Run the text network, for `encode_text_outputs` and other uses of its output."""
        return self._texts.run_network(texts)

    def encode_text_outputs(self, texts: Sequence[str], outputs: Sequence[TextOutputs]) -> list[SparseVector]:
        """Encode texts like `encode_texts`, from the output of the text network."""
        return self._texts.encode_outputs(texts, outputs)

    def tokenize_word(self, word: str) -> tuple[str, ...]:
        """Return the vocabulary tokens of a word as users write it, also in another language."""
        return self._texts.reader.tokenize_word(word)

    def list_unknown_words(self, text: str) -> tuple[str, ...]:
        """Return the words of a text that are neither tokens nor near to one; translated ones are among them."""
        return self._texts.reader.list_unknown_words(text)

    def read_text(self, text: str) -> ReadText:
        """Return how a text is read: see `TextReader.read_text`."""
        return self._texts.reader.read_text(text)

    @property
    def tokens(self) -> tuple[str, ...]:
        """Return all tokens that a vector can contain."""
        return self._artifacts.vocabulary.words

    @property
    def photo_tokens(self) -> tuple[str, ...]:
        """Return the tokens that photographs can carry; the others are those of drawings."""
        return tuple(self.tokens[index] for index in np.flatnonzero(self._artifacts.can_be_on_photo_V))

    @property
    def image_network(self) -> ImageNetwork:
        """Return the classifier, loading it on first use."""
        with self._lock:
            return self._image_network

    @property
    def detector(self) -> Detector:
        """Return the detector, loading it on first use."""
        with self._lock:
            return self._detector

    def _weigh_image(self, small_HWC: Pixels, logits_K: Floats, features_P: Floats, scores_O: Floats) -> Float64Array:
        """Return the weights [V] of one image from the outputs of both networks."""
        blend, classes_K = self._artifacts.blend, compute_softmax(logits_K.astype(np.float64))
        head_share = self.compute_head_share(small_HWC, features_P)
        photo_share = 1 - head_share
        classified_V = self._weigh_classes(classes_K, photo_share) + photo_share * self._weigh_scenes(features_P)
        recognized_V = self._weigh_recognized(classified_V, classes_K, scores_O.astype(np.float64))
        if not head_share:
            return recognized_V
        learned_V = scale_to_unit(self._heads.apply_to_features(features_P).astype(np.float64) ** blend.heads_exponent)
        confidence = blend.class_confidence_weight * float(classes_K.max()) + blend.class_photo_weight * photo_share
        mixed_V = head_share * learned_V + (blend.class_base_weight + confidence) * recognized_V
        return scale_to_unit(keep_top_k(mixed_V, blend.image_max_tokens))

    def _weigh_recognized(self, classified_V: Float64Array, classes_K: Float64Array, scores_O: Float64Array) -> Float64Array:
        """Return the weights [V], of length 1, of what the classifier (`classified_V`) and the detector recognize."""
        mini, blend = self._artifacts, self._artifacts.blend
        words_V = classified_V + mini.objects.combine_classes(self._combine_scores(classes_K, scores_O))
        if not (words_V > 0).any():
            # Every class is equally likely: use what all classes have in common rather than an empty vector.
            words_V = mini.classes.combine_classes(classes_K)
        weights_V = scale_to_unit(keep_top_k(np.log1p(blend.log_gain * words_V), blend.image_max_tokens))
        return scale_to_unit(np.where(weights_V >= blend.min_relative_weight * weights_V.max(), weights_V, 0))

    def _weigh_classes(self, classes_K: Float64Array, photo_share: float) -> Float64Array:
        """Return the weights [V] of the classes; in photographs, general tokens are raised if no class is likely."""
        blend, classes = self._artifacts.blend, self._artifacts.classes
        unsure = (blend.sure_probability - float(classes_K.max())) / (blend.sure_probability - blend.unsure_probability)
        factor = 1 + photo_share * blend.general_boost * min(1.0, max(0.0, unsure))
        return np.maximum(self._lift_tokens(classes, classes_K), factor * self._lift_tokens(classes.general, classes_K))

    def _lift_tokens(self, tokens: ClassTokens, classes_K: Float64Array) -> Float64Array:
        """Return the weights [V] of classes above those of the mean class."""
        return np.maximum(tokens.combine_classes(classes_K) - self._artifacts.blend.mean_class_weight * tokens.mean, 0)

    def _weigh_scenes(self, features_P: Floats) -> Float64Array:
        """Return the weights [V] of the scenes of a photograph."""
        blend, probabilities_S = self._artifacts.blend, self._scenes.predict_probabilities(features_P)
        sure_S = np.maximum(0, (probabilities_S - blend.scene_threshold) / (1 - blend.scene_threshold))
        return blend.scene_weight * self._artifacts.scenes.combine_classes(sure_S)

    def _combine_scores(self, classes_K: Float64Array, scores_O: Float64Array) -> Float64Array:
        """Combine both networks: a confidence for each of the 80 objects [O], 0 to 1."""
        blend, confidence_O = self._artifacts.blend, scores_O.copy()
        for index, equivalents in enumerate(self._artifacts.same_things):
            if equivalents:
                class_score = min(1.0, 2 * float(classes_K[list(equivalents)].sum())) * (scores_O[index] > blend.class_threshold)
                confidence_O[index] = blend.object_score_weight * scores_O[index] + blend.class_score_weight * class_score
        return np.maximum(0, (confidence_O - blend.object_threshold) / (1 - blend.object_threshold))

    def _build_vector(self, weights_V: Float64Array) -> SparseVector:
        return self._rows.build_rows(weights_V[None])[0]

    @cached_property
    def _image_network(self) -> ImageNetwork:
        return image_networks.load_image_network(self._spec)

    @cached_property
    def _detector(self) -> Detector:
        return image_networks.load_detector(self._spec)

    @cached_property
    def _texts(self) -> MiniTextEncoder:
        return MiniTextEncoder(self._spec, self._artifacts)

    @cached_property
    def _artifacts(self) -> MiniArtifacts:
        return artifacts.read_mini_artifacts()

    @cached_property
    def _heads(self) -> NumpyHeads:
        return NumpyHeads(self._artifacts.config, self._artifacts.arrays)

    @cached_property
    def _gate(self) -> DrawingGate:
        arrays = self._artifacts.arrays
        return DrawingGate(
            statistic_weights_S=arrays["gate.statistics_S"],
            feature_weights_P=arrays["gate.features_P"],
            bias=float(arrays["gate.bias"][0]),
        )

    @cached_property
    def _scenes(self) -> SceneProbe:
        arrays = self._artifacts.arrays
        return SceneProbe(feature_weights_SP=arrays["scenes.features_SP"], biases_S=arrays["scenes.biases_S"])

    @cached_property
    def _rows(self) -> SparseRowBuilder:
        return SparseRowBuilder(self._artifacts.vocabulary.words)


def resize_square_pixels(pixels_BHWC: Pixels, side_px: int) -> Pixels:
    """Resize square images."""
    size = (side_px, side_px)
    resized = [np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) for image in pixels_BHWC]
    return np.stack(resized) if resized else np.empty((0, side_px, side_px, 3), np.uint8)

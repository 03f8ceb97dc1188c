"""stair-mini: the starter's words plus those of heads that learned from drawings, over the same two networks.

Each network runs once for an image or a text; both parts look at what it made of it. `docs/stair-mini.md` has the
numbers and the blind spots.

Shape suffixes: see `starter_data`; L tokens of a text, F features of the heads.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from stair_es.model import stair_mini_files
from stair_es.model.minilm import MAX_TOKENS
from stair_es.model.stair_mini_files import Mini
from stair_es.model.stair_mini_kind import KIND
from stair_es.model.stair_numpy import NumpyHeads
from stair_es.model.starter import Starter, keep_top, nearest, softmax, unit
from stair_es.model.starter_data import Doubles
from stair_es.types import Floats


class StairMini(Starter):
    """The encoder: a starter whose vectors have the heads' words added."""

    _card = KIND.card

    def _image(self, logits_K: Floats, features_D: Floats) -> Doubles:
        """At most 64 words [V]. The surer the classifier is of its class, the more its words count."""
        classes_K = softmax(logits_K.astype(np.float64))
        blend = self._mini.blend
        learned_V = unit(self._placed(self._heads.of_features(features_D)[0]) ** blend.image_power)
        share = blend.image_starter + blend.image_starter_sure * float(classes_K.max())
        return unit(keep_top(learned_V + share * self._words_of_classes(classes_K), blend.image_words))

    def _may_be_seen(self) -> NDArray[np.bool_]:
        """[V]: the heads' words, too."""
        seen_V = super()._may_be_seen()
        seen_V[self._mini.feature_ids_F] = True
        return seen_V

    def _text(self, text: str) -> Doubles:
        """At most 48 words [V]; none where the starter has none."""
        text_ids, word_ids = self._read(text)
        if not word_ids:
            return np.zeros(len(self._vocabulary))
        if self._spec.text_tower == "table":
            learned_V, known_V = unit(self._own(word_ids)), super()._text(text)
        else:
            with self._lock:
                network = self._text_network
            ids = self._vocabulary.with_ends(text_ids, MAX_TOKENS)
            states_LD = network.states(ids)
            mean_D = states_LD.mean(axis=0)
            learned_V = unit(self._placed(self._heads.of_states(states_LD, self._places_V[ids])[0]))
            known_V = self._words_of_text(word_ids, nearest(mean_D / np.linalg.norm(mean_D), self._words))
        blend = self._mini.blend
        return unit(keep_top(learned_V + blend.text_starter * known_V, blend.text_words))

    def _own(self, word_ids: list[int]) -> Doubles:
        """Without the network: a text's own words with what the heads learned of them, no others."""
        own_V = np.zeros(len(self._vocabulary))
        places = self._places_V[word_ids]
        own_V[np.array(word_ids)[places >= 0]] = np.log1p(
            np.maximum(self._mini.arrays["text.own_words.word_F"][places[places >= 0]], 0)
        )
        return own_V

    def _placed(self, weights_F: Floats | None) -> Doubles:
        """The heads' weights where the vocabulary has their words."""
        assert weights_F is not None  # the shipped heads are of words
        weights_V = np.zeros(len(self._vocabulary))
        weights_V[self._mini.feature_ids_F] = weights_F
        return weights_V

    @cached_property
    def _mini(self) -> Mini:
        return stair_mini_files.read()

    @cached_property
    def _heads(self) -> NumpyHeads:
        return NumpyHeads(self._mini.config, self._mini.arrays)

    @cached_property
    def _places_V(self) -> NDArray[np.int64]:  # noqa: N802  the suffix is its shape
        """For each token its place among the heads' features, or -1."""
        places_V = np.full(len(self._vocabulary), -1, np.int64)
        places_V[self._mini.feature_ids_F] = np.arange(len(self._mini.feature_ids_F))
        return places_V

"""The text side of stair-mini: token weights of texts by the text network and the trained heads, or by a table.

`docs/stair-mini.md` has the formulas. Shape suffixes are those of `artifacts`; L are the tokens of the text network.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from stair_es.config.settings import resolve_settings
from stair_es.model.base import ModelSpec
from stair_es.model.networks import minilm_download
from stair_es.model.networks.minilm import MINILM_MAX_TOKENS, MiniLM, compute_softmax
from stair_es.model.sparse_rows import SparseRowBuilder, keep_top_k, scale_to_unit
from stair_es.model.stair_mini.artifacts import Float64Array, MiniArtifacts
from stair_es.model.stair_mini.heads import NumpyHeads
from stair_es.model.stair_mini.text_reader import TextReader
from stair_es.model.stair_mini.text_table import build_mini_table
from stair_es.model.vocabularies.token_table import TokenTable
from stair_es.model.vocabularies.whole_words import WordMatch, assign_words_to_tokens
from stair_es.model.vocabularies.wordpiece import EncodedText, WordPieceVocabulary, load_wordpiece_vocabulary
from stair_es.types import Floats, SparseVector


class TextOutputs(NamedTuple):
    """A text, as it is read, with the output of the text network."""

    encoded_text: EncodedText
    states_LD: Floats

    @property
    def embedding_D(self) -> Floats:  # noqa: N802  the suffix is its shape
        """Return the mean state, scaled to length 1."""
        mean_D = self.states_LD.mean(axis=0)
        unit_D: Floats = mean_D / np.linalg.norm(mean_D)
        return unit_D


class MiniTextEncoder:
    """The text tower of stair-mini. The network is loaded once, when it is first used, by any thread."""

    def __init__(self, spec: ModelSpec, mini: MiniArtifacts) -> None:
        """Keep the spec and the artifacts."""
        self._spec, self._mini = spec, mini
        self._heads, self._rows = NumpyHeads(mini.config, mini.arrays), SparseRowBuilder(mini.vocabulary.words)
        self.reader = TextReader(mini)
        self._lock = threading.RLock()

    def encode_texts(self, texts: Sequence[str]) -> list[SparseVector]:
        """Return one sparse vector per text."""
        if self._spec.text_tower == "table":
            return [self._look_up_text(text) for text in texts]
        return [self._encode_text(text) for text in texts]

    def run_network(self, texts: Sequence[str]) -> list[TextOutputs]:
        """Run the text network on texts as they are read."""
        return [self._run_network(self.reader.read_text(text).text) for text in texts]

    def encode_outputs(self, texts: Sequence[str], outputs: Sequence[TextOutputs]) -> list[SparseVector]:
        """Encode texts like `encode_texts` with the network, from its output."""
        return [self._encode_text(text, output) for text, output in zip(texts, outputs, strict=True)]

    def _look_up_text(self, text: str) -> SparseVector:
        """Look up a text as it is, as other programs do; only if nothing of it is in the table, as it is read."""
        found = self._table.encode_text(text)
        return found if len(found) else self._table.encode_text(self.reader.read_text(text).text)

    def _encode_text(self, text: str, outputs: TextOutputs | None = None) -> SparseVector:
        """Encode a text, empty if nothing is known; `outputs` is the text network's, if it has run."""
        text = self.reader.read_text(text).text
        matches = self.reader.match_words(text)
        others = self.reader.list_uncovered_words(text, matches)
        indices = list(dict.fromkeys(match.word_index for match in matches))
        addable_V = self.reader.find_addable(indices, others)
        own_V = np.where(addable_V, self._weigh_own_words(indices, others), 0)
        if own_V.any():
            own_V = self._weigh_with_network(outputs or self._run_network(text), matches, own_V, addable_V)
        return self._rows.build_rows(own_V[None])[0]

    def _weigh_own_words(self, indices: Sequence[int], others: Sequence[str]) -> Float64Array:
        """Return the weights [V] of single words: tokens themselves, those of photographs for them, those near to other words."""
        own_V = np.zeros(len(self._mini.vocabulary))
        for word in others:
            own_V = np.maximum(own_V, self.reader.find_near_tokens(word))
        for index in indices:
            ids, nearness = self.reader.find_photo_tokens(index)
            own_V[ids] = np.maximum(own_V[ids], nearness)
        own_V[list(indices)] = 1.0
        return own_V

    def _weigh_with_network(
        self, outputs: TextOutputs, matches: Sequence[WordMatch], own_V: Float64Array, addable_V: NDArray[np.bool_]
    ) -> Float64Array:
        """Return the weights [V], of length 1, of a text: its own words, what the text network adds, and the heads."""
        mini, blend, embedding_D = self._mini, self._mini.blend, outputs.embedding_D
        cosine_V = (mini.arrays["embeddings.words_VD"] @ embedding_D).astype(np.float64)
        nearness_V = np.maximum(0, cosine_V - blend.text_min_near_cosine) / (1 - blend.text_min_near_cosine)
        near_V = keep_top_k(nearness_V * addable_V, blend.text_max_near_tokens)
        topics_K = compute_softmax(
            (mini.arrays["embeddings.classes_KD"] @ embedding_D).astype(np.float64) / blend.text_class_temperature
        )
        rare_V = mini.classes.combine_classes(topics_K) * np.sqrt(mini.token_rarity) * addable_V
        classes_V = keep_top_k(rare_V, blend.text_max_class_tokens)
        word_indices = assign_words_to_tokens(matches, outputs.encoded_text.offsets)
        heads_V = self._heads.apply_to_states(outputs.states_LD, np.array(word_indices, np.int64))
        text_V = np.maximum(own_V, near_V) + blend.text_class_weight / classes_V.max() * classes_V
        learned_V = scale_to_unit(heads_V.astype(np.float64) * addable_V)
        mixed_V = scale_to_unit(text_V * mini.token_rarity) + blend.text_heads_weight * learned_V
        return scale_to_unit(keep_top_k(mixed_V, blend.text_max_tokens))

    def _run_network(self, text: str) -> TextOutputs:
        with self._lock:
            network = self._network
        encoded = self._pieces.encode_with_offsets(text, MINILM_MAX_TOKENS)
        return TextOutputs(encoded, network.compute_states(encoded.ids))

    @cached_property
    def _network(self) -> MiniLM:
        models = resolve_settings(self._spec.settings).home.models
        return MiniLM(minilm_download.ensure_minilm(models) / minilm_download.MINILM_WEIGHTS)

    @cached_property
    def _table(self) -> TokenTable:
        return build_mini_table(self._mini)

    @cached_property
    def _pieces(self) -> WordPieceVocabulary:
        return load_wordpiece_vocabulary()

"""The formulas of docs/stair-mini.md with plain dictionaries and loops, to test the encoder against.

The outputs of networks and heads are inputs here.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from stair_es.model.stair_mini.artifacts import ClassTokens, MiniArtifacts
from stair_es.model.stair_mini.text_reader import LEAD_INS, TextReader
from stair_es.model.vocabularies.stop_words import load_stop_words
from stair_es.model.vocabularies.whole_words import NEVER_JOINED, strip_accents
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary
from stair_es.types import Floats, SparseVector

Words = dict[str, float]
MIN_NEARNESS, MIN_PHOTO_NEARNESS, MAX_PHOTO_WORDS = 0.4, 0.4, 8


@dataclass(frozen=True, kw_only=True)
class NetworkOutputs:
    """Outputs of the networks for an image."""

    classes: Sequence[float]
    """Probability of each class of the classifier."""
    things: Sequence[float]
    """Score of each class of the detector."""
    drawn: float
    """Probability of a drawing."""
    scenes: Sequence[float]
    """Probability of each scene."""
    learned: Words
    """Token weights of the heads."""


class Oracle:
    """The model as dictionaries."""

    def __init__(self, mini: MiniArtifacts) -> None:
        self._mini, self._blend = mini, mini.blend
        self._words = mini.vocabulary.words
        self.classes, self.objects, self.scenes = map(self._read_rows, (mini.classes, mini.objects, mini.scenes))
        self._general = self._read_rows(mini.classes, general=True)
        self._stop = load_stop_words()
        self._reader = TextReader(mini)  # its rules are tested by themselves
        self._on_photos = {word for table in (self.classes, self.objects) for row in table for word in row}
        self._tokens = load_wordpiece_vocabulary().ids

    def encode_image(self, answers: NetworkOutputs) -> Words:
        """Return the words of an image."""
        blend = self._blend
        head_share = min(
            1.0, max(0.0, (answers.drawn - blend.drawing_threshold) / (blend.drawing_full_threshold - blend.drawing_threshold))
        )
        photo_share = 1 - head_share
        scenes = {word: photo_share * weight for word, weight in self._weigh_scenes(answers.scenes).items()}
        recognized = self._recognize_classes(answers, [self._weigh_classes(answers.classes, photo_share), scenes])
        if head_share == 0:
            return recognized
        class_share = (
            blend.class_base_weight
            + blend.class_confidence_weight * max(answers.classes)
            + blend.class_photo_weight * photo_share
        )
        learned = normalize({word: weight**blend.heads_exponent for word, weight in answers.learned.items()})
        return normalize(keep_heaviest(sum_rows([head_share, class_share], [learned, recognized]), blend.image_max_tokens))

    def _weigh_classes(self, classes: Sequence[float], photo_share: float) -> Words:
        blend = self._blend
        unsure = (blend.sure_probability - max(classes)) / (blend.sure_probability - blend.unsure_probability)
        factor = 1 + photo_share * blend.general_boost * min(1.0, max(0.0, unsure))
        general = {word: factor * weight for word, weight in self._lift(classes, self._general).items()}
        return take_maximum([self._lift(classes, self.classes), general])

    def _weigh_scenes(self, scenes: Sequence[float]) -> Words:
        blend = self._blend
        sure = [blend.scene_weight * max(0.0, (each - blend.scene_threshold) / (1 - blend.scene_threshold)) for each in scenes]
        return sum_rows(sure, self.scenes)

    def _lift(self, classes: Sequence[float], rows: Sequence[Words]) -> Words:
        """Return the words of classes above those of the mean class."""
        mean = sum_rows([1 / len(rows)] * len(rows), rows)
        return {
            word: max(0.0, weight - self._blend.mean_class_weight * mean[word])
            for word, weight in sum_rows(classes, rows).items()
        }

    def _recognize_classes(self, answers: NetworkOutputs, classified: Sequence[Words]) -> Words:
        blend, confidences = self._blend, self._compute_confidences(answers)
        words = sum_rows([*[1.0] * len(classified), *confidences], [*classified, *self.objects])
        if not any(words.values()):
            words = sum_rows(answers.classes, self.classes)
        logs = normalize(
            keep_heaviest({word: math.log1p(blend.log_gain * weight) for word, weight in words.items()}, blend.image_max_tokens)
        )
        heaviest = max(logs.values())
        return normalize({word: weight for word, weight in logs.items() if weight >= blend.min_relative_weight * heaviest})

    def _compute_confidences(self, answers: NetworkOutputs) -> list[float]:
        blend, confidences = self._blend, []
        for score, equivalents in zip(answers.things, self._mini.same_things, strict=True):
            confidence = score
            if equivalents:
                class_score = (
                    min(1.0, 2 * sum(answers.classes[index] for index in equivalents)) if score > blend.class_threshold else 0.0
                )
                confidence = blend.object_score_weight * score + blend.class_score_weight * class_score
            confidences.append(max(0.0, (confidence - blend.object_threshold) / (1 - blend.object_threshold)))
        return confidences

    def encode_text(self, text: str, learned: Words, embedding_D: Floats) -> Words:
        """Return the words of a text with the text network.

        Args:
            text: Text in any case, as it is read.
            learned: Token weights of the heads.
            embedding_D: Embedding of the text network, of length 1.
        """
        matches = self._mini.vocabulary.match_words(text)
        own_words = {self._words[each.word_index] for each in matches}
        unknown = [
            match[0].lower()
            for match in re.finditer(r"[^\W\d_]+", text)
            if not any(each.begin <= match.start() and match.end() <= each.end for each in matches)
        ]
        others = [word for word in unknown if word not in self._stop]
        if not others and not own_words:
            return {}
        addable = self._list_addable(own_words, others)
        near_rows = [*map(self.find_nearby_words, others), *map(self.find_photo_words, own_words)]
        weights = take_maximum([dict.fromkeys(own_words, 1.0), *(keep_words(row, addable) for row in near_rows)])
        weights = self._add_related_words(weights, embedding_D, addable)
        learned = keep_words(learned, addable)
        rare = normalize({word: weight * self.compute_rarity(word) for word, weight in weights.items()})
        return normalize(
            keep_heaviest(sum_rows([1.0, self._blend.text_heads_weight], [rare, normalize(learned)]), self._blend.text_max_tokens)
        )

    def look_up_text(self, text: str) -> Words:
        """Return the words of a text with the table: by the rules, where the table has a list of all phrases."""
        decomposed = "".join(each for each in unicodedata.normalize("NFKD", text) if not unicodedata.combining(each)).lower()
        rows = []
        for run in re.split(r"[^\w \t\r\n'’-]|[\d_]", decomposed):
            words = re.findall(r"[^\W\d_]+", run)
            while " ".join(words[:2]) in LEAD_INS:
                words = words[2:]
            while words:
                index = self._find_pair(*words[:2]) if len(words) > 1 else -1
                count = 1 if index < 0 else 2
                rows += [self._look_up_word(word, self._mini.vocabulary.find_word(word)) for word in words[:count]]
                rows += [self._look_up_word(" ".join(words[:2]), index)] if index >= 0 else []
                words = words[count:]
                while " ".join(words[:2]) in LEAD_INS:
                    words = words[2:]
        thousandths = {word: float(round(1000 * weight)) for word, weight in take_maximum(rows).items()}
        return normalize(keep_heaviest(thousandths, self._blend.text_max_tokens))

    def _list_addable(self, own_words: Iterable[str], others: Iterable[str]) -> set[str]:
        indices = [self._words.index(word) for word in own_words]
        return {
            word
            for word, is_addable in zip(self._words, self._reader.find_addable(indices, [*others]), strict=True)
            if is_addable
        }

    def find_photo_words(self, own: str) -> Words:
        """Return the words of photographs near to a word that only drawings have; none for another word."""
        if own in self._on_photos:
            return {}
        embeddings_VD, blend = self._mini.arrays["embeddings.words_VD"], self._blend
        cosines = zip(self._words, (embeddings_VD @ embeddings_VD[self._words.index(own)]).tolist(), strict=True)
        nearness = {word: (cosine - blend.text_min_near_cosine) / (1 - blend.text_min_near_cosine) for word, cosine in cosines}
        near = {word: weight for word, weight in nearness.items() if weight >= MIN_PHOTO_NEARNESS}
        return keep_heaviest(keep_words(near, self._on_photos & self._list_addable([own], [])), MAX_PHOTO_WORDS)

    def _find_pair(self, first: str, second: str) -> int:
        """Return the index of the vocabulary word that two words are, or -1."""
        find = self._mini.vocabulary.find_word
        spelled = max(find(f"{first} {second}"), find(f"{first}-{second}"))
        are_words = all(len(each) > 1 and (each in self._tokens or find(each) >= 0) for each in (first, second))
        joined = are_words and first not in NEVER_JOINED and first + second not in self._stop
        return spelled if spelled >= 0 or not joined else find(first + second)

    def _look_up_word(self, word: str, index: int) -> Words:
        if word in self._stop:
            return {}
        translated = "" if index >= 0 else self._reader.tokenize_word(word)[:1]
        own = self._words[index] if index >= 0 else "".join(translated)
        near = {} if translated else self.find_nearby_words(word)
        near = keep_words(near or self.find_nearby_words(own), self._list_addable([own] if own else [], [word]))
        if own:
            index = self._words.index(own)
            near = {each: self._blend.text_table_near_weight * weight for each, weight in near.items()}
            near = take_maximum([near, self.find_photo_words(own)])
        weights = {each: weight * self.compute_rarity(each) for each, weight in near.items()}
        if own:
            learned = math.log1p(max(0.0, float(self._mini.arrays["text.own_words.word_F"][index])))
            weights[own] = self.compute_rarity(own) + self._blend.text_heads_weight * learned
        return weights

    def _add_related_words(self, weights: Words, embedding_D: Floats, addable: set[str]) -> Words:
        """Return the words of a text with those near to it and those of the classes that it is about."""
        blend, arrays = self._blend, self._mini.arrays
        cosines = zip(self._words, (arrays["embeddings.words_VD"] @ embedding_D).tolist(), strict=True)
        near = {
            word: max(0.0, cosine - blend.text_min_near_cosine) / (1 - blend.text_min_near_cosine) for word, cosine in cosines
        }
        closeness = [cosine / blend.text_class_temperature for cosine in (arrays["embeddings.classes_KD"] @ embedding_D).tolist()]
        powers = [math.exp(each - max(closeness)) for each in closeness]
        topics = sum_rows([power / sum(powers) for power in powers], self.classes)
        rare = keep_heaviest(
            {word: topics[word] * math.sqrt(self.compute_rarity(word)) for word in topics.keys() & addable},
            blend.text_max_class_tokens,
        )
        heaviest = max(rare.values())
        return sum_rows(
            [1.0, blend.text_class_weight / heaviest],
            [take_maximum([weights, keep_heaviest(keep_words(near, addable), blend.text_max_near_tokens)]), rare],
        )

    def find_nearby_words(self, word: str) -> Words:
        """Return the words of the table near a word; none if it isn't there or near to none."""
        table, token = self._mini.table, self._tokens.get(strip_accents(word), -1)
        tokens = table.token_ids_T.tolist()
        if token not in tokens:
            return {}
        row = tokens.index(token)
        pairs = zip(table.word_ids_TN[row].tolist(), table.weights_TN[row].tolist(), strict=True)
        near = {self._words[index]: weight / 255 for index, weight in pairs if weight}
        return near if max(near.values()) >= MIN_NEARNESS else {}

    def compute_rarity(self, word: str) -> float:
        """Return how few classes have a word, 1 for at most one."""
        count = max(1, sum(word in row for row in self.classes))
        return max(self._blend.text_min_rarity, math.log(len(self.classes) / count) / math.log(len(self.classes)))

    def _read_rows(self, table: ClassTokens, *, general: bool = False) -> list[Words]:
        rows = zip(table.word_ids_KE.tolist(), table.weights_KE.tolist(), table.is_general_KE.tolist(), strict=True)
        return [
            {self._words[index]: weight / 255 for index, weight, kind in zip(*row, strict=True) if weight and kind >= general}
            for row in rows
        ]

    def name_weights(self, weights_V: Floats) -> Words:
        """Return a row of the vocabulary as words."""
        return {word: weight for word, weight in zip(self._words, weights_V.tolist(), strict=True) if weight}


def sum_rows(shares: Sequence[float], rows: Sequence[Mapping[str, float]]) -> Words:
    """Return the sum of weighted rows."""
    mixed: Words = {}
    for share, row in zip(shares, rows, strict=True):
        for word, weight in row.items():
            mixed[word] = mixed.get(word, 0.0) + share * weight
    return mixed


def take_maximum(rows: Sequence[Mapping[str, float]]) -> Words:
    """Return the largest weight of each word."""
    words = {word for row in rows for word in row}
    return {word: max(row.get(word, 0.0) for row in rows) for word in words}


def keep_words(words: Words, kept: set[str]) -> Words:
    """Return some of the words."""
    return {word: weight for word, weight in words.items() if word in kept}


def keep_heaviest(words: Words, count: int) -> Words:
    """Return the heaviest words, ties by their names."""
    positive = [(word, weight) for word, weight in words.items() if weight > 0]
    return dict(sorted(positive, key=lambda pair: (-pair[1], pair[0]))[:count])


def normalize(words: Words) -> Words:
    """Return the words scaled to length 1."""
    length = math.sqrt(sum(weight * weight for weight in words.values()))
    return {word: weight / length for word, weight in words.items()} if length else {}


def measure_distance(vector: SparseVector, words: Words) -> float:
    """Return the largest difference of a weight."""
    weights = vector.to_dict()
    return max((abs(weights.get(word, 0.0) - words.get(word, 0.0)) for word in weights.keys() | words.keys()), default=0.0)

"""Build the arrays of the starter model (stair_es/model/data) from the packages that they are made of.

    python tools/build_starter.py                      # fetches what is missing with apt-get and pip
    python tools/build_starter.py --wordnet usr/share/wordnet/data.noun --classes imagenet_synsets.txt --minilm DIR --out DIR

Needs the tokeniser and the text network of this project, nothing else; takes about three minutes on one core. The same
packages on the same machine give the same bytes.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from stair_es.config import Home
from stair_es.model import minilm_files, starter_data
from stair_es.model.minilm import MAX_TOKENS, MiniLM
from stair_es.model.wordpiece import UNKNOWN, Vocabulary
from stair_es.types import Floats

TIMM = "timm==1.0.31"
CLASSES_MEMBER = "timm/data/_info/imagenet_synsets.txt"
MAX_DEPTH, DEPTH_DECAY = 6, 0.6
MODIFIER, LATER_LEMMA, PIECE = 0.6, 0.85, 0.5
GLOSS, MIN_COSINE = 0.2, 0.4
WORDS_A_CLASS, CLASSES_A_WORD = 64, 8

TOO_GENERAL = """
    entity physical_entity object whole artifact organism living_thing matter substance instrumentality device abstraction
    thing causal_agent unit solid placental vertebrate chordate animal consumer_goods commodity covering structure conveyance
    equipment implement part relation attribute group psychological_feature mammal diapsid plant_part plant_organ
    reproductive_structure natural_object even-toed_ungulate mechanism way
"""
"""First lemmas of the synsets that say nothing about what is to be seen."""


@dataclass(frozen=True)
class Synset:
    """A noun of WordNet."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    definition: str
    """The gloss without its examples."""


def read_wordnet(path: Path) -> dict[str, Synset]:
    """The nouns of `data.noun` by offset (format: wndb(5WN))."""
    synsets = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("  "):
            continue  # the licence
        head, _, gloss = line.partition(" | ")
        fields = head.split(" ")
        words = int(fields[3], 16)
        pointers = fields[5 + 2 * words :]
        synsets[fields[0]] = Synset(
            lemmas=tuple(fields[4 : 4 + 2 * words : 2]),
            hypernyms=tuple(pointers[i + 1] for i in range(0, 4 * int(fields[4 + 2 * words]), 4) if pointers[i] in ("@", "@i")),
            definition=re.split(r';\s*"', gloss.strip())[0],
        )
    return synsets


def ancestors(offset: str, synsets: dict[str, Synset]) -> Iterator[tuple[Synset, int]]:
    """The synset and its hypernyms with their depths, nearest first, without those that are too general."""
    general = frozenset(TOO_GENERAL.split())
    depths, level = {offset: 0}, [offset]
    for depth in range(1, MAX_DEPTH + 1):
        level = list(dict.fromkeys(up for here in level for up in synsets[here].hypernyms if up not in depths))
        depths.update(dict.fromkeys(level, depth))
    for here, depth in depths.items():
        if depth == 0 or synsets[here].lemmas[0] not in general:
            yield synsets[here], depth


class Builder:
    """The recipe; `docs/starter.md` describes it."""

    def __init__(self, synsets: dict[str, Synset], classes: list[str], network: MiniLM, vocabulary: Vocabulary) -> None:
        self.synsets, self.classes, self.network, self.vocabulary = synsets, classes, network, vocabulary
        self.stop = starter_data.load_stop_words()
        self.whole_ids = np.array([i for i, word in enumerate(vocabulary.words) if re.fullmatch("[a-z]{3,}", word)])

    def embed(self, text: str) -> Floats:
        """The unit vector [D] of a text."""
        return self.network.embed(self.vocabulary.with_ends(self.vocabulary.encode(text), MAX_TOKENS))

    def name_weights(self, offset: str) -> dict[int, float]:
        """The words of a class by its own lemmas, those of its hypernyms, and its definition."""
        weights: dict[int, float] = {}

        def add(token: int, weight: float) -> None:
            weights[token] = max(weights.get(token, 0.0), weight)

        for synset, depth in ancestors(offset, self.synsets):
            for ids, weight in self.lemma_words(synset):
                if len(ids) == 1:
                    add(ids[0], weight * DEPTH_DECAY**depth)
                elif depth == 0:
                    for token in ids:
                        add(token, weight * PIECE)
        for word in re.findall("[a-z]{3,}", self.synsets[offset].definition.lower()):
            ids = self.vocabulary.encode(word)
            if len(ids) == 1 and word not in self.stop:
                add(ids[0], GLOSS)
        weights.pop(self.vocabulary.ids[UNKNOWN], None)
        return weights

    def lemma_words(self, synset: Synset) -> Iterator[tuple[list[int], float]]:
        """The tokens of each word of the lemmas; the last word of a lemma is its head."""
        for position, lemma in enumerate(synset.lemmas):
            if position and re.search(r"(^|_)[A-Z]", lemma):
                continue  # a Latin name
            words = re.findall("[A-Za-z]+", lemma)
            for index, word in enumerate(words):
                if word.lower() not in self.stop:
                    role = 1.0 if index == len(words) - 1 else MODIFIER
                    yield self.vocabulary.encode(word), role * LATER_LEMMA**position

    def words(self, word_vectors_TD: Floats) -> dict[str, np.ndarray]:
        """The class-to-word matrix and the class embeddings, quantised."""
        ids_KE = np.zeros((len(self.classes), WORDS_A_CLASS), np.uint16)
        weights_KE = np.zeros((len(self.classes), WORDS_A_CLASS), np.uint8)
        vectors_KD = np.stack([self.embed(self.class_text(offset)) for offset in self.classes])
        for row, offset in enumerate(self.classes):
            weights = self.name_weights(offset)
            nearness_T = word_vectors_TD @ vectors_KD[row] - MIN_COSINE
            for index in np.flatnonzero(nearness_T > 0):
                token = int(self.whole_ids[index])
                weights[token] = max(weights.get(token, 0.0), float(nearness_T[index]))
            # "an ##emon ##e": a piece that is a stop word could never be searched for
            kept = {token: weight for token, weight in weights.items() if self.vocabulary.words[token] not in self.stop}
            quantised = {token: round(min(weight, 1.0) * 255) for token, weight in kept.items()}
            top = sorted(quantised.items(), key=lambda pair: (-pair[1], pair[0]))[:WORDS_A_CLASS]
            ids_KE[row, : len(top)] = [token for token, _ in top]
            weights_KE[row, : len(top)] = [weight for _, weight in top]
        scales_K = (np.abs(vectors_KD).max(axis=1) / 127).astype(np.float32)
        rounded_KD = np.rint(vectors_KD / scales_K[:, None]).astype(np.int8)
        return {"word_ids": ids_KE, "weights": weights_KE, "vectors": rounded_KD, "scales": scales_K}

    def class_text(self, offset: str) -> str:
        """What the text network reads for a class: its name and definition."""
        synset = self.synsets[offset]
        return f"{synset.lemmas[0].replace('_', ' ')}: {synset.definition}"

    def table(self, word_vectors_TD: Floats, classes_KD: Floats) -> dict[str, np.ndarray]:
        """For each whole word the nearest classes, and how far each is ahead of the first that was left out."""
        cosines_TK = word_vectors_TD @ classes_KD.T
        order_TC = np.argsort(-cosines_TK, axis=1, kind="stable")[:, : CLASSES_A_WORD + 1]
        best_TC = np.take_along_axis(cosines_TK, order_TC, axis=1)
        excess_TC = best_TC[:, :-1] - best_TC[:, -1:]
        unit = np.float32(excess_TC.max() / 255)
        return {
            "token_ids": self.whole_ids.astype(np.uint16),
            "classes": order_TC[:, :-1].astype(np.uint16),
            "excess": np.rint(excess_TC / unit).astype(np.uint8),
            "unit": np.array([unit], np.float32),
        }


def fetch_wordnet(folder: Path) -> Path:
    """`data.noun` of WordNet 3.0, from the Debian package `wordnet-base`."""
    subprocess.run(["apt-get", "download", "wordnet-base"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["dpkg-deb", "-x", str(next(folder.glob("wordnet-base*.deb"))), str(folder)], check=True)
    return folder / "usr/share/wordnet/data.noun"


def fetch_classes(folder: Path) -> Path:
    """The 1,000 synsets in the order of the classifier, from the Python package `timm`."""
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary=:all:",
        "--dest",
        str(folder),
        TIMM,
    ]
    subprocess.run(command, check=True)
    with zipfile.ZipFile(next(folder.glob("timm-*.whl"))) as archive:
        return Path(archive.extract(CLASSES_MEMBER, folder))


def build(wordnet: Path, class_list: Path, minilm: Path, out: Path) -> None:
    """Write the arrays and the vocabulary into `out`."""
    vocabulary = Vocabulary((minilm / "vocab.txt").read_text(encoding="utf-8").split("\n")[:-1])
    classes = [line[1:] for line in class_list.read_text(encoding="utf-8").split()]
    builder = Builder(read_wordnet(wordnet), classes, MiniLM(minilm / minilm_files.WEIGHTS), vocabulary)
    print(f"{len(classes)} classes; embedding {len(builder.whole_ids)} words ...", flush=True)
    word_vectors_TD = np.stack([builder.embed(vocabulary.words[i]) for i in builder.whole_ids])
    words = builder.words(word_vectors_TD)
    table = builder.table(word_vectors_TD, words["vectors"] * words["scales"][:, None])
    out.mkdir(parents=True, exist_ok=True)
    (out / starter_data.VOCABULARY_FILE).write_bytes((minilm / "vocab.txt").read_bytes())
    save_file(words, out / starter_data.WORDS_FILE)
    save_file(table, out / starter_data.TABLE_FILE)
    for name in (starter_data.VOCABULARY_FILE, starter_data.WORDS_FILE, starter_data.TABLE_FILE):
        print(f"{out / name}: {(out / name).stat().st_size} bytes")


def main() -> None:
    """Parse the arguments, fetch what wasn't given, build."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--wordnet", type=Path, help="data.noun of WordNet 3.0")
    parser.add_argument("--classes", type=Path, help="imagenet_synsets.txt of timm")
    parser.add_argument("--minilm", type=Path, help="folder with model.safetensors and vocab.txt of all-MiniLM-L6-v2")
    parser.add_argument("--out", type=Path, default=starter_data.DATA)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        wordnet = given.wordnet or fetch_wordnet(Path(temporary))
        class_list = given.classes or fetch_classes(Path(temporary))
        minilm = given.minilm or minilm_files.ensure(Home.from_env().models)
        build(wordnet, class_list, minilm, given.out)


if __name__ == "__main__":
    main()

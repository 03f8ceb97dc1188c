"""Write scripts/mini/translations.txt: German, French, Spanish and Italian words of Unicode CLDR with the token that they mean.

    python benchmarks/small_sets/build.py --out SETS                    # fetches the npm package emojibase-data
    python scripts/mini_translations.py SETS/../packages/emojibase-data-17.0.0.tgz

CLDR names each emoji in each language. A name of one word is a translation of the English name, if that is a token: `Hund` is
`dog`. Keywords of emoji are too noisy to be paired; some were picked by hand, and it is checked here that CLDR gives both words
to the same emoji. All pairs were read by a person, whose decisions are in `mini/translations.toml`. `build_mini.py` ships the
table.
"""

from __future__ import annotations

import json
import re
import sys
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mini_words

from stair_es.model.stair_mini.artifacts import read_mini_artifacts
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary, strip_accents
from stair_es.system.user_files import parse_toml_text

REVIEW = mini_words.FOLDER / "translations.toml"
_MIN_LETTERS = 3
Names = Mapping[str, Mapping[str, Any]]


def read_names(package: Path, language: str) -> Names:
    """Return the emoji of a language by their code."""
    with tarfile.open(package) as archive:
        file = archive.extractfile(f"package/{language}/data.json")
        assert file is not None
        return {each["hexcode"]: each for each in json.load(file)}


def find_token(name: str, vocabulary: WholeWordVocabulary) -> str:
    """Return the token of an English name of one word; empty if there is none."""
    index = vocabulary.find_word(name) if re.fullmatch("[a-z]+", name) else -1
    return vocabulary.words[index] if index >= 0 else ""


def list_pairs(names: Names, english: Names, keywords: str, vocabulary: WholeWordVocabulary) -> Iterator[tuple[str, str]]:
    """List the words of a language with their tokens.

    Raises:
        SystemExit: If no emoji has both words of a keyword pair.
    """
    for code, each in names.items():
        name = each["label"].lower()
        if (
            code in english
            and re.fullmatch(r"[^\W\d_]+", name)
            and (token := find_token(english[code]["label"].lower(), vocabulary))
        ):
            yield name, token
    both = [(_list_words(each), _list_words(english[code])) for code, each in names.items() if code in english]
    for pair in keywords.split():
        word, token = pair.split("=")
        if not any(word in ours and token in theirs for ours, theirs in both):
            raise SystemExit(f"no emoji has both words of {pair}")
        yield word, token


def _list_words(emoji: Mapping[str, Any]) -> set[str]:
    return {strip_accents(word) for text in (emoji["label"], *emoji.get("tags", ())) for word in re.findall(r"[^\W\d_]+", text)}


def main() -> int:
    """Write the table."""
    package, vocabulary = Path(sys.argv[1]), read_mini_artifacts().vocabulary
    review = parse_toml_text(REVIEW.read_text(encoding="utf-8"))
    corrected, wrong = dict(pair.split("=") for pair in review["corrected"].split()), frozenset(review["wrong"].split())
    english, found = read_names(package, "en"), dict[str, set[str]]()
    for language, keywords in review["keywords"].items():
        for word, token in list_pairs(read_names(package, language), english, keywords, vocabulary):
            found.setdefault(strip_accents(word), set()).add(corrected.get(strip_accents(word), token))
    kept = {
        word: min(tokens)
        for word, tokens in found.items()
        if len(tokens) == 1 and len(word) >= _MIN_LETTERS and word not in wrong and vocabulary.find_word(word) < 0
    }
    header = "# WORD = TOKEN, German, French, Spanish and Italian. Written by scripts/mini_translations.py from Unicode CLDR.\n"
    lines = "".join(f"{word} = {token}\n" for word, token in sorted(kept.items()))
    (mini_words.FOLDER / "translations.txt").write_text(header + lines, encoding="utf-8")
    print(
        f"{len(kept)} words; left out for several meanings: {sorted(word for word, tokens in found.items() if len(tokens) > 1)}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

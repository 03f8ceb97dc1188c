"""The tokens of a text, looked up in a file of `stair-es export --table`. Requires only Python 3.8 or newer.

    python lookup.py stair-mini-3.tsv.gz < texts.txt      a line of tokens and weights for each line

As a module: Table("stair-mini-3.tsv.gz").encode("a red car") == {"car": 0.7, ...}, heaviest first.
"""

import gzip
import math
import re
import sys
import unicodedata


class Table:
    """Words and phrases with their token weights."""

    def __init__(self, path: str) -> None:
        with (gzip.open if path.endswith(".gz") else open)(path, "rt", encoding="utf-8") as file:
            header, _, rows = file.read().partition("\n\n")
        about = dict(line.split("\t") for line in header.split("\n"))
        if about.get("stair-es-table") != "1":
            raise ValueError(f"{path} is no table of version 1: write it with stair-es export --table")
        self.model, self.max_words, self.max_tokens = about["model"], int(about["max_words"]), int(about["max_tokens"])
        self.rows = dict(row.split("\t", 1) for row in rows.rstrip("\n").split("\n"))

    def encode(self, text: str) -> dict:
        """Return {token: weight} of a text; empty if no word of it is known."""
        words, begin, largest = split_words(text), 0, {}
        while begin < len(words):
            ends = range(min(len(words), begin + self.max_words), begin, -1)  # the longest known phrase
            end = next((end for end in ends if " ".join(words[begin:end]) in self.rows), 0)
            if end:
                row = self.rows[" ".join(words[begin:end])].split("\t")
                for token, weight in zip(row[::2], map(int, row[1::2])):  # noqa: B905  new in Python 3.10
                    largest[token] = max(weight, largest.get(token, 0))
            begin = end or begin + 1
        heaviest = sorted(largest.items(), key=lambda pair: (-pair[1], pair[0]))[: self.max_tokens]
        length = math.sqrt(sum(weight * weight for _, weight in heaviest))
        return {token: round(weight / length, 5) for token, weight in heaviest}


def split_words(text: str) -> list:
    """Return the words in lower case without accents, and "." for what ends a phrase (no space, apostrophe or hyphen)."""
    letters = (letter for letter in unicodedata.normalize("NFKD", text) if not unicodedata.category(letter).startswith("M"))
    plain = "".join(letters).lower()
    return re.findall(r"[^\W\d_]+|\.", "".join(each if each.isalpha() or each in " \t\r\n'\u2019-" else "." for each in plain))


if __name__ == "__main__":
    table = Table(sys.argv[1])
    sys.stdin.reconfigure(encoding="utf-8")
    for line in sys.stdin:
        print("\t".join(f"{token}\t{weight:.5f}" for token, weight in table.encode(line).items()))

"""The documentation avoids the phrases that docs/style.md lists.

Vale would be the library for this, but its Python package downloads a binary when it first runs, and proselint takes no rules
of one's own. The table of the style guide is the rules file, so writers and the test read the same.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
from markdown_it import MarkdownIt
from markdown_it.token import Token

ROOT = Path(__file__).parents[2]
STYLE = ROOT / "docs" / "style.md"
WRITTEN_BY_SCRIPTS = {"docs/benchmarks.md", "docs/reference/benchmarks.md", "docs/reference/compatibility.md"}
PAGES = sorted(
    path
    for path in (*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"))
    if path.relative_to(ROOT).as_posix() not in WRITTEN_BY_SCRIPTS and (ROOT / "docs" / "reference") not in path.parents
)
QUOTES = {"Before and after", "Terms"}
"""Sections that name bad words on purpose: of the style guide, and the table of terms in CONTRIBUTING.md."""


@cache
def build_parser() -> MarkdownIt:
    return MarkdownIt("commonmark").enable("table")


def get_inline_text(token: Token) -> str:
    """The text of a paragraph, heading or cell; code and the targets of links are left out."""
    parts = {"code_inline": "CODE", "softbreak": " ", "hardbreak": " "}
    return "".join(parts.get(child.type, child.content if child.type == "text" else "") for child in token.children or ())


def list_passages(markdown: str) -> Iterator[tuple[int, str, str]]:
    """`(line, heading, text)` of each passage outside of code blocks."""
    heading, line, tokens = "", 0, build_parser().parse(markdown)
    for before, token in zip([None, *tokens], tokens, strict=False):
        if token.type != "inline":
            continue
        line = token.map[0] + 1 if token.map else line
        text = get_inline_text(token)
        if before is not None and before.type == "heading_open":
            heading = text
        yield line, heading, text


def compile_phrase(phrase: str) -> re.Pattern[str]:
    words = [r"\d[\d.,]*" if word == "N" else re.escape(word) for word in phrase.split()]
    return re.compile(r"(?<![\w/-])" + r"\s+".join(words) + r"(?![\w-])", re.IGNORECASE)


@cache
def read_rules() -> dict[str, tuple[re.Pattern[str], str]]:
    """Phrase -> its pattern, and what to write, from the table of the style guide."""
    section = STYLE.read_text(encoding="utf-8").split("\n## Phrases to avoid\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split("|") for line in section.splitlines() if line.startswith("| `")]
    return {phrase: (compile_phrase(phrase), good.strip()) for bad, good in rows for phrase in re.findall("`([^`]+)`", bad)}


def find_problems(markdown: str) -> Iterator[str]:
    for line, heading, text in list_passages(markdown):
        if heading not in QUOTES:
            for phrase, (pattern, good) in read_rules().items():
                if pattern.search(text):
                    yield f"line {line}: instead of '{phrase}' write {good}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_page_has_no_phrase_that_the_style_guide_rejects(page: Path) -> None:
    problems = list(find_problems(page.read_text(encoding="utf-8")))
    assert not problems, "\n".join([f"{page.relative_to(ROOT)} (docs/style.md)", *problems])


def test_every_rule_finds_its_own_phrase_in_text_and_not_in_code() -> None:
    assert len(read_rules()) > 15
    for phrase in read_rules():
        sentence = phrase.replace(" N ", " 8.15 ")
        page, code_block = f"# A page\n\nThen {sentence}\nit.", f"# A page\n\n```text\n{sentence}\n```\n"
        assert any(f"'{phrase}'" in problem for problem in find_problems(page)), phrase
        assert not list(find_problems(code_block)), phrase


@pytest.mark.parametrize(
    ("markdown", "has_problems"),
    [
        ("| a | b |\n|---|---|\n| c | goes\xa0on from there, besides |\n", True),
        ("Run `beside` at <https://host.example/anew>, or [this](mend.md), and 99 % from the north on.", False),
    ],
    ids=["in a table", "in code and addresses"],
)
def test_tables_are_read_and_code_is_not(markdown: str, has_problems: bool) -> None:
    assert bool(list(find_problems(markdown))) == has_problems

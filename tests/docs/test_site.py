"""The site of the documentation: built with warnings as errors, complete, and of nobody else's files."""

from __future__ import annotations

import inspect
import json
import posixpath
import re
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from html.parser import HTMLParser
from itertools import takewhile
from pathlib import Path
from typing import Any, get_args
from urllib.parse import unquote, urlsplit

import figures
import generated
import pytest
import typer
from support.markdown import read_table_rows

from stair_es import resources
from stair_es.cli.main import app
from stair_es.cluster.documents.document import LABEL_FIELDS, RESERVED_FIELDS

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILT_MESSAGES = {"`the query is empty`"}
"""Common messages that the code puts together of two parts."""
OF_SPHINX = {"genindex.html", "py-modindex.html", "search.html"}
"""Pages that Sphinx adds by itself: they needn't be linked."""
BUILDS = pytest.mark.nightly("builds the site, as the workflow docs does for each change")
FETCHED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "srcset", "object": "data", "form": "action"}
"""What a browser fetches, or sends to, without a click."""


class Page(HTMLParser):
    """What of a page matters here."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.links: list[str] = []
        self.fetched: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        if FETCHED.get(tag) in given:
            self.fetched.append(given[FETCHED[tag]])


def build_site(docs: Path, out: Path, *arguments: str) -> None:
    """Builds a site; every warning is an error."""
    command: list[str | Path] = [sys.executable, "-m", "sphinx", "-E", "-W", "--keep-going", "-q", "-b", "html", *arguments]
    done = subprocess.run([*command, docs, out], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def site_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site."""
    place = tmp_path_factory.mktemp("site")
    build_site(DOCS, place / "html", "-d", str(place / "doctrees"))
    return place / "html"


@pytest.fixture(scope="module")
def site_pages(site_folder: Path) -> dict[str, Page]:
    """Its pages, by name."""
    return {path.relative_to(site_folder).as_posix(): Page(path.read_text()) for path in site_folder.rglob("*.html")}


def list_commands(group: typer.Typer, path: str) -> Iterator[tuple[str, Any]]:
    """`(path, function)` of each command, as they were registered."""
    for command in group.registered_commands:
        assert command.callback is not None
        yield f"{path} {command.name or command.callback.__name__.replace('_', '-')}", command.callback
    for child in group.registered_groups:
        assert child.typer_instance is not None
        yield from list_commands(child.typer_instance, f"{path} {child.name}")


@BUILDS
def test_the_reference_has_every_command_option_and_variable(site_pages: dict[str, Page], site_folder: Path) -> None:
    text = (site_folder / "reference" / "cli.html").read_text()
    ids, found = site_pages["reference/cli.html"].ids, 0
    for path, function in list_commands(app, "stair-es"):
        name = path.replace(" ", "-")
        assert name in ids, path
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            for option in (each for each in get_args(parameter.annotation) if isinstance(each, typer.models.OptionInfo)):
                if option.hidden:
                    continue
                names = {each for given in (option.default, *(option.param_decls or ())) for each in str(given).split("/")}
                flags = {each.strip() for each in names if each.strip().startswith("-")}
                assert flags, (path, parameter.name)
                assert {f"cmdoption-{name}-{flag.lstrip('-')}" for flag in flags} <= ids, (path, flags)
                found += 1
                if option.envvar:
                    assert str(option.envvar) in text
    assert found > 200


@BUILDS
def test_every_page_is_reachable_and_no_link_is_dead(site_pages: dict[str, Page], site_folder: Path) -> None:
    reached, todo = {"index.html"}, deque(["index.html"])
    while todo:
        name = todo.popleft()
        for link in site_pages[name].links:
            target, place = resolve_link(name, link)
            if target is None:
                continue
            assert (site_folder / target).is_file(), f"{name}: {link}"
            if place:
                assert place in site_pages[target].ids, f"{name}: {link}"
            if target in site_pages and target not in reached:
                reached.add(target)
                todo.append(target)
    assert set(site_pages) - reached <= OF_SPHINX
    sources = {path.relative_to(DOCS).with_suffix(".html").as_posix() for path in DOCS.rglob("*.md")}
    assert len(reached - OF_SPHINX) == len(sources)


def resolve_link(page: str, link: str) -> tuple[str | None, str]:
    """The file that a link leads to, from the top of the site; None for an address elsewhere."""
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return None, ""
    path = (Path("/") / Path(page).parent / unquote(parts.path)).as_posix() if parts.path else f"/{page}"
    return posixpath.normpath(path).lstrip("/"), unquote(parts.fragment)


@BUILDS
def test_pages_load_no_remote_files(site_pages: dict[str, Page], site_folder: Path) -> None:
    for name, page in site_pages.items():
        for address in page.fetched:
            assert resolve_link(name, address)[0] or address.startswith("data:"), f"{name}: {address}"
    for path in site_folder.rglob("*.css"):
        assert not re.search(r"@import|url\(\s*['\"]?(?:https?:)?//", path.read_text()), path
    for path in site_folder.rglob("*.svg"):
        assert not re.search(r'(?:href|src)="(?!data:|#)', path.read_text()), path


@BUILDS
def test_links_out_of_the_docs_lead_into_the_repository(tmp_path: Path) -> None:
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "README.md").write_text("# About\n")
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "a.py").write_text("")
    (docs / "index.md").write_text("# A\n\n[about](../README.md#about), [code](../code), [file](../code/a.py), [all](more)\n")
    (docs / "more").mkdir()
    (docs / "more" / "index.md").write_text("---\norphan: true\n---\n\n# More\n")
    extensions = str(ROOT / "docs" / "_ext")
    (docs / "conf.py").write_text(f"import sys\nsys.path.insert(0, {extensions!r})\nextensions = ['myst_parser', 'links']\n")
    build_site(docs, tmp_path / "with", "-D", "repository=https://example.org/stair-es")
    links = Page((tmp_path / "with" / "index.html").read_text()).links
    expected = ["blob/main/README.md#about", "tree/main/code", "blob/main/code/a.py"]
    assert {"more/index.html", *(f"https://example.org/stair-es/{path}" for path in expected)} <= set(links)
    build_site(docs, tmp_path / "without")
    assert not [link for link in Page((tmp_path / "without" / "index.html").read_text()).links if "code" in link]


def read_rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table below a header row."""
    lines = (DOCS / page).read_text().partition(f"\n{heading}\n")[2].splitlines()
    return read_table_rows("\n".join(takewhile(lambda line: line.startswith("|"), lines)))[1:]


def test_the_document_has_the_fields_and_types_of_the_mapping() -> None:
    layers = [resources.load_json_resource("mappings", name)["mappings"]["properties"] for name in ("image", "impacts")]
    body = {name: field for layer in (*layers, LABEL_FIELDS) for name, field in layer.items()}
    table = {name.strip("`"): kind.strip("`") for name, kind, _ in read_rows("reference/document.md", "| field | type | for |")}
    assert table == {name: field["type"] for name, field in body.items()}
    assert table.keys() - {"caption", "text", "text_boxes"} == RESERVED_FIELDS


def test_messages_match_the_code() -> None:
    folders = (ROOT / "stair_es", ROOT / "cli")
    code = "\n".join(path.read_text() for folder in folders for path in folder.rglob("*.py"))
    for message, _ in read_rows("reference/errors.md", "| message | why, and what to do |"):
        if message.startswith("`"):
            for piece in re.split(r"\.\.\.|HTTP \d+", message.strip("`")):
                assert piece.strip(" ():,") in code or message in BUILT_MESSAGES, message


def test_the_picture_of_the_layers_is_up_to_date() -> None:
    drawn = (DOCS / "images" / "layers.svg").read_text()
    assert drawn == figures.draw_layers(), "run: python docs/_ext/figures.py layers"


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("cli", "reference/cli.md"),
        ("errors", "reference/errors.md"),
        ("packages", "architecture.md"),
        ("encoder-api", "reference/encoder-api.md"),
    ],
)
def test_generated_docs_are_up_to_date(name: str, path: str) -> None:
    page = (DOCS / path).read_text()
    assert len(page) > 2000
    assert f"<!-- end: {name} -->" in page
    assert page == generated.fill_in(page), "run: python docs/_ext/generated.py"


def test_every_json_body_is_shown() -> None:
    page = (DOCS / "reference" / "mappings.md").read_text()
    for path in (*ROOT.glob("mappings/*.json"), *ROOT.glob("pipelines/*.json")):
        json.loads(path.read_text())
        assert f"../../{path.relative_to(ROOT).as_posix()}" in page

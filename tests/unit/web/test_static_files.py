"""The page and its files, as they are served."""

import re
import shutil
from pathlib import Path

import pytest

from stair_es.web.routes import _DOC_COMMENTS, STATIC_DIR, PageFiles, load_page_files


@pytest.fixture(scope="module")
def page_files() -> PageFiles:
    return load_page_files("/images")


def test_the_page_names_its_root(page_files: PageFiles) -> None:
    assert b'<base href="/images/">' in page_files.page.data
    assert b'<base href="/">' in load_page_files().page.data


def test_the_page_asks_for_files_of_this_version_only(page_files: PageFiles) -> None:
    addresses = re.findall(r'(?:src|href)="(static/[^"]+)"', page_files.page.data.decode())
    assert len(addresses) > 20
    for address in addresses:
        file, is_immutable = page_files.find(address.removeprefix("static/"))
        assert file is not None, address
        assert is_immutable, address


def test_every_module_is_preloaded_or_loaded_by_the_page(page_files: PageFiles) -> None:
    named = set(re.findall(rf"static/{page_files.version}/([\w-]+\.js)", page_files.page.data.decode()))
    assert named == {path.name for path in STATIC_DIR.glob("*.js")}


def test_no_file_of_the_page_has_an_absolute_address() -> None:
    for path in STATIC_DIR.iterdir():
        text = path.read_text(encoding="utf-8").replace('<base href="/">', "")
        assert not re.search(r"""(?:(?:src|href|action)=|url\(|fetch\(|from )["'`]?/(?![/*])""", text), path.name
        assert not re.search(r"""["'`]/(?:api|static|thumb|original)\b""", text), path.name


def test_modules_are_sent_without_doc_comments(page_files: PageFiles) -> None:
    for path in STATIC_DIR.glob("*.js"):
        source, sent = path.read_text(encoding="utf-8"), page_files.files[path.name].data.decode()
        assert "/**" not in sent, path.name
        assert len(sent.splitlines()) == len(source.splitlines()), path.name
    assert "types.d.ts" not in page_files.files


@pytest.mark.parametrize("path", sorted(STATIC_DIR.glob("*.js")), ids=lambda path: path.name)
def test_doc_comments_are_outside_of_strings_and_comments(path: Path) -> None:
    source = path.read_bytes()
    for match in _DOC_COMMENTS.finditer(source):
        line_start = source[source.rfind(b"\n", 0, match.start()) + 1 : match.start()]
        assert not match[0].startswith(b"/**/"), line_start
        assert b"//" not in line_start, line_start
        assert [line_start.count(quote) % 2 for quote in (b"'", b'"', b"`")] == [0, 0, 0], line_start


def test_a_file_without_its_version_or_of_another_may_change(page_files: PageFiles) -> None:
    current, _ = page_files.find(f"{page_files.version}/api.js")
    assert page_files.find("api.js") == (current, False)
    assert page_files.find("000000000000/api.js") == (None, False)
    assert page_files.find(f"{page_files.version}/index.html") == (None, True)


def test_the_version_is_the_content(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, page_files: PageFiles) -> None:
    copy = shutil.copytree(STATIC_DIR, tmp_path / "static")
    monkeypatch.setattr("stair_es.web.routes.STATIC_DIR", copy)
    assert load_page_files().version == page_files.version
    (copy / "api.js").write_text("// changed")
    assert load_page_files().version != page_files.version

"""`stair-es forget` without a cluster: what names an image, and what a receipt says of other places."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.commands import CommandRunner
from support.errors import expect_error

from stair_es.cli.commands.ingest.forget import MAX_REFERENCE_BYTES, list_unreached, resolve_reference
from stair_es.errors import OptionConflict, UsageError

ID = "8738a1008650a89a53e3cfea92a9d334"


@pytest.mark.parametrize(
    ("reference", "uri"),
    [
        ("a b.jpg", "{folder}/a%20b.jpg"),
        ("gone/c.jpg", "{folder}/gone/c.jpg"),
        ("x#page=2", "{folder}/x%23page%3D2"),  # a file of this name
        ("scan.pdf#page=2", "{folder}/scan.pdf#page=2"),
        ("table.csv#row=12", "{folder}/table.csv#row=12"),
        ("/tmp/../a.jpg", "file:///a.jpg"),
        ("file:///tmp/../a b.jpg", "file:///a%20b.jpg"),
        ("s3://bucket/a#b.jpg", "s3://bucket/a#b.jpg"),
        ("https://x.test/a.jpg?size=2#page=1", "https://x.test/a.jpg?size=2#page=1"),
        ("stdin:#line=3", "stdin:#line=3"),
    ],
)
def test_a_path_becomes_the_uri_that_an_ingest_gives_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reference: str, uri: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x#page=2").touch()
    assert resolve_reference(reference) == uri.format(folder=tmp_path.as_uri())


@pytest.mark.parametrize(
    ("reference", "code"),
    [
        (ID, "id-instead-of-uri"),
        ("\ud800.jpg", "invalid-image-reference"),
        ("a\0.jpg", "invalid-image-reference"),
        ("s3://" + "x" * MAX_REFERENCE_BYTES, "invalid-image-reference"),
    ],
    ids=["id", "surrogate", "nul", "long"],
)
def test_what_names_no_image_is_rejected(reference: str, code: str) -> None:
    with expect_error(code, UsageError):
        resolve_reference(reference)


@pytest.mark.parametrize("line", [b"\xff.jpg", b"x" * (MAX_REFERENCE_BYTES + 1)], ids=["not UTF-8", "long"])
def test_a_list_with_a_bad_line_is_rejected_as_a_whole(tmp_path: Path, line: bytes) -> None:
    (path := tmp_path / "uris.txt").write_bytes(b"a.jpg\n" + line + b"\n")
    error = CommandRunner({}).read_error("forget", "--from-file", path)
    assert (error.code, "2" in error.message) == ("invalid-image-reference", True)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ((), "images-or-again"),
        (("a.jpg", "--again"), "images-or-again"),
        (("a.jpg", "--undo", "--dry-run"), OptionConflict("").code),
        (("--again", "--same-content"), OptionConflict("").code),
    ],
)
def test_options_that_exclude_each_other(arguments: tuple[str, ...], code: str) -> None:
    assert CommandRunner({}).read_error("forget", *arguments).code == code


@pytest.mark.parametrize(
    ("repositories", "expected"), [(["nightly", "weekly"], "nightly, weekly"), ([], "no repository"), (None, "may not read")]
)
def test_a_receipt_names_the_repositories(repositories: list[str] | None, expected: str) -> None:
    snapshots, segments, *others = list_unreached(repositories, ["a", "b"])
    assert expected in snapshots["detail"]
    assert "POST /a,b/_forcemerge" in segments["remedy"]
    assert all(place["remedy"] for place in others)

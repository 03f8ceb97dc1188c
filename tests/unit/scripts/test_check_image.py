"""The check of the image, without building one."""

from __future__ import annotations

import os

import check_image
import pytest


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("WARNING: Retrying (Retry(total=4)) after connection broken by 'NewConnectionError(...)': /simple/numpy/", True),
        ("Err:1 http://deb.debian.org/debian bookworm InRelease: Temporary failure resolving 'deb.debian.org'", True),
        ("pip._vendor.urllib3.exceptions.ReadTimeoutError: HTTPSConnectionPool: Read timed out.", True),
        ("ERROR: Could not find a version that satisfies the requirement numpy>=99", False),
        ("ERROR: THESE PACKAGES DO NOT MATCH THE HASHES FROM THE REQUIREMENTS FILE.", False),
        ("COPY failed: deploy/image/text-network.txt: no such file or directory", False),
    ],
)
def test_only_a_registry_out_of_reach_is_a_reason_to_skip(line: str, expected: bool) -> None:
    assert bool(check_image.FETCH_FAILED.search(line)) == expected


def test_skipping_fails_only_where_the_check_is_required(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert check_image.main([]) == 0
    assert "skipped" in capsys.readouterr().err
    assert check_image.main(["--required"]) == 1
    assert "failed" in capsys.readouterr().err

"""A session on this machine that can't begin says why, before Ray is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from stair_es.errors import IngestError
from stair_es.system import ray_session


@pytest.mark.parametrize("address", [None, "local"])
@pytest.mark.parametrize(
    ("folder", "said"), [("absent", "No such file or directory"), ("f" * 30, r"RAY_TMPDIR has \d+ characters")]
)
def test_a_folder_that_can_t_be_had_is_named(
    address: str | None, folder: str, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with (
        pytest.raises(IngestError, match=said),
        ray_session.open_ray_session("ray", address, error=IngestError, instead="Use --runner local"),
    ):
        pass

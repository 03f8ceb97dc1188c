"""Sessions that can't start fail before Ray does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stair_es.errors import IngestError
from stair_es.system import ray_session


@pytest.mark.parametrize("address", [None, "local"])
@pytest.mark.parametrize(("folder", "fact"), [("absent", "absent"), ("f" * 30, r"RAY_TMPDIR has \d+")], ids=["absent", "long"])
def test_an_unusable_folder_is_named(
    address: str | None, folder: str, fact: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_TMPDIR", folder)
    with (
        pytest.raises(IngestError, match=fact),
        ray_session.open_ray_session("ray", address, error_type=IngestError, alternative="Use --runner local"),
    ):
        pass


def test_variables_for_ray_are_set_for_as_long_as_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_A", "the user's")
    monkeypatch.delenv("RAY_B", raising=False)
    with ray_session.set_missing_variables({"RAY_A": "0", "RAY_B": "0"}):
        assert (os.environ["RAY_A"], os.environ["RAY_B"]) == ("the user's", "0")
    assert (os.environ["RAY_A"], os.environ.get("RAY_B")) == ("the user's", None)

"""Sessions that can't start fail before Ray does."""

from __future__ import annotations

import os
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.errors import expect_error

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


TIMED_OUT = "The current node timed out during startup."


class SlowRay:
    """A Ray whose first starts exceed its time."""

    def __init__(self, failures: list[str]) -> None:
        self._failures = failures
        self.calls = list[str]()

    def init(self, **options: object) -> None:
        self.calls.append("init")
        if self._failures:
            raise RuntimeError(self._failures.pop(0))

    def shutdown(self) -> None:
        self.calls.append("shutdown")

    def is_initialized(self) -> bool:
        return False


@pytest.mark.parametrize(
    ("failures", "starts", "is_error"),
    [([], 1, False), ([TIMED_OUT], 2, False), (["no such option"], 1, True), ([TIMED_OUT, TIMED_OUT], 2, True)],
)
def test_a_slow_start_is_tried_twice(failures: list[str], starts: int, is_error: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    ray = SlowRay(failures)
    monkeypatch.setattr(ray_session, "import_optional", lambda *_: ray)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with (
        expect_error("ray-not-started", IngestError) if is_error else nullcontext(),
        ray_session.open_ray_session("ray", None, error_type=IngestError, alternative="Use --runner local") as opened,
    ):
        assert opened is ray
    assert ray.calls.count("init") == starts

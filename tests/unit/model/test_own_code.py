"""Consent for the Python code of models: asked once for each version, and remembered."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.errors import expect_error

from stair_es.config.defaults import ENV_HOME, ENV_TRUST_REMOTE_CODE
from stair_es.config.settings import Settings
from stair_es.model.own_code import OwnCode, ask_with, check_consent, hash_python_files

COMMIT, LATER = "0123456789abcdef0123456789abcdef01234567", "89abcdef0123456789abcdef0123456789abcdef"
CODE = OwnCode(name="org/name", revision=COMMIT, place=f"https://hub/org/name/tree/{COMMIT}", references=("modeling.Net",))


def build_settings(home: Path, trusted: str = "") -> Settings:
    return Settings.from_env({ENV_HOME: str(home), ENV_TRUST_REMOTE_CODE: trusted})


@pytest.mark.parametrize(
    ("trusted", "is_trusted"),
    [
        *(
            (value, False)
            for value in ("", "1", "*", "org/name", "org/name@", f"org/other@{COMMIT}", f"org/name@{LATER}", COMMIT)
        ),
        *((value, True) for value in (CODE.key, f"org/other@{LATER}, {CODE.key}")),
    ],
)
def test_a_version_is_trusted_by_name_and_commit(tmp_path: Path, trusted: str, is_trusted: bool) -> None:
    settings = build_settings(tmp_path / "home", trusted)
    if is_trusted:
        assert check_consent(CODE, settings) == settings
    else:
        with expect_error("remote-code-not-trusted") as caught:
            check_consent(CODE, settings)
        assert "modeling.Net" in caught.value.message
        assert f"{ENV_TRUST_REMOTE_CODE}={CODE.key}" in caught.value.remedy
        assert CODE.place in caught.value.remedy
    assert not (tmp_path / "home").exists()


def test_an_answer_is_remembered_for_its_commit(tmp_path: Path) -> None:
    settings, later, asked = build_settings(tmp_path / "home"), replace(CODE, revision=LATER), list[OwnCode]()

    def agree_to_first(code: OwnCode) -> bool:
        asked.append(code)
        return code == CODE

    with ask_with(agree_to_first):
        assert check_consent(CODE, settings).trusted_code == {CODE.key}
        assert check_consent(CODE, settings).trusted_code == {CODE.key}
        for _ in range(2):  # a no isn't remembered
            with expect_error("remote-code-not-trusted"):
                check_consent(later, settings)
    assert asked == [CODE, later, later]
    assert check_consent(CODE, settings).trusted_code == {CODE.key}
    with expect_error("remote-code-not-trusted"):
        check_consent(CODE, build_settings(tmp_path / "other home"))


def test_settings_carry_the_consent_to_other_machines(tmp_path: Path) -> None:
    with ask_with(lambda _: True):
        settings = check_consent(CODE, build_settings(tmp_path / "home"))
    check_consent(CODE, replace(settings, home=build_settings(tmp_path / "of a worker").home))


def test_nobody_is_asked_within_a_context_that_forbids_it(tmp_path: Path) -> None:
    with ask_with(lambda _: True), ask_with(None), expect_error("remote-code-not-trusted"):
        check_consent(CODE, build_settings(tmp_path))


def test_an_answer_that_cannot_be_remembered_holds_once(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("a file")
    settings = build_settings(tmp_path / "home")
    with ask_with(lambda _: True):
        assert check_consent(CODE, settings).trusted_code == {CODE.key}
    with expect_error("remote-code-not-trusted"):
        check_consent(CODE, settings)


def test_code_of_another_repository_has_no_commit_to_trust(tmp_path: Path) -> None:
    code = replace(CODE, references=("modeling.Net", "org/other--modeling.Net"))
    with ask_with(lambda _: True), expect_error("remote-code-elsewhere") as caught:
        check_consent(code, build_settings(tmp_path, code.key))
    assert "org/other--modeling.Net" in caught.value.message


def test_the_version_of_a_folder_is_that_of_its_code(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner" / "a.py").write_text("a = 1")
    hashes = [hash_python_files(tmp_path)]
    (tmp_path / "config.json").write_text("{}")
    assert hash_python_files(tmp_path) == hashes[0]
    (tmp_path / "inner" / "a.py").write_text("a = 2")
    hashes.append(hash_python_files(tmp_path))
    (tmp_path / "inner" / "a.py").rename(tmp_path / "a.py")
    hashes.append(hash_python_files(tmp_path))
    assert len(set(hashes)) == 3

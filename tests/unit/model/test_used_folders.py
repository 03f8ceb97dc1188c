"""Models that an index may load: those that the user of this machine has used."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.errors import expect_error

from stair_es.config.defaults import DEFAULT_MODEL, DataDir
from stair_es.config.settings import Settings
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.used_folders import is_used_model_folder, record_model_folder
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_encoder import load_query_encoder
from stair_es.search.index_info import IndexInfo


@pytest.fixture(autouse=True)
def stair_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder that doesn't exist yet; the cache of the hub is empty, too."""
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


@pytest.fixture
def planted_folder(tmp_path: Path) -> Path:
    """A checkpoint of an unknown format: an error says so if it was read."""
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "config.json").write_text('{"model_type": "planted-type"}')
    return tmp_path / "planted"


def load_model_of_index(name: str, settings: Settings | None = None) -> None:
    info = IndexInfo(fields={"i-1": IndexFields(tokens="rank_features")}, model="m-1", model_name=name)
    load_query_encoder(info, "i", settings=settings)


def assert_folder_is_read(folder: Path, settings: Settings | None = None) -> None:
    with expect_error("checkpoint-error") as caught:
        load_model_of_index(str(folder), settings)
    assert "planted-type" in caught.value.message


def test_unused_folders_are_not_opened(planted_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a look at a share sends a login to whoever has it."""
    visited: list[Path] = []

    def record_visit(path: Path) -> bool:
        visited.append(path)
        return False

    monkeypatch.setattr(Path, "is_dir", record_visit)
    absent = planted_folder / "absent"
    for name in (str(planted_folder), str(absent), "\\\\evil.example\\share\\m", "../planted", "~/planted", "planted"):
        with expect_error("query-model-not-fetched"):
            load_model_of_index(name)
    assert visited == []


def test_local_folders_do_not_shadow_repositories(planted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    planted_folder.rename(tmp_path / "org" / "tiny")
    with expect_error("query-model-not-fetched") as caught:
        load_model_of_index("org/tiny")
    assert "--model org/tiny" in caught.value.remedy


def test_a_folder_that_an_ingest_used_is_read(planted_folder: Path, stair_home: Path) -> None:
    record_model_folder(str(planted_folder), DataDir(stair_home))
    assert_folder_is_read(planted_folder)


def test_the_home_of_the_settings_overrides_the_environment(planted_folder: Path, tmp_path: Path) -> None:
    settings = Settings(home=DataDir(tmp_path / "other"))
    record_model_folder(str(planted_folder), settings.home)
    with expect_error("query-model-not-fetched"):
        load_model_of_index(str(planted_folder))
    assert_folder_is_read(planted_folder, settings)


def test_entry_point_is_used(stair_home: Path) -> None:
    assert registry.load_local_encoder(ModelSpec(name=DEFAULT_MODEL)).model_id.startswith(DEFAULT_MODEL)
    assert not stair_home.exists()


def test_folders_are_remembered_once_and_the_oldest_forgotten(tmp_path: Path, stair_home: Path) -> None:
    folders = [tmp_path / f"m{number}" for number in range(203)]
    for folder in folders:
        folder.mkdir()
        record_model_folder(str(folder), DataDir(stair_home))
    record_model_folder(str(folders[-2]), DataDir(stair_home))
    assert not any(is_used_model_folder(str(folder), DataDir(stair_home)) for folder in folders[:3])
    assert all(is_used_model_folder(str(folder), DataDir(stair_home)) for folder in folders[3:])
    assert {path.name for path in stair_home.iterdir()} == {"model-folders.json", "model-folders.json.lock"}


def test_only_folders_are_recorded(tmp_path: Path, stair_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    for name in (DEFAULT_MODEL, "org/tiny", "m", "./m", str(tmp_path / "absent")):
        record_model_folder(name, DataDir(stair_home))
    assert not stair_home.exists()


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "[1, null]"])
def test_a_broken_list_is_empty_and_is_rewritten(tmp_path: Path, stair_home: Path, text: str) -> None:
    stair_home.mkdir()
    (stair_home / "model-folders.json").write_text(text)
    assert not is_used_model_folder(str(tmp_path), DataDir(stair_home))
    record_model_folder(str(tmp_path), DataDir(stair_home))
    assert is_used_model_folder(str(tmp_path), DataDir(stair_home))


def test_an_unwritable_home_is_ignored(tmp_path: Path, stair_home: Path) -> None:
    stair_home.write_text("a file")
    record_model_folder(str(tmp_path), DataDir(stair_home))
    assert not is_used_model_folder(str(tmp_path), DataDir(stair_home))

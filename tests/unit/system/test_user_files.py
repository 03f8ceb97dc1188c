"""Files that are meant to take all memory or time of their readers, or to end them with a traceback."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from stair_es.cli.options.config_file import read_config_file
from stair_es.config.policy_file import load_policy
from stair_es.distill.labels import read_word_file
from stair_es.embedded_node.state import read_node_state
from stair_es.errors import StairError
from stair_es.eval.datasets.detect import read_entries
from stair_es.eval.datasets.image_folder import read_image_folder
from stair_es.ingest.accounting.dead_letters import KIND, read_alias
from stair_es.model.adapters.sparse_encoder import SparseEncoderCheckpoint, find_remote_code
from stair_es.model.checkpoint import read_json_object
from stair_es.model.stair.configuration import read_stair_config
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.resources import load_json_resource
from stair_es.sources.base import SourceOptions
from stair_es.system import user_files
from stair_es.system.user_files import parse_json, parse_toml_text, read_json_file, read_text_file
from stair_es.training.config.train_config import read_train_config

Write = Callable[[Path], object]

SPECIAL_FILES: dict[str, Write] = {
    "device": lambda path: path.symlink_to("/dev/zero"),
    "pipe": lambda path: os.mkfifo(path),
    "folder": Path.mkdir,
}
TEXTS = {
    "lists": "[" * 100_000,
    "objects": '{"a":' * 100_000,
    "closed": "[" * 500 + "]" * 500,
    "digits": '{"a": ' + "1" * 5000 + "}",
}


def _build_writer(text: str) -> Write:
    return lambda path: path.write_text(text)


FILES: dict[str, Write] = {**SPECIAL_FILES, **{name: _build_writer(text) for name, text in TEXTS.items()}}

TOML = {
    "lists": "a = " + "[" * 100_000,
    "objects": "a = " + "{b = " * 100_000,
    "digits": "a = " + "1" * 5000,
    "header": "[" + ".".join("a" * 100_000) + "]",
    "spaces": "[" + " . ".join("a" * 100_000) + "]",
    "quoted": '["#"' + ".a" * 100_000 + "]",
    "key": ".".join("a" * 100_000) + " = 1",
    "inline": "a = {" + "b." * 100_000 + "c = 1}",
    "equals": ".".join(['"="'] * 100_000) + " = 1",
    "tables": "[a" + "]\n[a".join(".a" * number for number in range(100)) + "]\nb = " + "[" * 50 + "]" * 50,
    "open": '"""' + '\\"""' * 200_000,
    "size": "a = '" + "x" * (1 << 20) + "'",
}
MAX_CPU_S = 20


def _read_class_names(path: Path) -> object:
    for name in ("a", "b"):
        folder = path.parent / "images" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "x.png").touch()
    return read_image_folder(path.parent / "images", classes=path)


def _open_modules(path: Path) -> object:
    (path.parent / "config_sentence_transformers.json").write_text('{"model_type": "SparseEncoder"}')
    return SparseEncoderCheckpoint(path.parent, "x", None)


def open_dead_letters(path: Path) -> object:
    read_alias(path)
    return KIND.open(str(path), SourceOptions())


READERS: dict[str, Callable[[Path], object]] = {
    "policy.json": load_policy,
    "mapping.json": lambda path: load_json_resource("mappings", "image", path),
    "preprocessor_config.json": read_json_object,
    "modules.json": _open_modules,
    "config.json": lambda path: read_stair_config(path.parent),
    "words.json": WholeWordVocabulary.from_file,
    "captions.json": read_entries,
    "classes.json": _read_class_names,
    "failed.jsonl": open_dead_letters,
}


def _check_quickly(read: Callable[[], object]) -> None:
    start = time.process_time()
    with pytest.raises(StairError):
        read()
    assert time.process_time() - start < MAX_CPU_S


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("name", READERS)
def test_a_hostile_json_file_is_rejected(tmp_path: Path, name: str, file: str) -> None:
    FILES[file](tmp_path / name)
    _check_quickly(lambda: READERS[name](tmp_path / name))


@pytest.mark.parametrize("file", SPECIAL_FILES)
@pytest.mark.parametrize("read", [read_config_file, read_train_config, read_word_file, _read_class_names])
def test_a_text_is_read_from_a_file_only(tmp_path: Path, read: Callable[[Path], object], file: str) -> None:
    SPECIAL_FILES[file](tmp_path / "x.txt")
    _check_quickly(lambda: read(tmp_path / "x.txt"))


@pytest.mark.parametrize("text", TOML.values(), ids=list(TOML))
@pytest.mark.parametrize("read", [read_config_file, read_train_config])
def test_a_hostile_toml_file_is_rejected(tmp_path: Path, read: Callable[[Path], object], text: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    _check_quickly(lambda: read(tmp_path / "x.toml"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1 # " + "." * 200, 1),
        ('"' + "." * 200 + '"', "." * 200),
        ('"""' + ".\n" * 200 + '"""', ".\n" * 200),
        ("""'''""" + "." * 200 + """'''""", "." * 200),
        (str(["10.0.0.1"] * 40), ["10.0.0.1"] * 40),
        (str([0.5] * 200), [0.5] * 200),
    ],
)
def test_dots_in_values_of_toml_are_no_names(text: str, value: object) -> None:
    assert parse_toml_text(f"a.b = {text}") == {"a": {"b": value}}


@pytest.mark.parametrize("file", FILES)
def test_a_hostile_state_file_counts_as_none(tmp_path: Path, file: str) -> None:
    FILES[file](tmp_path / "state.json")
    if file in SPECIAL_FILES:
        _check_quickly(lambda: read_node_state(tmp_path / "state.json"))
    else:
        assert read_node_state(tmp_path / "state.json") is None


def test_json_has_a_depth_a_size_and_a_number_of_values(tmp_path: Path) -> None:
    deepest = "[" * user_files.MAX_DEPTH + "]" * user_files.MAX_DEPTH
    assert parse_json(deepest)
    with pytest.raises(ValueError, match="levels deep"):
        parse_json(f"[{deepest}]")
    path = tmp_path / "x.json"
    path.write_text("[" + ",".join("1" * 50) + "]")
    assert read_json_file(path, 500) == [1] * 50
    with pytest.raises(ValueError, match="100 bytes"):
        read_json_file(path, 100)
    with pytest.raises(ValueError, match="49 values"):
        read_json_file(path, 399)


def test_a_text_has_no_mark_and_plain_line_ends(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_bytes("\ufeffa\r\nb\rc\n".encode())
    assert read_text_file(tmp_path / "x.txt") == "a\nb\nc\n"


def test_a_duplicate_key_of_many_is_found_quickly(tmp_path: Path) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps({f"k{i}": 1 for i in range(100_000)})[:-1] + ', "k99999": 2}')
    _check_quickly(lambda: load_policy(path))


@pytest.mark.parametrize("file", [*TEXTS, "pipe", "large", "broken", "plain"])
def test_what_cannot_be_looked_into_counts_as_code(tmp_path: Path, file: str) -> None:
    texts = {"broken": "{", "plain": '{"a": 1}', "large": '{"a": 1' + " " * user_files.MAX_TEXT_BYTES + "}"}
    write = FILES.get(file) or _build_writer(texts[file])
    write(tmp_path / "router_config.json")
    assert bool(find_remote_code(tmp_path, [])) == (file not in ("broken", "plain"))

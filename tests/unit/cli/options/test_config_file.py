"""The configuration file: precedence, errors, and JSON on stderr."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from pathlib import Path
from typing import Any

import pytest
from support.commands import CommandRunner

from stair_es.cli.options import config_file
from stair_es.cli.options.config_file import CliConfig, ConfigValue, OptionKey
from stair_es.cli.options.search import EncoderArguments
from stair_es.cli.output.console import set_log_format
from stair_es.errors import StairError
from stair_es.search import index_encoder

SCRIPT = Path(sys.executable).parent / "stair-es"
CONFIG = """
index = "top"
model = "stair-mini"
user = "tom"
password_file = "top.txt"

[search]
k = 7
url = "http://elsewhere:9200"
ca_fingerprint = "{}"

[profiles.prod]
url = "https://search.example:9200"
index = "prod"
api_key_file = "key.txt"
ca_file = "~/ca.pem"

[profiles.prod.search]
index = "prod-search"
weights = "query"

[profiles.second]
ca_fingerprint = "{}"
""".format("b" * 64, "a" * 64)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in [name for name in os.environ if name.startswith("STAIR_ES_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def write_config(folder: Path, text: str) -> Path:
    path = folder / "stair-es.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def _show_config(path: Path, *before: str, **environ: str) -> dict[str, tuple[Any, str]]:
    rows = CommandRunner({}, "--config", str(path)).read_json(*before, "config", "show", **environ)["values"]
    return {row["key"]: (row["value"], row["origin"]) for row in rows}


def read_config_error(folder: Path, text: str, *before: str) -> StairError:
    return CommandRunner({}, "--config", str(write_config(folder, text))).read_error(*before, "config", "show")


def test_profile_and_environment_override_the_top_level(tmp_path: Path) -> None:
    path = write_config(tmp_path, CONFIG)
    (tmp_path / "top.txt").touch()
    top = _show_config(path)
    assert top["index"] == ("top", str(path))
    assert top["password_file"] == (str(tmp_path / "top.txt"), str(path)), "from where the file is"
    prod = _show_config(path, "--profile", "prod")
    assert prod["index"] == ("prod", "profile prod")
    assert prod["ca_file"] == (str(Path.home() / "ca.pem"), "profile prod")
    assert prod["search.index"] == ("prod-search", "profile prod")
    assert prod["search.k"] == (7, str(path))
    assert top["search.url"] == ("http://elsewhere:9200", str(path))
    assert not {"search.url", "search.ca_fingerprint"} & set(prod), "the profile says where all commands go, and whom they trust"
    assert _show_config(path, STAIR_ES_PROFILE="prod", STAIR_ES_INDEX="mine")["index"] == ("mine", "environment STAIR_ES_INDEX")


def test_login_and_authority_have_one_source(tmp_path: Path) -> None:
    path = write_config(tmp_path, CONFIG)
    assert not {"user", "password_file"} & set(_show_config(path, "--profile", "prod")), "the profile's API key replaces both"
    shown = _show_config(path, "--profile", "prod", STAIR_ES_USER="eve", STAIR_ES_PASSWORD="hunter2")
    assert (shown["user"][0], shown["password"][0]) == ("eve", "***")
    assert "api_key_file" not in shown
    assert "ca_fingerprint" not in _show_config(path, "--profile", "second", STAIR_ES_CA_FILE="mine.pem")


def test_an_option_overrides_everything(tmp_path: Path) -> None:
    path = write_config(tmp_path, 'index = "top"\n[query]\nindex = "table"\nmax_clauses = 2\n')
    read_query = CommandRunner({}, "--config", str(path), "query", "red car", "--url", "http://h").read_output
    assert "/table/_search" in read_query()
    assert "/env/_search" in read_query(STAIR_ES_INDEX="env")
    assert "/option/_search" in read_query("--index", "option", STAIR_ES_INDEX="env")
    assert read_query().count("rank_feature") == 2
    assert read_query("--max-clauses", "1").count("rank_feature") == 1


def test_a_command_does_not_change_the_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    _show_config(write_config(tmp_path, CONFIG + 'serve_token_file = "t"\nca_file = "x"\n'), "--profile", "second")
    assert dict(os.environ) == before


def test_settings_reach_a_command_without_the_environment(tmp_path: Path) -> None:
    """The file sets the home; no variable is set for the process, not even while the command runs."""
    path = write_config(tmp_path, 'home = "elsewhere"\nuser = "anna"\nnode_heap = "1g"\ntrust_remote_code = "org/name"\n')
    changed, watching = [], [True]

    def record_variable(event: str, values: tuple[Any, ...]) -> None:
        if watching and event == "os.putenv" and values[0].startswith(b"STAIR_ES_"):
            changed.append(values[0])

    sys.addaudithook(record_variable)  # can't be removed
    try:
        result = CommandRunner({}, "--config", str(path)).run("node", "status", "--json")
    finally:
        watching.clear()
    assert json.loads(result.stdout)["data"] == str(tmp_path / "elsewhere" / "node" / "data")
    assert changed == []


def test_the_environment_overrides_the_file_for_the_home_too(tmp_path: Path) -> None:
    path = write_config(tmp_path, 'home = "elsewhere"\n')
    runner = CommandRunner({"STAIR_ES_HOME": str(tmp_path / "mine")}, "--config", str(path))
    assert json.loads(runner.run("node", "status", "--json").stdout)["data"] == str(tmp_path / "mine" / "node" / "data")


@pytest.mark.parametrize(
    ("text", "facts", "remedy"),
    [
        ("indx = 'a'", ["'indx'"], "'index'"),
        ("[ingest]\nbatch_sise = 3", ["[ingest]", "'batch_sise'"], "'batch_size'"),
        ("[serch]\nk = 3", ["'serch'"], "'search'"),
        ("[ingest]\nbatch_size = 'many'", ["[ingest]", "batch_size", "0"], "--help"),
        ("[search]\njson = 'yes'", ["json"], "--help"),
        ("[ingest]\ndocument_id = 'perhaps'", ["document_id", "content-hash, uri"], "--help"),
        ("[profiles.prod.node.up]\nport = 70000", ["profile prod [node.up]", "port", "65535"], "--help"),
        ("search = 5", ["search"], "[search]"),
        ("user = 3", ["user"], "--help"),
        ("log_format = 'xml'", ["text, json"], "--help"),
        ("url = 'https://anna:hunter2@search:9200'", ["url"], "password_file"),
        ("url = 'https://anna:hunter,2@search:9200'", ["url"], "password_file"),
        ("password = 'hunter2'", ["(password)"], "chmod 600"),
        ("[profile.prod]\nurl = 'http://h'", ["profile"], "[profiles.NAME]"),
        ("profiles = 3", ["profiles"], "[profiles.NAME]"),
        ("index = ", ["TOML"], "docs/configuration.md"),
    ],
)
def test_errors_are_specific(tmp_path: Path, text: str, facts: list[str], remedy: str) -> None:
    error = read_config_error(tmp_path, text)
    assert (error.code, error.exit_code) == ("config-error", 2)
    assert str(tmp_path / "stair-es.toml") in error.message
    message = error.message.replace(str(tmp_path), "")
    assert not [fact for fact in facts if fact not in message]
    assert remedy in error.remedy
    assert "hunter2" not in str(error)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_secret_that_others_can_access_is_rejected(tmp_path: Path, mode: int) -> None:
    path = write_config(tmp_path, "password = 'hunter2'")
    path.chmod(mode)
    error = CommandRunner({}, "--config", str(path)).read_error("config", "show")
    assert (error.code, "chmod 600" in error.remedy) == ("config-error", True)


def test_a_number_where_a_url_is_expected_is_masked(tmp_path: Path) -> None:
    assert _show_config(write_config(tmp_path, "url = 3"))["url"][0] == "***"


def test_missing_profiles_and_files_are_named(tmp_path: Path) -> None:
    assert "'prod'" in read_config_error(tmp_path, CONFIG, "--profile", "prd").remedy
    for arguments in (["--config", str(tmp_path / "no.toml")], ["--profile", "prod"]):
        assert CommandRunner({}, *arguments).read_error("config", "show").code == "config-error"


def test_a_secret_in_a_private_file_is_read_and_not_shown(tmp_path: Path) -> None:
    path = write_config(tmp_path, 'user = "anna"\npassword = "hunter2"\n')
    path.chmod(0o600)
    assert _show_config(path)["password"] == ("***", str(path))


def test_only_the_file_of_the_platform_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 'index = "here"')
    runner = CommandRunner({})
    assert runner.read_json("config", "show") == {"file": None, "profile": None, "values": []}
    (tmp_path / "config" / "stair-es").mkdir(parents=True)
    (tmp_path / "config" / "stair-es" / "config.toml").write_text('index = "home"')
    assert runner.read_json("config", "show")["values"][0]["value"] == "home"


@pytest.mark.parametrize(
    ("arguments", "code", "fact"),
    [
        (["node", "up", "--port", "x"], "invalid-arguments", "--port"),
        (["serch"], "invalid-arguments", "serch"),
        (["--bogus"], "invalid-arguments", "--bogus"),
        (["policy"], "invalid-arguments", ""),
        (["words", "--url", "http://u:p@h"], "password-in-arguments", ""),
        (["--config", "no.toml", "plugins"], "config-error", "no.toml"),
    ],
)
def test_errors_of_every_kind_are_one_line_of_json(arguments: list[str], code: str, fact: str) -> None:
    result = subprocess.run([SCRIPT, "--log-format", "json", *arguments], capture_output=True, text=True, check=False)
    [line] = map(json.loads, result.stderr.splitlines())
    assert (result.returncode, line["level"], line["code"]) == (2, "error", code), result.stderr
    assert fact in line["message"]
    assert line["remedy"]
    assert line["time"].endswith("Z")


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://search:9200/prefix", "http://search:9200/prefix"),
        ("http://anna:hunter2@a,http://anna:hunter2@b", "http://***@a,http://***@b"),
        ("https://anna:hunt,er@2@search", "https://***@search"),
        ("anna:hunter2@search:9200", "***"),
        ("http://search:9200/?api_key=hunter2", "***"),
    ],
)
def test_a_login_in_the_url_of_the_environment_is_masked(monkeypatch: pytest.MonkeyPatch, url: str, shown: str) -> None:
    monkeypatch.setenv("STAIR_ES_URL", url)
    [row] = CommandRunner({}).read_json("config", "show")["values"]
    assert row["value"] == shown


def test_login_is_sent_only_to_its_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_USER", "tom")
    search_url, general_url = (ConfigValue(value=f"http://{name}:9200", origin="") for name in ("search", "all"))
    table: dict[OptionKey, ConfigValue] = {("search", "url"): search_url}
    for values, ours, others in (
        (table, "http://search:9200/", "http://other:9200"),
        ({**table, ("url",): general_url}, "http://all:9200", "http://search:9200"),
    ):
        settings = CliConfig(values=values, effective={("user",): ConfigValue(value="tom", origin="")})
        assert settings.resolve_for_url(ours, {}, ())[1]["STAIR_ES_USER"] == "tom"
        assert "STAIR_ES_USER" not in settings.resolve_for_url(others, {}, ())[1]


def test_help_is_given_though_the_file_is_broken(tmp_path: Path) -> None:
    result = CommandRunner({}, "--config", str(write_config(tmp_path, "[search"))).run("search", "--help")
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert "TOML" in result.stderr


def test_an_uncaught_exception_in_a_thread_is_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    before = threading.excepthook
    set_log_format("json")
    try:
        thread = threading.Thread(target=lambda: 1 / 0)
        thread.start()
        thread.join()
    finally:
        set_log_format("text")
        threading.excepthook = before
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert line["level"] == "critical"
    assert "division" in line["message"]


def test_records_of_stair_es_are_lines_on_stderr_or_json(capsys: pytest.CaptureFixture[str]) -> None:
    logger = logging.getLogger("stair_es.ingest.pipeline")
    set_log_format("text")
    logger.info("%s of [a]%%", 3)
    logger.debug("not shown")
    assert capsys.readouterr().err == "3 of [a]%\n"
    set_log_format("json")
    try:
        logger.info("%d images found", 3)
    finally:
        set_log_format("text")
    [line] = map(json.loads, capsys.readouterr().err.splitlines())
    assert (line["level"], line["message"], line["logger"]) == ("info", "3 images found", "stair_es.ingest.pipeline")


def test_records_and_warnings_of_libraries_are_json_too(capsys: pytest.CaptureFixture[str]) -> None:
    set_log_format("json")
    try:
        logging.getLogger("a.library").warning("slow %s\x9b", "disk")
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.warn("old", DeprecationWarning, stacklevel=1)
    finally:
        set_log_format("text")
    stderr = capsys.readouterr().err
    first, second = map(json.loads, stderr.splitlines())
    assert (first["logger"], first["message"], first["level"]) == ("a.library", "slow disk\x9b", "warning")
    assert "\x9b" not in stderr
    assert "DeprecationWarning: old" in second["message"]


def test_bash_completes_commands_options_and_values(tmp_path: Path) -> None:
    path = write_config(tmp_path, CONFIG)
    script = """
    eval "$(stair-es --show-completion)"
    ask() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _stair_es_completion stair-es; echo "${COMPREPLY[@]}"; }
    ask stair-es ex
    ask stair-es search --hyb
    ask stair-es search --model st
    ask stair-es --config "$1" --profile ''
    """
    environment = {**os.environ, "PATH": f"{SCRIPT.parent}:{os.environ['PATH']}"}
    result = subprocess.run(
        ["bash", "--norc", "-c", script, "bash", str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert result.stdout.splitlines() == ["export-xmp explain export", "--hybrid", "stair-mini", "prod second"]


def test_threads_of_a_server_load_encoders_as_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(index_encoder, "load_query_encoder", lambda info, *, settings, **options: settings.home.path)
    command = copy_context()
    command.run(config_file._current.set, CliConfig(environ={"STAIR_ES_HOME": str(tmp_path)}))
    load_encoder: Any = command.run(EncoderArguments().prepare_for_index, "photos")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(load_encoder, object()).result() == tmp_path

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
from typer.testing import CliRunner

from stair_es.cli.main import app
from stair_es.cli.options import config_file
from stair_es.cli.options.config_file import CliConfig, ConfigValue, OptionKey
from stair_es.cli.options.search import EncoderArguments
from stair_es.cli.output.console import set_log_format
from stair_es.errors import UsageError
from stair_es.search import index_encoder

SCRIPT = Path(sys.executable).parent / "stair-es"
_FILE = """
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


def _write(folder: Path, text: str) -> Path:
    path = folder / "stair-es.toml"
    path.write_text(text, encoding="utf-8")
    path.chmod(0o644)
    return path


def _show_config(path: Path, *before: str, **environ: str) -> dict[str, tuple[Any, str]]:
    result = CliRunner().invoke(app, ["--config", str(path), *before, "config", "show", "--json"], env=environ)
    assert result.exit_code == 0, result.output + repr(result.exception)
    return {row["key"]: (row["value"], row["origin"]) for row in json.loads(result.stdout)["values"]}


def _refused(folder: Path, text: str, *before: str) -> UsageError:
    result = CliRunner().invoke(app, ["--config", str(_write(folder, text)), *before, "config", "show"])
    assert isinstance(result.exception, UsageError), result.output
    return result.exception


def test_a_profile_overrides_the_top_level_and_the_environment_overrides_both(tmp_path: Path) -> None:
    path = _write(tmp_path, _FILE)
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
    path = _write(tmp_path, _FILE)
    assert not {"user", "password_file"} & set(_show_config(path, "--profile", "prod")), "the profile's API key replaces both"
    shown = _show_config(path, "--profile", "prod", STAIR_ES_USER="eve", STAIR_ES_PASSWORD="hunter2")
    assert (shown["user"][0], shown["password"][0]) == ("eve", "***")
    assert "api_key_file" not in shown
    assert "ca_fingerprint" not in _show_config(path, "--profile", "second", STAIR_ES_CA_FILE="mine.pem")


def test_an_option_overrides_everything(tmp_path: Path) -> None:
    path = _write(tmp_path, 'index = "top"\n[query]\nindex = "table"\nmax_clauses = 2\n')
    runner = CliRunner()

    def search_with(*options: str, **environ: str) -> str:
        result = runner.invoke(app, ["--config", str(path), "query", "red car", "--url", "http://h", *options], env=environ)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return result.stdout

    assert "/table/_search" in search_with()
    assert "/env/_search" in search_with(STAIR_ES_INDEX="env")
    assert "/option/_search" in search_with("--index", "option", STAIR_ES_INDEX="env")
    assert search_with().count("rank_feature") == 2
    assert search_with("--max-clauses", "1").count("rank_feature") == 1


def test_a_command_does_not_change_the_environment(tmp_path: Path) -> None:
    before = dict(os.environ)
    _show_config(_write(tmp_path, _FILE + 'serve_token_file = "t"\nca_file = "x"\n'), "--profile", "second")
    assert dict(os.environ) == before


def test_settings_without_an_option_reach_a_command_without_the_environment(tmp_path: Path) -> None:
    """The file sets the home; no variable is set for the process, not even while the command runs."""
    path = _write(tmp_path, 'home = "elsewhere"\nuser = "anna"\nnode_heap = "1g"\ntrust_remote_code = "org/name"\n')
    changed, watching = [], [True]

    def watch(event: str, values: tuple[Any, ...]) -> None:
        if watching and event == "os.putenv" and values[0].startswith(b"STAIR_ES_"):
            changed.append(values[0])

    sys.addaudithook(watch)  # can't be removed
    try:
        result = CliRunner().invoke(app, ["--config", str(path), "node", "status", "--json"])
    finally:
        watching.clear()
    assert json.loads(result.stdout)["data"] == str(tmp_path / "elsewhere" / "node" / "data")
    assert changed == []


def test_the_environment_overrides_the_file_for_the_home_too(tmp_path: Path) -> None:
    path = _write(tmp_path, 'home = "elsewhere"\n')
    mine = {"STAIR_ES_HOME": str(tmp_path / "mine")}
    result = CliRunner().invoke(app, ["--config", str(path), "node", "status", "--json"], env=mine)
    assert json.loads(result.stdout)["data"] == str(tmp_path / "mine" / "node" / "data")


@pytest.mark.parametrize(
    ("text", "message", "remedy"),
    [
        ("indx = 'a'", "unknown key 'indx'", "Did you mean 'index'?"),
        ("[ingest]\nbatch_sise = 3", "[ingest]: unknown key 'batch_sise'", "'batch_size'"),
        ("[serch]\nk = 3", "unknown key 'serch'", "'search'"),
        ("[ingest]\nbatch_size = 'many'", "[ingest]: batch_size must be a whole number, at least 0", "--help"),
        ("[search]\njson = 'yes'", "json must be true or false", "--help"),
        ("[ingest]\ndocument_id = 'perhaps'", "document_id must be one of content-hash, uri", "--help"),
        (
            "[profiles.prod.node.up]\nport = 70000",
            "profile prod [node.up]: port must be a whole number, at least 0, at most 65535",
            "--help",
        ),
        ("search = 5", "search must be a table", "[search]"),
        ("user = 3", "user must be a string", "--help"),
        ("log_format = 'xml'", "one of text, json", "--help"),
        ("url = 'https://anna:hunter2@search:9200'", "url holds a password", "password_file"),
        ("url = 'https://anna:hunter,2@search:9200'", "url holds a password", "password_file"),
        ("password = 'hunter2'", "holds a secret (password)", "chmod 600"),
        ("[profile.prod]\nurl = 'http://h'", "profile must be a string", "[profiles.NAME]"),
        ("profiles = 3", "profiles must be a table", "[profiles.NAME]"),
        ("index = ", "isn't TOML", "docs/configuration.md"),
    ],
)
def test_errors_are_specific(tmp_path: Path, text: str, message: str, remedy: str) -> None:
    error = _refused(tmp_path, text)
    assert message in error.message
    assert str(tmp_path / "stair-es.toml") in error.message
    assert remedy in error.remedy
    assert "hunter2" not in str(error)


def test_a_number_where_a_url_is_expected_is_masked(tmp_path: Path) -> None:
    assert _show_config(_write(tmp_path, "url = 3"))["url"][0] == "***"


def test_missing_profiles_and_files_are_named(tmp_path: Path) -> None:
    assert "Did you mean 'prod'?" in _refused(tmp_path, _FILE, "--profile", "prd").remedy
    for arguments in (["--config", str(tmp_path / "no.toml")], ["--profile", "prod"]):
        assert isinstance(CliRunner().invoke(app, [*arguments, "config", "show"]).exception, UsageError)


def test_a_secret_in_a_private_file_is_read_and_not_shown(tmp_path: Path) -> None:
    path = _write(tmp_path, 'user = "anna"\npassword = "hunter2"\n')
    path.chmod(0o600)
    assert _show_config(path)["password"] == ("***", str(path))


def test_the_file_of_the_platform_is_found_and_one_in_the_working_folder_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    _write(tmp_path, 'index = "here"')
    assert json.loads(CliRunner().invoke(app, ["config", "show", "--json"]).stdout) == {
        "file": None,
        "profile": None,
        "values": [],
    }
    (tmp_path / "config" / "stair-es").mkdir(parents=True)
    (tmp_path / "config" / "stair-es" / "config.toml").write_text('index = "home"')
    assert json.loads(CliRunner().invoke(app, ["config", "show", "--json"]).stdout)["values"][0]["value"] == "home"


def test_errors_of_every_kind_are_one_line_of_json() -> None:
    for arguments, message, code in (
        (["node", "up", "--port", "x"], "--port", 2),
        (["serch"], "No such command", 2),
        (["--bogus"], "--bogus", 2),
        (["policy"], "no command", 2),
        (["words", "--url", "http://u:p@h"], "password on the command line", 2),
        (["--config", "no.toml", "plugins"], "no.toml", 2),
    ):
        result = subprocess.run([SCRIPT, "--log-format", "json", *arguments], capture_output=True, text=True, check=False)
        [line] = map(json.loads, result.stderr.splitlines())
        assert (result.returncode, line["level"]) == (code, "error"), result.stderr
        assert message in line["message"]
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
    [row] = json.loads(CliRunner().invoke(app, ["config", "show", "--json"]).stdout)["values"]
    assert row["value"] == shown


def test_login_is_sent_only_to_its_urls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STAIR_ES_USER", "tom")
    of_search, of_all = (ConfigValue(value=f"http://{name}:9200", origin="") for name in ("search", "all"))
    table: dict[OptionKey, ConfigValue] = {("search", "url"): of_search}
    for values, ours, others in (
        (table, "http://search:9200/", "http://other:9200"),
        ({**table, ("url",): of_all}, "http://all:9200", "http://search:9200"),
    ):
        settings = CliConfig(values=values, effective={("user",): ConfigValue(value="tom", origin="")})
        assert settings.resolve_for_url(ours, {}, ())[1]["STAIR_ES_USER"] == "tom"
        assert "STAIR_ES_USER" not in settings.resolve_for_url(others, {}, ())[1]


def test_help_is_given_though_the_file_is_broken(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--config", str(_write(tmp_path, "[search")), "search", "--help"])
    assert result.exit_code == 0
    assert "Usage: " in result.stdout
    assert "isn't TOML" in result.stderr


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
    logger.info("%s images found in [a]%%", 3)
    logger.debug("not shown")
    assert capsys.readouterr().err == "3 images found in [a]%\n"
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
    path = _write(tmp_path, _FILE)
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
    assert result.stdout.splitlines() == ["explain export", "--hybrid", "stair-mini", "prod second"]


def test_threads_of_a_server_load_encoders_as_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(index_encoder, "load_query_encoder", lambda info, *, settings, **options: settings.home.path)
    command = copy_context()
    command.run(config_file._current.set, CliConfig(environ={"STAIR_ES_HOME": str(tmp_path)}))
    load_encoder: Any = command.run(EncoderArguments().prepare_for_index, "photos")
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(load_encoder, object()).result() == tmp_path

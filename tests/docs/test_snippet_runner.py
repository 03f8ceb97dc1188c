"""The runner finds each fault that a page may have."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from support.polling import poll_until
from support.snippets.checks import InvalidSnippet, check_command, split_commands
from support.snippets.pages import find_missing, parse_blocks, parse_commands
from support.snippets.runner import PageRun, Rules, check_page
from support.snippets.shell import Shell

from stair_es.config.defaults import ENV_URL

RULES = Rules(
    not_run={"docker": "", "pip install": "", "make": "", "python benchmarks/": ""},
    replacements={},
    background={"python3 -u -m http.server": "Serving"},
    not_sent={"/_security/": ""},
    languages={"text": ""},
)


@pytest.fixture
def run_page(node_url: str, tmp_path: Path) -> Callable[[str], PageRun]:
    """Tries a page on a real node."""
    logs = tmp_path / "logs"
    logs.mkdir()

    def run_markdown(page: str) -> PageRun:
        path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
        environment = {"PATH": path, "HOME": str(tmp_path), ENV_URL: node_url}
        (tmp_path / ".curlrc").write_text("fail-with-body\n")
        with Shell(tmp_path, logs, environment) as shell:
            trial = PageRun("page.md", RULES, shell, tmp_path, node_url, {"https://search:9200": node_url})
            trial.run(textwrap.dedent(page))
        return trial

    return run_markdown


RIGHT = {
    "what is exported stays": """
        ```console
        $ export NAME=anna; cd "$(mktemp -d "$HOME/XXXX")"
        $ echo "$NAME is \\
            here"
        anna is here
        $ test -d ../logs
        ```
        """,
    "heredocs, quotes and loops have lines": """
        - in a list, too

          ```console
          $ cat > a.txt <<'END'
          $HOME
          END
          $ cat a.txt
          $HOME
          $ for n in 1 2; do
              echo "$n
          more"
            done
          1
          more
          ```
        """,
    "errors that are shown and codes that are said": """
        ```console
        $ python3 -c 'raise SystemExit("error: none")'
        error: none
        $ (exit 3)    # exits with 3: some failed
        ```
        """,
    "python goes on, and knows what the shell exported": """
        ```console
        $ export SIZE=3
        ```
        ```python
        import os
        sizes = [int(os.environ["SIZE"])]
        ```
        ```python
        assert sizes == [3]
        ```
        """,
    "a file is there before the block that shows it": """
        ```console
        $ cat x.toml
        a = 1
        ```
        ```toml title=x.toml
        a = 1
        ```
        """,
    "a server stays": """
        ```console
        $ python3 -u -c 'print("ready")'
        ready
        $ python3 -u -m http.server --bind 127.0.0.1 0
        $ jobs -p | grep -c .
        1
        ```
        """,
    "requests reach the cluster": """
        ```json
        GET /_cluster/health
        ```
        ```json
        PUT /_security/role/x
        {"cluster": ["monitor"]}
        ```
        ```console
        $ curl -sS https://search:9200/_cluster/health
        ```
        """,
    "what can't be run is read": """
        ```console
        $ docker run --rm stair-es:0.1.0 ingest photos --index photos
        $ pip install 'stair-es[node,ray]' && make help
        $ python benchmarks/sink.py --help
        ```
        """,
}

WRONG = {
    "exit code 3": ("```console\n$ (exit 3)\n```", "page.md:2: .*\n.*exit code 3"),
    "another code than said": ("```console\n$ (exit 2)    # exits with 3\n```", "exit code 2"),
    "no error where one is shown": ("```console\n$ echo error: x\nerror: x\n```", "exit code 0"),
    "in the middle of a command": ("```console\n$ false; true\n```", "exit code 1"),
    "in the middle of a pipe": ("```console\n$ false | cat\n```", "exit code 1"),
    "the shell is ended": ("```console\n$ exit 0\n```", "ended the shell"),
    "other words": ("```console\n$ echo 3 images written\n3 images read\n```", "shown, and not printed:\n  - 3 images read"),
    "no such path": ('```json\nPUT /_no_such_thing/x/y/z\n{"a": 1}\n```', "PUT /_no_such_thing"),
    "no such path for curl": ('```console\n$ curl -sS "$STAIR_ES_URL/no-such-index"\n```', "exit code 22"),
    "no such field of a request": ('```json\nGET /_search\n{"querry": {}}\n```', "querry"),
    "json": ("```json\n{'a': 1}\n```", "not json"),
    "toml": ("```toml\na = \n```", "not toml"),
    "a training without data": ('```toml\nname = "x"\n[recipe]\nname = "no-such"\n```', "not toml"),
    "yaml": ("```yaml\na: [\n```", "not yaml"),
    "nginx": ("```nginx\nserver { listen 443 ssl }\n```", "not nginx"),
    "python": ("```python\nx = 1\n```\n```python\nx.no_such\n```", 'page.md", line 5'),
    "no prompt": ("```console\nstair-es --version\n```", "begins with"),
    "a command that hides": ("```text\n$ no-such-program\n```", "commands stand in"),
    "no language": ("```\nstair-es\n```", "without a language"),
    "a language that nobody runs": ("```ruby\nputs 1\n```", "ruby"),
    "an option in a container": ("```console\n$ docker run x stair-es ingest photos --no-such-option\n```", "no-such-option"),
    "a command in a container": ("```console\n$ docker run x stair-es no-such-command\n```", "no-such-command"),
    "an image's command": ("```console\n$ docker run --rm stair-es:0.1.0 no-such-command\n```", "no-such-command"),
    "a file of ours": ("```console\n$ docker compose -f deploy/no-such.yml up\n```", "there is no deploy/no-such.yml"),
    "an extra": ("```console\n$ pip install 'stair-es[no-such-extra]'\n```", "no-such-extra"),
    "a target": ("```console\n$ make no-such-target\n```", "no-such-target"),
    "an option of a benchmark": ("```console\n$ python benchmarks/sink.py --no-such-option\n```", "no-such-option"),
    "a server that ends": ("```console\n$ python3 -u -m http.server no-such-port\n```", "no-such-port"),
    "nested": ("````{tab}\n```json\n{\n```\n````", "page.md:3: not json"),
}


@pytest.mark.parametrize("page", RIGHT.values(), ids=RIGHT)
def test_right_pages_pass(run_page: Callable[[str], PageRun], page: str) -> None:
    run_page(page)


@pytest.mark.parametrize(("page", "message"), WRONG.values(), ids=WRONG)
def test_faults_are_found(run_page: Callable[[str], PageRun], page: str, message: str) -> None:
    with pytest.raises((InvalidSnippet, ValueError), match=message):
        run_page(page)


INVALID = {
    "an option": ("```console\n$ cd x && stair-es search cat --no-such-option > hits\n```", "page.md:2: .*\n.*no-such-option"),
    "a command": ("```console\n$ stair-es no-such-command | jq .\n```", "no-such-command"),
    "python": ("```python\nx = (\n```", "page.md:2: "),
    "json": ("```json\n{'a': 1}\n```", "page.md:2: not json"),
}


@pytest.mark.parametrize(("page", "message"), INVALID.values(), ids=INVALID)
def test_faults_are_found_without_running(page: str, message: str) -> None:
    with pytest.raises(InvalidSnippet, match=message):
        check_page("page.md", page)


@pytest.mark.parametrize("page", RIGHT.values(), ids=RIGHT)
def test_right_pages_are_valid(page: str) -> None:
    check_page("page.md", textwrap.dedent(page))


def _is_running(process: int) -> bool:
    file = Path(f"/proc/{process}/cmdline")
    return file.exists() and file.read_bytes() != b""  # what has ended and isn't collected yet has no command line


def test_server_ends_with_its_page(tmp_path: Path) -> None:
    with Shell(tmp_path, tmp_path, {"PATH": "/usr/bin:/bin"}) as shell:
        shell.start_background("echo $$ > pid; echo up; exec sleep 600", "up", 10)
        process = int(shell.run("cat pid; jobs -p", 10).printed.split()[-1])
        assert _is_running(process)
    poll_until(lambda: not _is_running(process))  # nobody here waits for it


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("  1.  0.4790  /photos/tabby-cat.jpg", "  1.  0.5011  /home/anna/Pictures/tabby-cat.jpg"),
        (
            "photos-stair-mini-3-20261124-223935: policy x (5f09ea86)",
            "photos-stair-mini-3-20251124-113935-123456: policy x (6f09ea87)",
        ),
        ('{"uri": "file:///photos/a.jpg"}', '{"uri": "file:///home/anna/Pictures/a.jpg"}'),
        ("      cat, kitten, ...", "      cat, house, kitten, 13 more"),
        ("  bear    ████████ 0.6 x 0.2 = 0.1", "  bear  ███▏ 0.7 x 0.1 = 0.2"),
        ("...", ""),
    ],
)
def test_numbers_bars_and_folders_are_free(shown: str, printed: str) -> None:
    assert find_missing((shown,), f"before\n{printed}\nafter") == []


@pytest.mark.parametrize(
    ("shown", "printed"),
    [("a\nb", "b\na"), ("40 written, 0 failed", "40 written"), ("tabby-cat.jpg", "/photos/white-duck.jpg"), ("a ...", "b c")],
)
def test_other_words_and_orders_are_not(shown: str, printed: str) -> None:
    assert find_missing(tuple(shown.splitlines()), printed) != []


def test_commands_have_lines_and_shown_output() -> None:
    [block] = parse_blocks("x\n\n```console\n$ a \\\n  b\n1\n2\n$ c # d\n```\n")
    found = list(parse_commands(block))
    assert [(each.text, each.shown, each.line) for each in found] == [("a \\\n  b", ("1", "2"), 4), ("c # d", (), 8)]


def test_programs_are_found_behind_variables_and_pipes() -> None:
    assert list(split_commands("A=1 sudo docker run 'x y' | jq . && for a in b; do c; done # d")) == [
        ["docker", "run", "x y"],
        ["jq", "."],
        ["for", "a", "in", "b"],
        ["c"],
    ]


def test_options_are_parsed_without_files() -> None:
    check_command(["stair-es", "evaluate", "retrieval", "no-such-file.json", "--images", "no-such-folder"])
    with pytest.raises(InvalidSnippet, match="no-such"):
        check_command(["stair-es", "evaluate", "retrieval", "no-such-file.json", "--images", "no-such-folder", "--no-such"])

"""Run the installed `stair-es` on a search node as a script would: return its JSON, or raise its error message."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGKILL
from threading import Timer
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from support.plugin_metadata import write_entry_points

STAIR_ES = Path(sys.executable).with_name("stair-es")
_TIMEOUT_S = 300.0
_START_TIMEOUT_S = 60.0
_PAGE_TIMEOUT_S = 60.0
_END_TIMEOUT_S = 30.0
_EXAMPLE_PLUGIN = Path(__file__).parents[3] / "examples" / "plugin" / "src"


class CommandError(Exception):
    """The command or the page failed; the text is its message."""


class CommandRunner:
    """Runs commands against one node."""

    def __init__(self, url: str, folder: Path, environ: Mapping[str, str]) -> None:
        """Set the node and, as a second model, `colors` of the example plugin.

        Args:
            url: Of the node.
            folder: For files of the commands.
            environ: The login and so on.
        """
        self.url = url
        self.folder = folder
        write_entry_points(site := folder / "site", "stair-es-example-plugin", "colors = stair_es_example.colors:KIND")
        environment = {
            name: value for name, value in os.environ.items() if name == "STAIR_ES_HOME" or not name.startswith("STAIR_ES_")
        }
        paths = [str(site), str(_EXAMPLE_PLUGIN), *filter(None, [os.environ.get("PYTHONPATH")])]
        self.environ = {**environment, "STAIR_ES_URL": url, "COLUMNS": "200", "PYTHONPATH": os.pathsep.join(paths), **environ}

    def run(self, *arguments: str | Path) -> Any:  # noqa: ANN401  JSON
        """Run `stair-es ARGUMENTS --json` and return its output.

        Raises:
            CommandError: If the command failed.
            TimeoutExpired: It takes more than five minutes.
        """
        result = subprocess.run(
            [STAIR_ES, *arguments, "--json"],
            cwd=self.folder,
            env=self.environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=_TIMEOUT_S,
        )
        if result.returncode:
            raise CommandError(self.format_error(result.stderr))
        return json.loads(result.stdout.splitlines()[-1])

    @contextmanager
    def serve(self, *arguments: str | Path) -> Iterator[PageClient]:
        """Run `stair-es serve` or `stair-es encoder` with its options until the end of the block.

        Raises:
            CommandError: If the server ends at once.
            TimeoutExpired: It neither serves nor ends within a minute.
        """
        command = [STAIR_ES, *arguments, "--port", "0", "--json"]
        log = self.folder / "serve.log"
        with (
            log.open("w") as errors,
            subprocess.Popen(command, env=self.environ, stdout=subprocess.PIPE, stderr=errors, text=True) as process,
        ):
            try:
                assert process.stdout is not None
                timer = Timer(_START_TIMEOUT_S, process.kill)
                timer.start()
                line = process.stdout.readline()
                timer.cancel()
                if not line:
                    if process.wait(_END_TIMEOUT_S) == -SIGKILL:
                        raise subprocess.TimeoutExpired(command, _START_TIMEOUT_S)
                    raise CommandError(self.format_error(log.read_text(encoding="utf-8")))
                yield PageClient(self, json.loads(line)["url"])
            finally:
                process.kill()

    def format_error(self, output: str) -> str:
        """Return the message and, on a separate line, the remedy, without ports and times, which differ in each run.

        Args:
            output: What stderr has: notes, then `error[CODE]: ` at the start of a line.
        """
        message = re.split(r"^error(?:\[[a-z0-9-]+\])?: ", output, maxsplit=1, flags=re.MULTILINE)[-1].strip()
        message = message.replace(self.url.partition("://")[2], "127.0.0.1:9200").replace(str(self.folder), "FOLDER")
        return re.sub(r"-\d{8}-\d{6}-\d{6}", "-TIMESTAMP", message)


class PageClient:
    """The page of `stair-es serve`."""

    def __init__(self, commands: CommandRunner, url: str) -> None:
        """See `CommandRunner.serve`."""
        self._commands, self._url = commands, url

    def request(self, path: str, body: bytes | None = None, kind: str = "application/json") -> bytes:
        """Return the body of the response.

        Args:
            path: From the slash on.
            body: To send by POST; without one it is a GET.
            kind: The body's type.

        Raises:
            CommandError: If the status isn't a success.
        """
        request = Request(self._url.rstrip("/") + path, body, {"Content-Type": kind})
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=_PAGE_TIMEOUT_S) as response:
                return bytes(response.read())
        except HTTPError as error:
            problem = json.load(error)
            raise CommandError(self._commands.format_error(f"{problem['error']}\n{problem['remedy']}")) from None

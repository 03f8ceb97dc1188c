"""The command in this process, for tests that aren't about the process: no script is started, nothing is imported anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from stair_es.cli.main import app
from stair_es.errors import StairError

__all__ = ["CommandHere"]


class CommandHere:
    """`stair-es` with an environment of its own, which ends with each call."""

    def __init__(self, environment: Mapping[str, str | None], *begin: str) -> None:
        """Set what all calls have in common.

        Args:
            environment: What is set besides what this process has; None takes a variable away.
            begin: The first arguments of each call, as the name of a group of commands.
        """
        self._environment, self._begin = dict(environment), begin

    def run(self, *arguments: str | Path, **more: str) -> Result:
        """Run the command, with more in the environment for this call."""
        return CliRunner().invoke(app, [*self._begin, *map(str, arguments)], env={**self._environment, **more})

    def read_output(self, *arguments: str | Path, **more: str) -> str:
        """Run the command, which has to succeed; return its stdout."""
        result = self.run(*arguments, **more)
        assert result.exit_code == 0, (result.exception, result.output)
        return result.stdout

    def read_json(self, *arguments: str | Path, **more: str) -> Any:  # noqa: ANN401  JSON
        """Run the command with `--json`, which has to succeed; return its whole stdout as a value."""
        return json.loads(self.read_output(*arguments, "--json", **more))

    def read_error(self, *arguments: str | Path, **more: str) -> StairError:
        """Run the command, which has to fail with an error of ours; return the error."""
        result = self.run(*arguments, **more)
        assert isinstance(result.exception, StairError), (result.exception, result.output)
        return result.exception

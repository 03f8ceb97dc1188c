"""Run the command in this process, for tests that need no separate one."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from stair_es.cli.main import app
from stair_es.errors import StairError

__all__ = ["CommandRunner"]


class CommandRunner:
    """`stair-es` with its own environment, which is restored after each call."""

    def __init__(self, environment: Mapping[str, str | None], *begin: str) -> None:
        """Set what all calls share.

        Args:
            environment: Variables added to those of this process; None removes one.
            begin: First arguments of each call, such as the name of a command group.
        """
        self._environment, self._begin = dict(environment), begin

    def run(self, *arguments: str | Path, **more: str) -> Result:
        """Run the command, with further variables for this call."""
        return CliRunner().invoke(app, [*self._begin, *map(str, arguments)], env={**self._environment, **more})

    def read_output(self, *arguments: str | Path, **more: str) -> str:
        """Run the command, assert that it succeeds, and return its stdout."""
        result = self.run(*arguments, **more)
        assert result.exit_code == 0, (result.exception, result.output)
        return result.stdout

    def read_json(self, *arguments: str | Path, **more: str) -> Any:  # noqa: ANN401  JSON
        """Run the command with `--json`, assert that it succeeds, and return the parsed stdout."""
        return json.loads(self.read_output(*arguments, "--json", **more))

    def read_error(self, *arguments: str | Path, **more: str) -> StairError:
        """Run the command, assert that it fails with a StairError, and return the error."""
        result = self.run(*arguments, **more)
        assert isinstance(result.exception, StairError), (result.exception, result.output)
        return result.exception

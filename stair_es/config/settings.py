"""Settings of this machine that belong to no connection, resolved once and passed to the code that needs them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass

from stair_es.config.defaults import ENV_TRUST_REMOTE_CODE, DataDir


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The data folder and the code of models that may run. Picklable.

    The command line builds it from the configuration file and the environment. Python callers may leave it out: the environment
    applies then (see `resolve_settings`).
    """

    home: DataDir
    trusted_code: frozenset[str] = frozenset()
    """Models whose own Python code may run, each with its version: see `OwnCode.key`."""

    @classmethod
    def from_env(cls, environ: Mapping[str, str] = os.environ) -> Settings:
        """Return the settings of an environment: that of the process, or with the values of a configuration file added."""
        keys = (part.strip() for part in environ.get(ENV_TRUST_REMOTE_CODE, "").split(","))
        return cls(home=DataDir.from_env(environ), trusted_code=frozenset(filter(None, keys)))


def resolve_settings(settings: Settings | None) -> Settings:
    """Return the settings, or those of the environment if there are none."""
    return Settings.from_env() if settings is None else settings

"""The configuration file: TOML with defaults and profiles, which are tables of settings for a cluster.

Pure, except for reading the file. The known keys are given by the caller: see `stair_es.cli`.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from platformdirs import user_config_path

from stair_es.errors import UsageError
from stair_es.urls import split_nodes

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Key: TypeAlias = tuple[str, ...]
"""The tables above a value, and its name: `("ingest", "batch_size")`."""

SECRETS = ("password", "api_key", "bearer_token", "serve_token", "dashboards_password", "dashboards_api_key", "dashboards_token")
"""Each can be read from a file instead, which is set by the key with the suffix `_file`."""
_LOGIN = ("user", "password", "api_key", "bearer_token", "token", "aws_service", "aws_region")
_GROUPS = (_LOGIN, ("ca_file", "ca_fingerprint"), ("client_cert", "client_key"))
_FEW = 12
_PROFILES = "Write [profiles.NAME] and keys below it."
_SEE = "See docs/configuration.md, or --help of the command."


@dataclass(frozen=True, kw_only=True)
class Kind:
    """The values that an option accepts."""

    accepts: Callable[[Any], bool]
    """Whether a value is valid."""
    wanted: str
    """What is expected, in words: `a string`. Errors show this and never the value, which may be a misplaced secret."""
    path: bool = False
    """Whether the value is the path of a file or folder."""


Known: TypeAlias = Mapping[Key, Kind]
"""Options that can be set."""


@dataclass(frozen=True, kw_only=True)
class Found:
    """A value from the file."""

    value: Any
    where: str
    """Where it was set, for messages: `profile prod`, or the path of the file."""


Values: TypeAlias = Mapping[Key, Found]


def default_path() -> Path:
    """Return the default path of the file. Never in the working folder: an untrusted clone may contain one."""
    return user_config_path("stair-es") / "config.toml"


def read(path: Path) -> dict[str, Any]:
    """Read the values of a file.

    Raises:
        UsageError: If it can't be read, or isn't TOML.
    """
    remedy = "See docs/configuration.md for an example."
    try:
        return parse(path.read_text(encoding="utf-8"), str(path), remedy)
    except OSError as error:
        raise UsageError(f"can't read the configuration {path}: {error.strerror}", "Name a TOML file with --config.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} isn't TOML: not UTF-8 at byte {error.start}", remedy) from None


def profiles(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profiles of a file by name."""
    found = values.get("profiles", {})
    return found if isinstance(found, dict) else {}


def chosen(path: Path, values: Mapping[str, Any], profile: str | None, known: Known) -> Values:
    """Resolve the values of a profile; without a profile, those above the profiles. The whole file is checked.

    Args:
        path: Path of the file, for errors and for relative paths in it.
        values: Result of `read_config_file`.
        profile: Name of the profile.
        known: Options that can be set.

    Raises:
        UsageError: If the profile doesn't exist, a key is unknown, a value is invalid, or others can read a secret.
    """
    rest = {name: value for name, value in values.items() if name != "profiles"}
    layers = {"": dict(_flat(path, rest, str(path), known))}
    for name, table in profiles(values).items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: profiles.{name} must be a table", f"Write [profiles.{name}] and keys below it.")
        layers[name] = dict(_flat(path, table, f"profile {name}", known))
    if "profiles" in values and not isinstance(values["profiles"], dict):
        raise UsageError(f"{path}: profiles must be a table", _PROFILES)
    _check_secrets(path, [key for layer in layers.values() for key in layer])
    if profile is None:
        return layers[""]
    if profile not in profiles(values):
        raise UsageError(f"{path} has no profile {profile!r}", _nearest(profile, profiles(values), _PROFILES))
    return over(layers[profile], layers[""])


def over(upper: Values, lower: Values) -> Values:
    """Merge two layers: `upper`, and what it leaves open from `lower`.

    Related keys, such as user and password, come from one layer. What `upper` sets for all commands, `lower` can't set for a
    single one: a profile's `url` applies to all of them.
    """
    taken = {member for key in upper for member in group(key)}
    return {**{key: found for key, found in lower.items() if taken.isdisjoint((key, key[-1:]))}, **upper}


def group(key: Key) -> frozenset[Key]:
    """List the keys that belong to a key or exclude it, and the key itself."""
    if len(key) > 1:
        return frozenset({key})
    prefix = "dashboards_" if key[0].startswith("dashboards_") else ""
    bare = key[0].removeprefix(prefix).removesuffix("_file")
    for members in _GROUPS:
        if bare in members or key[0].removeprefix(prefix) in members:
            return frozenset((prefix + name + end,) for name in members for end in ("", "_file"))
    return frozenset({key, (prefix + bare,), (f"{prefix}{bare}_file",)})


def of_cluster(key: Key, prefix: str = "") -> bool:
    """Return whether a key concerns authentication or TLS of the cluster; with prefix `dashboards_`, of Dashboards or Kibana."""
    return any((prefix + name,) in group(key) for name in ("user", "ca_file", "client_cert"))


def _flat(path: Path, table: Mapping[str, Any], where: str, known: Known, above: Key = ()) -> Iterator[tuple[Key, Found]]:
    profile = "" if where == str(path) else f", {where}"
    place = f"{path}{profile}" + (f" [{'.'.join(above)}]" if above else "")
    for written, value in table.items():
        key = (*above, written if isinstance(value, dict) else written.replace("-", "_"))
        if key in known:
            yield key, Found(value=_checked(path, place, key[-1], value, known[key]), where=where)
        elif isinstance(value, dict) and any(each[: len(key)] == key for each in known):
            yield from _flat(path, value, where, known, key)
        elif any(each[: len(key)] == key for each in known):
            raise UsageError(f"{place}: {written} must be a table", f"Write [{'.'.join(key)}] and keys below it.")
        else:
            there = {each[len(above)] for each in known if each[: len(above)] == above}
            raise UsageError(f"{place}: unknown key {written!r}", _nearest(key[-1], there, _SEE))


def _checked(path: Path, place: str, name: str, value: Any, kind: Kind) -> Any:  # noqa: ANN401
    resolved = _resolved(path, value, kind)
    if name == "profile" and isinstance(value, dict):
        raise UsageError(f"{place}: profile must be {kind.wanted}", "Did you mean [profiles.NAME], for a profile of its own?")
    if not kind.accepts(resolved):
        raise UsageError(f"{place}: {name} must be {kind.wanted}", _SEE)
    if name.endswith("url") and holds_password(resolved):
        prefix = name.removesuffix("url")
        raise UsageError(f"{place}: {name} holds a password", f"Write {prefix}user = and {prefix}password_file = next to it.")
    return resolved


def _resolved(path: Path, value: Any, kind: Kind) -> Any:  # noqa: ANN401
    """Expand `~/`, and resolve relative paths against the folder of the configuration file."""
    if isinstance(value, list):
        return [_resolved(path, each, kind) for each in value]
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path(value).expanduser())
    return str(path.absolute().parent / value) if kind.path and isinstance(value, str) and value else value


def holds_password(url: str) -> bool:
    """Return whether one of the comma-separated URLs contains a password, which may itself contain commas."""
    try:
        return any(urlsplit(part).password for part in split_nodes(url))
    except ValueError:
        return False  # reported where the URL is parsed


def _check_secrets(path: Path, keys: list[Key]) -> None:
    secret = next((key[-1] for key in keys if key[-1] in SECRETS), None)
    if secret and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(
            f"{path} holds a secret ({secret}), and others on this machine may read it",
            f"Run chmod 600 {path}, or write {secret}_file = with the name of a file that holds it.",
        )


def _nearest(name: str, known: Mapping[str, Any] | set[str], otherwise: str) -> str:
    near = get_close_matches(name, known, 1)
    if near:
        return f"Did you mean {near[0]!r}?"
    return f"Known: {', '.join(sorted(known))}." if 0 < len(known) <= _FEW else otherwise


def parse(text: str, where: str, remedy: str) -> dict[str, Any]:
    """Parse a TOML text.

    Args:
        text: The text.
        where: Where it comes from, for the error.
        remedy: Remedy of the error.

    Raises:
        UsageError: If it isn't TOML; names the position.
    """
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{where} isn't TOML: {error}", remedy) from None

"""The configuration file: TOML with defaults and profiles, which are tables of settings for a cluster.

Pure, except for reading the file. The known keys are given by the caller: see `stair_es.cli`.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit

from platformdirs import user_config_path

from stair_es.errors import UsageError
from stair_es.system.user_files import MAX_TOML_BYTES, parse_toml_text, read_text_file
from stair_es.urls import split_node_urls

OptionKey: TypeAlias = tuple[str, ...]
"""The tables above a value, and its name: `("ingest", "batch_size")`."""

SECRET_KEYS = (
    "password",
    "api_key",
    "bearer_token",
    "serve_token",
    "encoder_token",
    "dashboards_password",
    "dashboards_api_key",
    "dashboards_token",
)
"""Each can be read from a file instead, which is set by the key with the suffix `_file`."""
_LOGIN_KEYS = ("user", "password", "api_key", "bearer_token", "token", "aws_service", "aws_region")
_KEY_GROUPS = (_LOGIN_KEYS, ("ca_file", "ca_fingerprint"), ("client_cert", "client_key"))
_MAX_SUGGESTED = 12
_UNSAFE_PREFIXES = ("no_", "allow_", "force_")
_UNSAFE_KEYS = ("follow_links", "trust_remote_code")
_PROFILES_REMEDY = "Write [profiles.NAME] and keys below it."
_KEY_REMEDY = "See docs/configuration.md, or --help of the command."


@dataclass(frozen=True, kw_only=True)
class OptionType:
    """The values that an option accepts."""

    accepts: Callable[[Any], bool]
    """Whether a value is valid."""
    expected: str
    """Description of valid values, such as `a string`. Errors show this and never the value, which may be a misplaced secret."""
    is_path: bool = False
    """Whether the value is the path of a file or folder."""


KnownOptions: TypeAlias = Mapping[OptionKey, OptionType]
"""Options that can be set."""


@dataclass(frozen=True, kw_only=True)
class ConfigValue:
    """A value from the file."""

    value: Any
    origin: str
    """Where it was set, for messages: `profile prod`, or the path of the file."""


ConfigValues: TypeAlias = Mapping[OptionKey, ConfigValue]


def get_default_config_path() -> Path:
    """Return the default path of the file. Never in the working folder: an untrusted clone may contain one."""
    return user_config_path("stair-es") / "config.toml"


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the values of a file.

    Raises:
        UsageError: If it can't be read, or isn't TOML.
    """
    remedy = "See docs/configuration.md for an example."
    try:
        return parse_toml(read_text_file(path, MAX_TOML_BYTES), str(path), remedy)
    except OSError as error:
        raise UsageError(f"can't read the configuration {path}: {error.strerror}", "Specify a TOML file with --config.") from None
    except UnicodeDecodeError as error:
        raise UsageError(f"{path} isn't TOML: not UTF-8 at byte {error.start}", remedy) from None
    except ValueError as error:
        raise UsageError(f"can't read the configuration {path}: {error}", remedy) from None


def is_safe_option(name: str) -> bool:
    """Check that an option doesn't remove a protection, so that it may be suggested for one that is unknown."""
    key = name.lstrip("-").replace("-", "_")
    return not key.startswith(_UNSAFE_PREFIXES) and key not in _UNSAFE_KEYS


def get_profiles(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return the profiles of a file by name."""
    found = values.get("profiles", {})
    return found if isinstance(found, dict) else {}


def resolve_profile(path: Path, values: Mapping[str, Any], profile: str | None, known: KnownOptions) -> ConfigValues:
    """Resolve the values of a profile; without a profile, those above the profiles. The whole file is checked.

    Raises:
        UsageError: If the profile doesn't exist, a key is unknown, a value is invalid, or others can read a secret.
    """
    rest = {name: value for name, value in values.items() if name != "profiles"}
    layers = {"": dict(_flatten_table(path, rest, str(path), known))}
    for name, table in get_profiles(values).items():
        if not isinstance(table, dict):
            raise UsageError(f"{path}: profiles.{name} must be a table", f"Write [profiles.{name}] and keys below it.")
        layers[name] = dict(_flatten_table(path, table, f"profile {name}", known))
    if "profiles" in values and not isinstance(values["profiles"], dict):
        raise UsageError(f"{path}: profiles must be a table", _PROFILES_REMEDY)
    _check_secrets(path, [key for layer in layers.values() for key in layer])
    if profile is None:
        return layers[""]
    if profile not in get_profiles(values):
        raise UsageError(f"{path} has no profile {profile!r}", _find_nearest(profile, get_profiles(values), _PROFILES_REMEDY))
    return merge_layers(layers[profile], layers[""])


def merge_layers(upper: ConfigValues, lower: ConfigValues) -> ConfigValues:
    """Merge two layers: `upper`, and unset values from `lower`.

    Related keys, such as user and password, come from one layer. What `upper` sets for all commands, `lower` can't set for a
    single one: a profile's `url` applies to all of them.
    """
    taken = {member for key in upper for member in list_related_keys(key)}
    return {**{key: found for key, found in lower.items() if taken.isdisjoint((key, key[-1:]))}, **upper}


def list_related_keys(key: OptionKey) -> frozenset[OptionKey]:
    """List the keys that belong to a key or exclude it, and the key itself."""
    if len(key) > 1:
        return frozenset({key})
    prefix = "dashboards_" if key[0].startswith("dashboards_") else ""
    bare = key[0].removeprefix(prefix).removesuffix("_file")
    for members in _KEY_GROUPS:
        if bare in members or key[0].removeprefix(prefix) in members:
            return frozenset((prefix + name + end,) for name in members for end in ("", "_file"))
    return frozenset({key, (prefix + bare,), (f"{prefix}{bare}_file",)})


def is_auth_key(key: OptionKey, prefix: str = "") -> bool:
    """Return whether a key concerns authentication or TLS of the cluster; with prefix `dashboards_`, of Dashboards or Kibana."""
    return any((prefix + name,) in list_related_keys(key) for name in ("user", "ca_file", "client_cert"))


def _flatten_table(
    path: Path, table: Mapping[str, Any], where: str, known: KnownOptions, prefix: OptionKey = ()
) -> Iterator[tuple[OptionKey, ConfigValue]]:
    profile = "" if where == str(path) else f", {where}"
    location = f"{path}{profile}" + (f" [{'.'.join(prefix)}]" if prefix else "")
    for name, value in table.items():
        key = (*prefix, name if isinstance(value, dict) else name.replace("-", "_"))
        if key in known:
            yield key, ConfigValue(value=_check_value(path, location, key[-1], value, known[key]), origin=where)
        elif isinstance(value, dict) and any(option[: len(key)] == key for option in known):
            yield from _flatten_table(path, value, where, known, key)
        elif any(option[: len(key)] == key for option in known):
            raise UsageError(f"{location}: {name} must be a table", f"Write [{'.'.join(key)}] and keys below it.")
        else:
            names = {option[len(prefix)] for option in known if option[: len(prefix)] == prefix and is_safe_option(option[-1])}
            raise UsageError(f"{location}: unknown key {name!r}", _find_nearest(key[-1], names, _KEY_REMEDY))


def _check_value(path: Path, location: str, name: str, value: Any, option_type: OptionType) -> Any:  # noqa: ANN401
    resolved = _resolve_paths(path, value, option_type)
    if name == "profile" and isinstance(value, dict):
        raise UsageError(
            f"{location}: profile must be {option_type.expected}", "Did you mean [profiles.NAME], for a separate profile?"
        )
    if not option_type.accepts(resolved):
        raise UsageError(f"{location}: {name} must be {option_type.expected}", _KEY_REMEDY)
    if name.endswith("url") and has_password(resolved):
        prefix = name.removesuffix("url")
        raise UsageError(f"{location}: {name} holds a password", f"Write {prefix}user = and {prefix}password_file = next to it.")
    return resolved


def _resolve_paths(path: Path, value: Any, option_type: OptionType) -> Any:  # noqa: ANN401
    """Expand `~/`, and resolve relative paths against the folder of the configuration file."""
    if isinstance(value, list):
        return [_resolve_paths(path, element, option_type) for element in value]
    if isinstance(value, str) and value.startswith("~/"):
        return str(Path(value).expanduser())
    return str(path.absolute().parent / value) if option_type.is_path and isinstance(value, str) and value else value


def has_password(url: str) -> bool:
    """Return whether one of the comma-separated URLs contains a password, which may itself contain commas."""
    try:
        return any(urlsplit(part).password for part in split_node_urls(url))
    except ValueError:
        return False  # reported where the URL is parsed


def _check_secrets(path: Path, keys: list[OptionKey]) -> None:
    secret = next((key[-1] for key in keys if key[-1] in SECRET_KEYS), None)
    if secret and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise UsageError(
            f"{path} holds a secret ({secret}), and is readable by other users of this machine",
            f"Run chmod 600 {path}, or write {secret}_file = with the name of a file that holds it.",
        )


def _find_nearest(name: str, known: Mapping[str, Any] | set[str], default: str) -> str:
    matches = get_close_matches(name, known, 1)
    if matches:
        return f"Did you mean {matches[0]!r}?"
    return f"Known: {', '.join(sorted(known))}." if 0 < len(known) <= _MAX_SUGGESTED else default


def parse_toml(text: str, where: str, remedy: str) -> dict[str, Any]:
    """Parse a TOML text; `where` it comes from, and `remedy`, are for the error.

    Raises:
        UsageError: If it isn't TOML; names the position.
    """
    try:
        return parse_toml_text(text)
    except ValueError as error:
        raise UsageError(f"{where} isn't TOML: {error}", remedy) from None

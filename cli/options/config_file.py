"""The configuration of a run: a TOML file with defaults of options and profiles for clusters, and the environment.

Options of the file become Typer's defaults; keys without an option become variables, which the environment overrides. The
environment of the process is read and never changed: what needs a variable gets `CliConfig.environ`.
"""

from __future__ import annotations

import inspect
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, TypeAlias, get_args

import typer
from platformdirs import user_config_path

from stair_es.config.defaults import ENV_CONFIG
from stair_es.config.settings import Settings
from stair_es.errors import ConfigError, StairError, UsageError
from stair_es.system.user_files import MAX_TOML_BYTES, parse_toml_text, read_text_file
from stair_es.urls import has_password

OptionKey: TypeAlias = tuple[str, ...]
"""The tables above a value, and its name: `("ingest", "batch_size")`."""

_TOKENS = ("bearer_token", "serve_token", "encoder_token", "dashboards_token")
SECRET_KEYS = ("password", "api_key", "dashboards_password", "dashboards_api_key", *_TOKENS)
"""Each can be read from a file instead, which is set by the key with the suffix `_file`."""
_TEXT_KEYS = ("user", "dashboards_user", "node_heap", "trust_remote_code", *SECRET_KEYS)
_PATH_KEYS = ("home", *(f"{name}_file" for name in ("user", "dashboards_user", *SECRET_KEYS)))
_VARIABLE_KEYS = frozenset((name,) for name in ("node_port", *_TEXT_KEYS, *_PATH_KEYS))
"""Keys without an option."""
_LOGIN_KEYS = ("user", "password", "api_key", "bearer_token", "token", "aws_service", "aws_region")
_KEY_GROUPS = (_LOGIN_KEYS, ("ca_file", "ca_fingerprint"), ("client_cert", "client_key"))
_MAX_SUGGESTED = 12
_UNSAFE_PREFIXES = ("no_", "allow_", "force_")
_UNSAFE_KEYS = ("follow_links", "trust_remote_code")
_PROFILES_REMEDY = "Write [profiles.NAME] and keys below it."
_KEY_REMEDY = "See docs/configuration.md, or --help of the command."


@dataclass(frozen=True, kw_only=True)
class KeyType:
    """The values that a key of the file accepts."""

    accepts: Callable[[Any], bool]
    expected: str
    """Description of valid values, such as `a string`. Errors show this and never the value, which may be a misplaced secret."""
    is_path: bool = False


KnownKeys: TypeAlias = Mapping[OptionKey, KeyType]


@dataclass(frozen=True, kw_only=True)
class ConfigValue:
    """A value from the file."""

    value: Any
    origin: str
    """Where it was set, for messages: `profile prod`, or the path of the file."""


ConfigValues: TypeAlias = Mapping[OptionKey, ConfigValue]


@dataclass(frozen=True, kw_only=True)
class CliConfig:
    """The configuration of a run: the environment, and the configuration file with the active profile."""

    path: Path | None = None
    """None if there is no file."""
    profile: str | None = None
    values: ConfigValues = field(default_factory=dict)
    error: StairError | None = None
    """Error in the file, for commands that run nevertheless."""
    effective: ConfigValues = field(default_factory=dict)
    """The values that the environment doesn't override."""
    default_map: Mapping[str, Any] = field(default_factory=dict)
    """Typer's defaults: command -> parameter -> value."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The environment, with the values of the file for variables that no option covers."""

    def get_text(self, name: str) -> str | None:
        """Return a top-level value as text."""
        return str(self.values[(name,)].value) if (name,) in self.values else None

    @property
    def settings(self) -> Settings:
        """The settings that belong to no connection."""
        return Settings.from_env(self.environ)

    def resolve_for_url(
        self, url: str | None, options: Mapping[str, Any], from_file: Collection[str], prefix: str = ""
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the options, None for those that don't apply to a connection to `url`, and the variables that apply.

        Values of the file don't apply if the file sets them for another URL, or if a related option was given. `from_file` names
        the options that come from the file; `prefix` is that of the keys, `dashboards_` for the product.
        """
        foreign = self._is_foreign(url, prefix)
        given_keys = {(name,) for name, value in options.items() if name not in from_file and value is not None}
        dropped = {name for name in from_file if foreign or list_related_keys((name,)) & given_keys}
        foreign_variables = {get_env_variable(key) for key in self.effective if foreign and is_auth_key(key, prefix)}
        return (
            {name: None if name in dropped else value for name, value in options.items()},
            {name: value for name, value in self.environ.items() if name not in foreign_variables},
        )

    def _is_foreign(self, url: str | None, prefix: str) -> bool:
        name = f"{prefix}url"
        top_level = [value for key, value in self.values.items() if key == (name,)]
        values = top_level or [value for key, value in self.values.items() if key[-1] == name]
        return url is not None and bool(values) and url.rstrip("/") not in {str(value.value).rstrip("/") for value in values}


_current: ContextVar[CliConfig] = ContextVar("current")


def load_config(context: typer.Context, path: Path | None, profile: str | None, *, tolerant: bool) -> CliConfig:
    """Load the configuration file, and apply it to the following command until the root context closes.

    Without `path` it is the file at the default path, if there is one. If `tolerant`, an error in the file is recorded only.

    Raises:
        UsageError: If the file or the profile doesn't exist, or a value is invalid.
    """
    try:
        config = _read_config(context, path, profile)
    except UsageError as error:
        if not tolerant:
            raise
        config = CliConfig(path=path or get_default_config_path(), profile=profile, error=error)
    effective = {key: value for key, value in config.values.items() if len(key) > 1 or not _is_overridden(key)}
    variables = {get_env_variable(key): str(effective[key].value) for key in effective if key in _VARIABLE_KEYS}
    context.default_map = default_map = _build_default_map(context.command, effective)
    resolved = replace(config, effective=effective, default_map=default_map, environ={**os.environ, **variables})
    token = _current.set(resolved)
    context.call_on_close(lambda: _current.reset(token))
    return resolved


def get_config() -> CliConfig:
    """Return the configuration of the running command; outside of one, that of the environment."""
    return _current.get(None) or CliConfig()


def get_default_config_path() -> Path:
    """Return the default path of the file; never in the working folder, since an untrusted clone may contain one."""
    return user_config_path("stair-es") / "config.toml"


def complete_profiles(context: typer.Context) -> list[str]:
    """Return the names of the profiles, for shell completion."""
    try:
        path = context.params.get("config_file") or os.environ.get(ENV_CONFIG) or get_default_config_path()
        profiles = read_config_file(Path(path)).get("profiles")
        return sorted(profiles) if isinstance(profiles, dict) else []
    except UsageError:
        return []


def get_env_variable(key: OptionKey) -> str:
    """Return the environment variable of a top-level key."""
    return f"STAIR_ES_{key[0].upper()}"


def map_env_variables(root: Any) -> dict[OptionKey, str]:  # noqa: ANN401
    """Map top-level keys to the environment variables that override them, where the name differs from the key."""
    return {(name,): option.envvar for _, name, option, _ in _iterate_options(root) if option.envvar}


def _is_overridden(key: OptionKey) -> bool:
    """Return whether the environment sets a top-level key, or one that conflicts with it."""
    variables = map(get_env_variable, list_related_keys(key))
    return any(os.environ.get(variable) or os.environ.get(f"{variable}_FILE") for variable in variables)


def _build_default_map(root: Any, values: ConfigValues) -> dict[str, Any]:  # noqa: ANN401
    """Return Typer's default map. The table of a command overrides the top level."""
    default_map: dict[str, Any] = {}
    for path, name, option, _ in _iterate_options(root):
        value = values.get((*path, name)) or (values.get((name,)) if option.envvar else None)
        if value is not None:
            table = default_map
            for command in path:
                table = table.setdefault(command, {})
            table[option.name] = [value.value] if option.multiple and not isinstance(value.value, list) else value.value
    return default_map


def _iterate_options(command: Any, path: OptionKey = ()) -> Iterator[tuple[OptionKey, str, Any, Any]]:  # noqa: ANN401
    """Yield the options below a command that a file may set: command names, own name, option, annotation."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _iterate_options(inner, (*path, name))
    declared = inspect.signature(command.callback).parameters if path and command.callback else {}
    for option in command.params if path else ():
        longest = max(option.opts, key=len)
        if longest.startswith("-") and not option.is_eager and longest != "--help":
            yield path, longest.lstrip("-").replace("-", "_"), option, declared[option.name].annotation


def list_known_keys(context: typer.Context) -> dict[OptionKey, KeyType]:
    """Return all keys of a file: each option in the table of its command, and shared options at the top level."""
    types: dict[OptionKey, KeyType] = {("node_port",): _WHOLE_NUMBER, ("profile",): _STRING, ("log_format",): _LOG_FORMAT}
    types |= {(name,): _STRING for name in _TEXT_KEYS}
    types |= {(name,): replace(_STRING, is_path=True) for name in _PATH_KEYS}
    for path, name, option, annotation in _iterate_options(context.find_root().command):
        types[(*path, name)] = key_type = _build_key_type(context, name, option, annotation)
        if option.envvar:
            types.setdefault((name,), key_type)
    return types


_STRING = KeyType(accepts=lambda value: isinstance(value, str), expected="a string")
_WHOLE_NUMBER = KeyType(accepts=lambda value: isinstance(value, int) and not isinstance(value, bool), expected="a whole number")
_LOG_FORMAT = KeyType(accepts=lambda value: value in ("text", "json"), expected="one of text, json")


def _build_key_type(context: typer.Context, name: str, option: Any, annotation: Any) -> KeyType:  # noqa: ANN401
    declared, info = get_args(annotation)[:2]
    kinds = _list_kinds(declared)
    is_path = Path in kinds or name.endswith(("_file", "client_cert", "client_key"))
    choices = sorted(kind for kind in kinds if isinstance(kind, str))

    def is_accepted(value: Any) -> bool:  # noqa: ANN401
        values = value if isinstance(value, list) and option.multiple else [value]
        if any(option.is_flag != isinstance(element, bool) or isinstance(element, (list, dict)) for element in values):
            return False
        if is_path:  # whether it exists is checked on use
            return all(isinstance(element, str) for element in values)
        try:
            option.process_value(context, values if option.multiple else value)
        except typer.BadParameter:
            return False
        return True

    if option.is_flag:
        return KeyType(accepts=is_accepted, expected="true or false", is_path=is_path)
    number = "a whole number" if int in kinds else "a number" if float in kinds else None
    expected = f"one of {', '.join(choices)}" if choices else number or ("a path" if is_path else "a string")
    expected += f", at least {info.min}" * (info.min is not None) + f", at most {info.max}" * (info.max is not None)
    return KeyType(accepts=is_accepted, expected=expected + ", or a list of these" * option.multiple, is_path=is_path)


def _list_kinds(annotation: Any) -> set[Any]:  # noqa: ANN401
    """Return the parts of an annotation, such as `int`, and the values of a `Literal`."""
    return {annotation}.union(*map(_list_kinds, get_args(annotation)))


def _read_config(context: typer.Context, path: Path | None, profile: str | None) -> CliConfig:
    config_path = path or get_default_config_path()
    if path is None and not config_path.is_file():
        if profile is not None:
            raise ConfigError(
                f"--profile {profile}: there is no configuration file {config_path}",
                f"Create it, or specify another one: --config FILE / {ENV_CONFIG}.",
            )
        return CliConfig()
    values, known_keys = read_config_file(config_path), list_known_keys(context)
    profile = profile or values.get("profile")
    return CliConfig(path=config_path, profile=profile, values=resolve_profile(config_path, values, profile, known_keys))


def read_config_file(path: Path) -> dict[str, Any]:
    """Read the values of a file.

    Raises:
        UsageError: If it can't be read, or isn't TOML.
    """
    remedy = "See docs/configuration.md for an example."
    try:
        text = read_text_file(path, MAX_TOML_BYTES)
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}", "Specify a TOML file with --config.") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} isn't TOML: not UTF-8 at byte {error.start}", remedy) from None
    except ValueError as error:
        raise ConfigError(f"can't read the configuration {path}: {error}", remedy) from None
    try:
        return parse_toml_text(text)
    except ValueError as error:
        raise ConfigError(f"{path} isn't TOML: {error}", remedy) from None


def is_safe_option(name: str) -> bool:
    """Return whether an option doesn't remove a protection, so that it may be suggested for one that is unknown."""
    key = name.lstrip("-").replace("-", "_")
    return not key.startswith(_UNSAFE_PREFIXES) and key not in _UNSAFE_KEYS


def resolve_profile(path: Path, values: Mapping[str, Any], profile: str | None, known: KnownKeys) -> ConfigValues:
    """Resolve the values of a profile; without a profile, those above the profiles. The whole file is checked.

    Raises:
        UsageError: If the profile doesn't exist, a key is unknown, a value is invalid, or others can read a secret.
    """
    rest = dict(values)
    profiles = rest.pop("profiles", {})
    layers = {"": dict(_flatten_table(path, rest, str(path), known))}
    if not isinstance(profiles, dict):
        raise ConfigError(f"{path}: profiles must be a table", _PROFILES_REMEDY)
    for name, table in profiles.items():
        if not isinstance(table, dict):
            raise ConfigError(f"{path}: profiles.{name} must be a table", f"Write [profiles.{name}] and keys below it.")
        layers[name] = dict(_flatten_table(path, table, f"profile {name}", known))
    _check_secrets(path, [key for layer in layers.values() for key in layer])
    if profile is None:
        return layers[""]
    if profile not in profiles:
        raise ConfigError(f"{path} has no profile {profile!r}", _find_nearest(profile, profiles, _PROFILES_REMEDY))
    return _merge_layers(layers[profile], layers[""])


def _merge_layers(upper: ConfigValues, lower: ConfigValues) -> ConfigValues:
    """Add to `upper` what it doesn't set. Related keys, such as user and password, come from one layer.

    What `upper` sets for all commands, `lower` can't set for a single one: a profile's `url` applies to all of them.
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
    path: Path, table: Mapping[str, Any], where: str, known: KnownKeys, prefix: OptionKey = ()
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
            raise ConfigError(f"{location}: {name} must be a table", f"Write [{'.'.join(key)}] and keys below it.")
        else:
            names = {option[len(prefix)] for option in known if option[: len(prefix)] == prefix and is_safe_option(option[-1])}
            raise ConfigError(f"{location}: unknown key {name!r}", _find_nearest(key[-1], names, _KEY_REMEDY))


def _check_value(path: Path, location: str, name: str, value: Any, key_type: KeyType) -> Any:  # noqa: ANN401
    resolved = _resolve_paths(path, value, key_type)
    if not key_type.accepts(resolved):
        is_misspelled = name == "profile" and isinstance(value, dict)
        remedy = "Did you mean [profiles.NAME], for a separate profile?" if is_misspelled else _KEY_REMEDY
        raise ConfigError(f"{location}: {name} must be {key_type.expected}", remedy)
    if name.endswith("url") and has_password(str(resolved)):
        prefix = name.removesuffix("url")
        raise ConfigError(f"{location}: {name} holds a password", f"Write {prefix}user = and {prefix}password_file = next to it.")
    return resolved


def _resolve_paths(path: Path, value: Any, key_type: KeyType) -> Any:  # noqa: ANN401
    """Expand `~/`, and resolve relative paths against the folder of the configuration file."""
    if isinstance(value, list):
        return [_resolve_paths(path, element, key_type) for element in value]
    if not isinstance(value, str):
        return value
    if value.startswith("~/"):
        return str(Path(value).expanduser())
    return str(path.absolute().parent / value) if key_type.is_path and value else value


def _check_secrets(path: Path, keys: list[OptionKey]) -> None:
    secret = next((key[-1] for key in keys if key[-1] in SECRET_KEYS), None)
    if secret and os.name == "posix" and stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise ConfigError(
            f"{path} holds a secret ({secret}), and is readable by other users of this machine",
            f"Run chmod 600 {path}, or write {secret}_file = with the name of a file that holds it.",
        )


def _find_nearest(name: str, known: Mapping[str, Any] | set[str], default: str) -> str:
    matches = get_close_matches(name, known, 1)
    if matches:
        return f"Did you mean {matches[0]!r}?"
    return f"Known: {', '.join(sorted(known))}." if 0 < len(known) <= _MAX_SUGGESTED else default

"""Configuration of a run, resolved once: options of the file as Typer defaults, the rest as variables below the environment's.

The environment of the process is read and never changed: what needs a variable gets `CliConfig.environ`.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from stair_es.config.defaults import ENV_CONFIG
from stair_es.config.file import (
    SECRET_KEYS,
    ConfigValues,
    OptionKey,
    OptionType,
    get_default_config_path,
    get_profiles,
    is_auth_key,
    list_related_keys,
    read_config_file,
    resolve_profile,
)
from stair_es.config.settings import Settings
from stair_es.errors import StairError, UsageError

_PREFIX = "STAIR_ES_"
_TEXT_KEYS = ("user", "dashboards_user", "node_heap", "trust_remote_code", *SECRET_KEYS)
LOG_FORMATS = ("text", "json")
_PATH_KEYS = ("home", *(f"{name}_file" for name in ("user", "dashboards_user", *SECRET_KEYS)))


@dataclass(frozen=True, kw_only=True)
class CliConfig:
    """The configuration of a run: the environment, and the configuration file with the active profile."""

    path: Path | None = None
    """None if there is no file."""
    profile: str | None = None
    values: ConfigValues = field(default_factory=dict)
    error: StairError | None = None
    """Error in the file, for commands that run nevertheless."""
    environ: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The environment, with the values of the file for variables that no option covers."""
    file_keys: frozenset[OptionKey] = frozenset()
    """Keys whose variables in `environ` come from the file."""
    effective_keys: frozenset[OptionKey] = frozenset()
    """Keys that the environment doesn't override."""
    default_map: Mapping[str, Any] = field(default_factory=dict)
    """Command -> parameter -> value."""

    def get_text(self, name: str) -> str | None:
        """Return a top-level value as text."""
        found = self.values.get((name,))
        return None if found is None else str(found.value)

    @property
    def settings(self) -> Settings:
        """The settings that belong to no connection."""
        return Settings.from_env(self.environ)

    def resolve_for_url(
        self, url: str | None, options: Mapping[str, Any], from_file: Collection[str], prefix: str = ""
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the options and the variables that apply to a connection to `url`.

        Values of the file don't apply if the file sets them for another URL, or if a related option was given.

        Args:
            url: URL of the cluster, or of the product.
            options: Parameter -> value.
            from_file: Parameters whose value comes from the file.
            prefix: Prefix of the keys: `dashboards_` for the product.

        Returns:
            Parameter -> value, None for those that don't apply; and variables.
        """
        foreign = self._is_foreign(url, prefix)
        given_keys = {(name,) for name, value in options.items() if name not in from_file and value is not None}
        dropped = {name for name in from_file if foreign or list_related_keys((name,)) & given_keys}
        foreign_variables = {get_env_variable(key) for key in self.file_keys if foreign and is_auth_key(key, prefix)}
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
    """Load the configuration file, and apply it to the following command until the context closes.

    Args:
        context: Context of the root command.
        path: Path that was given, or None for the default path if the file exists.
        profile: Profile that was given.
        tolerant: Whether an error in the file is recorded only.

    Raises:
        UsageError: If the file or the profile doesn't exist, or a value is invalid.
    """
    try:
        settings = _read_config(context, path, profile)
    except UsageError as error:
        if not tolerant:
            raise
        settings = CliConfig(path=path or get_default_config_path(), profile=profile, error=error)
    effective = _drop_overridden(settings.values, os.environ)
    context.default_map = default_map = build_default_map(context.command, effective)
    file_keys = {key for key in effective if len(key) == 1 and key[0] in (*_TEXT_KEYS, *_PATH_KEYS, "node_port")}
    resolved = replace(
        settings,
        environ={**os.environ, **{get_env_variable(key): str(effective[key].value) for key in file_keys}},
        file_keys=frozenset(file_keys),
        effective_keys=frozenset(effective),
        default_map=default_map,
    )
    token = _current.set(resolved)
    context.call_on_close(lambda: _current.reset(token))
    return resolved


def get_config() -> CliConfig:
    """Return the configuration of the running command; outside of one, that of the environment."""
    return _current.get(None) or CliConfig()


def list_known_keys(context: typer.Context) -> dict[OptionKey, OptionType]:
    """Return all keys of a file: each option in the table of its command, and shared options at the top level."""
    types: dict[OptionKey, OptionType] = {("node_port",): _WHOLE_NUMBER, ("profile",): _STRING, ("log_format",): _LOG_FORMAT}
    types |= {(name,): _STRING for name in _TEXT_KEYS}
    types |= {(name,): replace(_STRING, is_path=True) for name in _PATH_KEYS}
    for path, name, option, hint in _iterate_options(context.find_root().command):
        option_type = _build_option_type(context, name, option, hint)
        types[(*path, name)] = option_type
        if option.envvar:
            types.setdefault((name,), option_type)
    return types


def build_default_map(root: Any, values: ConfigValues) -> dict[str, Any]:  # noqa: ANN401
    """Build Typer's default map: command -> parameter -> value. The table of a command overrides the top level."""
    default_map: dict[str, Any] = {}
    for path, name, option, _ in _iterate_options(root):
        value = values.get((*path, name)) or (values.get((name,)) if option.envvar else None)
        if value is not None:
            table = default_map
            for command in path:
                table = table.setdefault(command, {})
            table[option.name] = [value.value] if option.multiple and not isinstance(value.value, list) else value.value
    return default_map


def complete_profiles(context: typer.Context) -> list[str]:
    """Return the names of the profiles, for shell completion."""
    try:
        path = context.params.get("config_file") or os.environ.get(ENV_CONFIG) or get_default_config_path()
        return sorted(get_profiles(read_config_file(Path(path))))
    except UsageError:
        return []


def map_env_variables(root: Any) -> dict[OptionKey, str]:  # noqa: ANN401
    """Map top-level keys to the environment variables that override them, where the name differs from the key."""
    return {(name,): option.envvar for _, name, option, _ in _iterate_options(root) if option.envvar}


def get_env_variable(key: OptionKey) -> str:
    """Return the environment variable of a top-level key."""
    return _PREFIX + key[0].upper()


def _read_config(context: typer.Context, path: Path | None, profile: str | None) -> CliConfig:
    config_path = path or get_default_config_path()
    if path is None and not config_path.is_file():
        if profile is not None:
            raise UsageError(
                f"--profile {profile}: there is no configuration file {config_path}",
                f"Create it, or specify another one: --config FILE / {ENV_CONFIG}.",
            )
        return CliConfig()
    values, known_keys = read_config_file(config_path), list_known_keys(context)
    profile = profile or values.get("profile")
    return CliConfig(path=config_path, profile=profile, values=resolve_profile(config_path, values, profile, known_keys))


def _drop_overridden(values: ConfigValues, environ: Mapping[str, str]) -> ConfigValues:
    """Drop values that the environment sets, or that conflict with it."""

    def is_set(key: OptionKey) -> bool:
        return any(
            environ.get(get_env_variable(related)) or environ.get(f"{get_env_variable(related)}_FILE")
            for related in list_related_keys(key)
        )

    return {key: found for key, found in values.items() if len(key) > 1 or not is_set(key)}


def _iterate_options(command: Any, path: OptionKey = ()) -> Iterator[tuple[OptionKey, str, Any, Any]]:  # noqa: ANN401
    """Yield the options below a command that a file may set: command names, own name, option, annotation."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _iterate_options(inner, (*path, name))
    hints = get_type_hints(command.callback) if path and command.callback else {}
    for option in command.params if path else ():
        longest = max(option.opts, key=len)
        if longest.startswith("-") and not option.is_eager and longest != "--help":
            yield path, longest.lstrip("-").replace("-", "_"), option, hints.get(option.name)


def _build_option_type(context: typer.Context, name: str, option: Any, hint: Any) -> OptionType:  # noqa: ANN401
    is_path = Path in (hint, *get_args(hint)) or any(Path in get_args(part) for part in get_args(hint))
    is_path = is_path or name.endswith(("_file", "client_cert", "client_key"))

    def is_accepted(value: Any) -> bool:  # noqa: ANN401
        values = value if isinstance(value, list) and option.multiple else [value]
        if any(option.is_flag != isinstance(element, bool) or isinstance(element, (list, dict)) for element in values):
            return False
        if is_path:  # whether it exists is checked on use
            return all(isinstance(element, str) for element in values)
        return _can_convert(context, option, values if option.multiple else value)

    return OptionType(accepts=is_accepted, expected=_describe_values(option, hint, is_path), is_path=is_path)


def _can_convert(context: typer.Context, option: Any, value: Any) -> bool:  # noqa: ANN401
    try:
        option.process_value(context, value)
    except typer.BadParameter:
        return False
    return True


def _describe_values(option: Any, hint: Any, is_path: bool) -> str:  # noqa: ANN401
    """Describe the values of an option."""
    if option.is_flag:
        return "true or false"
    kinds = {kind for part in (hint, *get_args(hint)) for kind in (part, *get_args(part))}
    choices = [kind for kind in kinds if isinstance(kind, str)]
    if choices:
        described = f"one of {', '.join(sorted(choices))}"
    elif kinds & {int, float}:
        described = "a whole number" if int in kinds else "a number"
    else:
        described = "a path" if is_path else "a string"
    low, high = _get_bound(option, "min"), _get_bound(option, "max")
    described += f", at least {low}" * (low is not None) + f", at most {high}" * (high is not None)
    return f"{described}, or a list of these" if option.multiple else described


def _get_bound(option: Any, name: str) -> Any:  # noqa: ANN401
    """Return `min` or `max` of an option; Typer versions keep it in different places."""
    return getattr(option, name, getattr(getattr(option, "type", None), name, None))


_STRING = OptionType(accepts=lambda value: isinstance(value, str), expected="a string")
_WHOLE_NUMBER = OptionType(
    accepts=lambda value: isinstance(value, int) and not isinstance(value, bool), expected="a whole number"
)
_LOG_FORMAT = OptionType(accepts=lambda value: value in LOG_FORMATS, expected=f"one of {', '.join(LOG_FORMATS)}")


def list_file_parameters(context: typer.Context, names: Iterable[str]) -> set[str]:
    """Return the parameters whose value comes from the configuration file."""
    return {name for name in names if (source := context.get_parameter_source(name)) and source.name == "DEFAULT_MAP"}

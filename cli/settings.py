"""Values of the configuration file for the commands: options as Typer defaults, the rest through the environment."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from stair_es.config import ENV_CONFIG
from stair_es.errors import StairError, UsageError
from stair_es.profiles import SECRETS, Key, Kind, Values, chosen, default_path, group, of_cluster, profiles, read

_PREFIX = "STAIR_ES_"
_TEXTS = ("user", "dashboards_user", "node_heap", "trust_remote_code", *SECRETS)
LOG_FORMATS = ("text", "json")
_PATHS = ("home", *(f"{name}_file" for name in ("user", "dashboards_user", *SECRETS)))


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Values of the configuration file with the active profile."""

    path: Path | None = None
    """None if there is no file."""
    profile: str | None = None
    values: Values = field(default_factory=dict)
    error: StairError | None = None
    """Error in the file, for commands that run nevertheless."""
    exported: frozenset[Key] = frozenset()
    """Keys that were exported to the environment."""
    holds: frozenset[Key] = frozenset()
    """Keys that the environment doesn't override."""

    def text(self, name: str) -> str | None:
        """Return a top-level value as text."""
        found = self.values.get((name,))
        return None if found is None else str(found.value)

    def environ(self, url: str | None, prefix: str = "") -> dict[str, str]:
        """Return the environment for a connection to `url`, without logins that the file sets for another URL."""
        theirs = {variable(key) for key in self.exported if of_cluster(key, prefix)} if self._foreign(url, prefix) else set()
        return {name: value for name, value in os.environ.items() if name not in theirs}

    def options(self, context: typer.Context, given: Mapping[str, Any], url: str | None, prefix: str = "") -> dict[str, Any]:
        """Select the options that apply to a connection to `url`.

        Values of the file don't apply if the file sets them for another URL, or if a related option was given.

        Args:
            context: Context of the command.
            given: Parameter -> value.
            url: URL of the cluster, or of the product.
            prefix: Prefix of the keys: `dashboards_` for the product.

        Returns:
            Parameter -> value, None for those that don't apply.
        """
        ours = {name for name in given if _source(context, name) == "DEFAULT_MAP"}
        own = {(name,) for name in given if name not in ours and given[name] is not None}
        foreign = self._foreign(url, prefix)
        left_out = {name for name in ours if foreign or group((name,)) & own}
        return {name: None if name in left_out else value for name, value in given.items()}

    def _foreign(self, url: str | None, prefix: str) -> bool:
        name = f"{prefix}url"
        beside = [found for key, found in self.values.items() if key == (name,)]
        known = beside or [found for key, found in self.values.items() if key[-1] == name]
        return url is not None and bool(known) and url.rstrip("/") not in {str(each.value).rstrip("/") for each in known}


def take(context: typer.Context, path: Path | None, profile: str | None, *, tolerant: bool) -> Settings:
    """Load the configuration file, and apply it to the following command; undone when the context closes.

    Args:
        context: Context of the root command.
        path: Path that was given, or None for the default path if the file exists.
        profile: Profile that was given.
        tolerant: Whether an error in the file is recorded only.

    Returns:
        The configuration.

    Raises:
        UsageError: If the file or the profile doesn't exist, or a value is invalid.
    """
    try:
        settings = _read(context, path, profile)
    except UsageError as error:
        if not tolerant:
            raise
        settings = Settings(path=path or default_path(), profile=profile, error=error)
    taken = _beside_environment(settings.values, os.environ)
    context.default_map = default_map(context.command, taken)
    exported = {key for key in taken if len(key) == 1 and key[0] in (*_TEXTS, *_PATHS, "node_port")}
    before = {name: os.environ.get(name) for name in map(variable, exported)}
    os.environ.update({variable(key): str(taken[key].value) for key in exported})
    context.call_on_close(lambda: _restore(before))
    held = replace(settings, exported=frozenset(exported), holds=frozenset(taken))
    context.obj = held
    return held


def of(context: typer.Context | None) -> Settings:
    """Return the configuration that `load_config` loaded."""
    found = context.find_root().obj if context is not None else None
    return found if isinstance(found, Settings) else Settings()


def known(context: typer.Context) -> dict[Key, Kind]:
    """Return all keys of a file: each option in the table of its command, and shared options at the top level."""
    found: dict[Key, Kind] = {("node_port",): _WHOLE_NUMBER, ("profile",): _STRING, ("log_format",): _LOG_FORMAT}
    found |= {(name,): _STRING for name in _TEXTS}
    found |= {(name,): replace(_STRING, path=True) for name in _PATHS}
    for path, name, option, hint in _options(context.find_root().command):
        kind = _kind(context, name, option, hint)
        found[(*path, name)] = kind
        if option.envvar:
            found.setdefault((name,), kind)
    return found


def default_map(root: Any, values: Values) -> dict[str, Any]:  # noqa: ANN401
    """Build Typer's default map: command -> parameter -> value. The table of a command overrides the top level."""
    made: dict[str, Any] = {}
    for path, name, option, _ in _options(root):
        value = values.get((*path, name)) or (values.get((name,)) if option.envvar else None)
        if value is not None:
            table = made
            for command in path:
                table = table.setdefault(command, {})
            table[option.name] = [value.value] if option.multiple and not isinstance(value.value, list) else value.value
    return made


def complete_profiles(context: typer.Context) -> list[str]:
    """Return the names of the profiles, for shell completion."""
    try:
        return sorted(profiles(read(Path(context.params.get("config_file") or os.environ.get(ENV_CONFIG) or default_path()))))
    except UsageError:
        return []


def variables(root: Any) -> dict[Key, str]:  # noqa: ANN401
    """Map top-level keys to the environment variables that override them, where the name differs from the key."""
    return {(name,): option.envvar for _, name, option, _ in _options(root) if option.envvar}


def variable(key: Key) -> str:
    """Return the environment variable of a top-level key."""
    return _PREFIX + key[0].upper()


def _read(context: typer.Context, path: Path | None, profile: str | None) -> Settings:
    found = path or default_path()
    if path is None and not found.is_file():
        if profile is not None:
            raise UsageError(
                f"--profile {profile}: there is no configuration {found}",
                f"Create it, or name another one: --config FILE / {ENV_CONFIG}.",
            )
        return Settings()
    values, kinds = read(found), known(context)
    profile = profile or values.get("profile")
    return Settings(path=found, profile=profile, values=chosen(found, values, profile, kinds))


def _beside_environment(values: Values, environ: Mapping[str, str]) -> Values:
    """Drop values that the environment sets, or that conflict with it."""

    def is_set(key: Key) -> bool:
        return any(environ.get(variable(each)) or environ.get(f"{variable(each)}_FILE") for each in group(key))

    return {key: found for key, found in values.items() if len(key) > 1 or not is_set(key)}


def _restore(before: Mapping[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _options(command: Any, path: Key = ()) -> Iterator[tuple[Key, str, Any, Any]]:  # noqa: ANN401
    """Yield the options below a command that a file may set: command names, own name, option, annotation."""
    for name, inner in getattr(command, "commands", {}).items():
        yield from _options(inner, (*path, name))
    hints = get_type_hints(command.callback) if path and command.callback else {}
    for option in command.params if path else ():
        longest = max(option.opts, key=len)
        if longest.startswith("-") and not option.is_eager and longest != "--help":
            yield path, longest.lstrip("-").replace("-", "_"), option, hints.get(option.name)


def _kind(context: typer.Context, name: str, option: Any, hint: Any) -> Kind:  # noqa: ANN401
    is_path = Path in (hint, *get_args(hint)) or any(Path in get_args(each) for each in get_args(hint))
    is_path = is_path or name.endswith(("_file", "client_cert", "client_key"))

    def accepts(value: Any) -> bool:  # noqa: ANN401
        values = value if isinstance(value, list) and option.multiple else [value]
        if any(option.is_flag != isinstance(each, bool) or isinstance(each, (list, dict)) for each in values):
            return False
        if is_path:  # whether it exists is checked on use
            return all(isinstance(each, str) for each in values)
        return _converts(context, option, values if option.multiple else value)

    return Kind(accepts=accepts, wanted=_describe(option, hint, is_path), path=is_path)


def _converts(context: typer.Context, option: Any, value: Any) -> bool:  # noqa: ANN401
    try:
        option.process_value(context, value)
    except typer.BadParameter:
        return False
    return True


def _describe(option: Any, hint: Any, is_path: bool) -> str:  # noqa: ANN401
    """Describe the values of an option."""
    if option.is_flag:
        return "true or false"
    kinds = {each for part in (hint, *get_args(hint)) for each in (part, *get_args(part))}
    choices = [each for each in kinds if isinstance(each, str)]
    if choices:
        described = f"one of {', '.join(sorted(choices))}"
    elif kinds & {int, float}:
        described = "a whole number" if int in kinds else "a number"
    else:
        described = "a path" if is_path else "a string"
    low, high = _bound(option, "min"), _bound(option, "max")
    described += f", at least {low}" * (low is not None) + f", at most {high}" * (high is not None)
    return f"{described}, or a list of these" if option.multiple else described


def _bound(option: Any, name: str) -> Any:  # noqa: ANN401
    """Return `min` or `max` of an option; Typer versions keep it in different places."""
    return getattr(option, name, getattr(getattr(option, "type", None), name, None))


_STRING = Kind(accepts=lambda value: isinstance(value, str), wanted="a string")
_WHOLE_NUMBER = Kind(accepts=lambda value: isinstance(value, int) and not isinstance(value, bool), wanted="a whole number")
_LOG_FORMAT = Kind(accepts=lambda value: value in LOG_FORMATS, wanted=f"one of {', '.join(LOG_FORMATS)}")


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return "" if source is None else source.name

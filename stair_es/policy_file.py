"""A word policy from JSON: what has another form is refused, with its place."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stair_es.errors import ResourceError
from stair_es.policy import POLICY_VERSION, WordPolicy

_KNOWN = ("stair_es_policy", "name", "mute", "cap", "rename", "merge")
_FORM = 'Write it like {"stair_es_policy": 1, "mute": ["a"], "cap": {"b": 0.5}, "rename": {"c": "d"}, "merge": {"e": ["f"]}}.'


def read(path: Path) -> WordPolicy:
    """The policy in a file; without a name in it, it is called like the file.

    Raises:
        ResourceError: It can't be read, or isn't a policy: with the place in the file.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=_once)
    except (OSError, ValueError, RecursionError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise ResourceError(f"can't read the policy {path}: {said}", _FORM) from error
    return parsed(value, f"policy {path}", name=path.stem)


def parsed(value: object, where: str, *, name: str = "") -> WordPolicy:
    """The policy that a JSON value describes.

    Args:
        value: Of `json.loads`.
        where: It stands, for messages.
        name: For one that has none.

    Raises:
        ResourceError: It isn't one.
    """
    try:
        return _parsed(value, name)
    except ResourceError as error:
        raise ResourceError(f"{where}: {error.message}", error.remedy) from None


def _parsed(value: object, name: str) -> WordPolicy:
    body = _object(value, "the whole")
    version = body.get("stair_es_policy")
    if version != POLICY_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > POLICY_VERSION
        remedy = "It is for a newer stair-es: upgrade." if newer else _FORM
        raise ResourceError(f"stair_es_policy is {json.dumps(version)} instead of {POLICY_VERSION}", remedy)
    unknown = [key for key in body if key not in _KNOWN]
    if unknown:
        raise ResourceError(f"{unknown[0]}: no such rule", f"Known are {', '.join(_KNOWN[1:])}.")
    if not isinstance(body.get("name", ""), str):
        raise ResourceError("name: not a text", _FORM)
    policy = WordPolicy(
        name=_word(body.get("name", ""), "name") or name,
        mute=_words(body.get("mute", []), "mute"),
        cap={_word(word, "cap"): _number(most, f"cap.{word}") for word, most in _object(body.get("cap", {}), "cap").items()},
        rename={
            _word(old, "rename"): _word(new, f"rename.{old}") for old, new in _object(body.get("rename", {}), "rename").items()
        },
        merge={
            _word(word, "merge"): _words(others, f"merge.{word}")
            for word, others in _object(body.get("merge", {}), "merge").items()
        },
    )
    if not policy.rules:
        raise ResourceError("it has no rule", "To take a policy out of an index: stair-es policy rollback")
    return policy


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object; JSON itself would silently take the last of two values of the same name."""
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"{next(name for name in names if names.count(name) > 1)!r} comes twice in the same object")
    return made


def _object(value: object, place: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ResourceError(f"{place}: not an object", _FORM)
    return value


def _words(value: object, place: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ResourceError(f"{place}: not a list of words", _FORM)
    return tuple(_word(word, f"{place}[{i}]") for i, word in enumerate(value))


def _word(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise ResourceError(f"{place}: {json.dumps(value)} is not a word", _FORM)
    try:
        value.encode()
    except UnicodeEncodeError:
        raise ResourceError(f"{place}: {value!r} is not Unicode (half of a surrogate pair)", "Take it out.") from None
    return value


def _number(value: object, place: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ResourceError(f"{place}: {json.dumps(value)} is not a number", _FORM)
    try:
        return float(value)
    except OverflowError:
        raise ResourceError(f"{place}: no weight can be that large", _FORM) from None

"""Token policies as JSON: read and parsed, with the place of each problem in the file."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from stair_es.errors import ResourceError
from stair_es.system.user_files import read_json_file
from stair_es.taught_words import parse_taught_words
from stair_es.token_policy import POLICY_VERSION, TokenPolicy
from stair_es.types import is_utf8

if TYPE_CHECKING:
    from pathlib import Path

_KNOWN = ("stair_es_policy", "name", "mute", "floor", "cap", "rename", "merge", "teach")
_FORM = 'Write it like {"stair_es_policy": 1, "mute": ["a"], "cap": {"b": 0.5}, "rename": {"c": "d"}, "merge": {"e": ["f"]}}.'


def load_policy(path: Path) -> TokenPolicy:
    """Load a policy from a file; without a name in the file, it is named like the file.

    Raises:
        ResourceError: If the file can't be read or isn't a valid policy; names the place in the file.
    """
    try:
        value = read_json_file(path, object_pairs_hook=_reject_duplicate_keys)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ResourceError(f"can't read the policy {path}: {reason}", _FORM, code="policy-unreadable") from error
    return parse_policy(value, f"policy {path}", name=path.stem)


def parse_policy(value: object, where: str, *, name: str = "") -> TokenPolicy:
    """Parse a policy from a JSON value.

    Args:
        value: Result of `json.loads`.
        where: Where the value comes from, for messages.
        name: Name of the policy if the value has none.

    Raises:
        ResourceError: If it isn't a valid policy.
    """
    try:
        return _parse_body(value, name)
    except ResourceError as error:
        raise ResourceError(f"{where}: {error.message}", error.remedy, code=error.code) from None


def _parse_body(value: object, name: str) -> TokenPolicy:
    body = _parse_object(value, "the policy")
    version = body.get("stair_es_policy")
    if version != POLICY_VERSION or isinstance(version, bool):
        newer = isinstance(version, int) and version > POLICY_VERSION
        remedy = "It requires a newer stair-es: upgrade." if newer else _FORM
        raise ResourceError(
            f"stair_es_policy is {json.dumps(version)} instead of {POLICY_VERSION}", remedy, code="policy-format-unknown"
        )
    unknown = [key for key in body if key not in _KNOWN]
    if unknown:
        raise ResourceError(f"{unknown[0]}: no such rule", f"Known rules: {', '.join(_KNOWN[1:])}.", code="policy-unknown-rule")
    if not isinstance(body.get("name", ""), str):
        raise ResourceError("name: not a string", _FORM, code="policy-name-invalid")
    policy = TokenPolicy(
        name=_parse_token(body.get("name", ""), "name") or name,
        mute=_parse_tokens(body.get("mute", []), "mute"),
        floor=_parse_limits(body, "floor"),
        cap=_parse_limits(body, "cap"),
        rename={
            _parse_token(old, "rename"): _parse_token(new, f"rename.{old}")
            for old, new in _parse_object(body.get("rename", {}), "rename").items()
        },
        merge={
            _parse_token(token, "merge"): _parse_tokens(others, f"merge.{token}")
            for token, others in _parse_object(body.get("merge", {}), "merge").items()
        },
        teach=parse_taught_words(_parse_object(body.get("teach", {}), "teach")),
    )
    if not policy.rules:
        raise ResourceError("it has no rules", "To remove a policy from an index: stair-es policy rollback", code="policy-empty")
    return policy


def _reject_duplicate_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Build an object, and reject duplicate keys: `json` would silently keep the last one."""
    result = dict(pairs)
    if len(result) < len(pairs):
        [(name, _)] = Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} is duplicated in the same object")
    return result


def _parse_limits(body: Mapping[str, Any], kind: str) -> dict[str, float]:
    limits = _parse_object(body.get(kind, {}), kind)
    return {_parse_token(token, kind): _parse_weight(limit, f"{kind}.{token}") for token, limit in limits.items()}


def _parse_object(value: object, location: str) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise ResourceError(f"{location}: not an object", _FORM, code="policy-not-an-object")
    return value


def _parse_tokens(value: object, location: str) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ResourceError(f"{location}: not a list of tokens", _FORM, code="policy-not-a-token-list")
    return tuple(_parse_token(token, f"{location}[{i}]") for i, token in enumerate(value))


def _parse_token(value: object, location: str) -> str:
    if not isinstance(value, str):
        raise ResourceError(f"{location}: {json.dumps(value)} is not a token", _FORM, code="policy-not-a-token")
    if not is_utf8(value):
        raise ResourceError(
            f"{location}: {value!r} is not valid Unicode (unpaired surrogate)", "Remove it.", code="policy-not-unicode"
        )
    return value


def _parse_weight(value: object, location: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ResourceError(f"{location}: {json.dumps(value)} is not a number", _FORM, code="policy-not-a-number")
    try:
        return float(value)
    except OverflowError:
        raise ResourceError(f"{location}: too large for a weight", _FORM, code="policy-weight-too-large") from None

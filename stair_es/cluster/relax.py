"""Index settings for a bulk load, restored afterwards in any case.

The original settings are written to the index itself (`_meta.stair_es.relaxed`) before anything is changed: after a kill the next
run finds them there. Settings and `_meta` are read in one request, so from one cluster state, and `_meta` is written before the
settings and cleared after them: a run that sees relaxed settings also sees the originals, and never takes the relaxed settings of
another run for originals.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from stair_es.cluster.retry import RetryPolicy, persistently
from stair_es.errors import ClusterError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from opensearchpy import OpenSearch

    from stair_es.cluster.connect import Connection
    from stair_es.cluster.identity import OpenIndex

_NAMES = ("refresh_interval", "number_of_replicas", "auto_expand_replicas")
_LIVE_REFRESH = "30s"
_UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "micros": 1e-6, "nanos": 1e-9}
_AFTER_FAILURE = RetryPolicy(attempts=4)
"""The run has failed, perhaps because the cluster is down: its user shouldn't wait another minute."""


@dataclass(frozen=True)
class _State:
    settings: dict[str, Any]
    meta: dict[str, Any]

    @property
    def remembered(self) -> dict[str, Any] | None:
        remembered = self.meta.get("stair_es", {}).get("relaxed")
        return remembered if isinstance(remembered, dict) else None


@contextmanager
def relaxed(
    client: OpenSearch, connection: Connection, opened: OpenIndex, *, replicas: bool, say: Callable[[str], None]
) -> Iterator[None]:
    """Relax the settings of an index within the context: it refreshes rarely, or not at all while it isn't searched yet.

    Of runs that load the same index concurrently, the first to end restores the settings for all.

    Args:
        client: Client of the cluster.
        connection: Connection of that client.
        opened: The index.
        replicas: Whether to remove its replicas, if it isn't searched yet.
        say: Called with what is changed, and with what an earlier run left behind.

    Raises:
        ClusterError: If the settings can't be changed or restored; the next run then restores them.
    """
    index = _Index(client, connection, opened.name)
    before = index.state()
    originals = before.remembered or before.settings
    if before.remembered:
        say(f"{opened.name} still has the settings of a load that was killed, or that is still running")
    changed = {**originals, **loading(originals, live=opened.live is None and not opened.created, replicas=replicas)}
    try:
        index.relax(originals, changed)
        said = ", ".join(f"{name} {changed[name]}" for name in _NAMES if changed[name] != originals[name])
        if said:
            say(f"while it loads: {said}")
        yield
    except BaseException:
        try:
            index.restore(originals, _AFTER_FAILURE)
        except ClusterError as error:
            say(f"the settings of {opened.name} could not be restored ({error.message}): the next run does it")
        raise
    index.restore(originals, RetryPolicy())


def loading(originals: Mapping[str, Any], *, live: bool, replicas: bool) -> dict[str, Any]:
    """Choose the settings to change while an index loads. Pure.

    Args:
        originals: Its settings, None for each that isn't set.
        live: Whether it is searched already.
        replicas: Whether replicas may be removed.
    """
    if not live:
        none = {"number_of_replicas": "0", "auto_expand_replicas": "false"} if replicas else {}
        return {"refresh_interval": "-1", **none}
    own = seconds(originals.get("refresh_interval"))
    return {} if own < 0 or own >= seconds(_LIVE_REFRESH) else {"refresh_interval": _LIVE_REFRESH}


def seconds(interval: str | None) -> float:
    """Parse a time interval of index settings into seconds; -1 for `-1`, 0 if it is unset or invalid."""
    match = re.fullmatch(r"(-?\d+)([a-z]*)", str(interval))
    if not match:
        return 0.0
    return -1.0 if match[1].startswith("-") else int(match[1]) * _UNIT_S.get(match[2].lower(), 0.0)


@dataclass(frozen=True)
class _Index:
    """Reads and writes the settings and `_meta` of an index."""

    client: OpenSearch
    connection: Connection
    name: str

    def state(self, policy: RetryPolicy | None = None) -> _State:
        """Read settings and `_meta` in one request."""
        params = {"flat_settings": "true"}
        answer = persistently(partial(self.client.indices.get, index=self.name, params=params), self.connection, policy)
        index = answer[self.name]
        settings = {name: index["settings"].get(f"index.{name}") for name in _NAMES}
        return _State(settings, index["mappings"].get("_meta", {}))

    def relax(self, originals: Mapping[str, Any], changed: Mapping[str, Any]) -> None:
        """Save the originals, and apply the changed settings."""
        self._remember(originals, None)
        self._set(changed, None)
        if self.state().remembered is None:  # cleared by a run that has just ended
            self._remember(originals, None)

    def restore(self, originals: Mapping[str, Any], policy: RetryPolicy) -> None:
        """Restore the settings, and remove the saved originals."""
        self._set(originals, policy)
        self._remember(None, policy)
        after = self.state(policy)
        if after.remembered is None and after.settings != dict(originals):  # relaxed by a run that has just started
            self._remember(originals, policy)

    def _remember(self, originals: Mapping[str, Any] | None, policy: RetryPolicy | None) -> None:
        """Save the originals in `_meta`, or remove them. A mapping update replaces all of `_meta`, so it is read first."""
        meta = self.state(policy).meta
        about = {name: value for name, value in meta.get("stair_es", {}).items() if name != "relaxed"}
        if originals is not None:
            about["relaxed"] = dict(originals)
        body = {"_meta": {**meta, "stair_es": about}}
        persistently(partial(self.client.indices.put_mapping, index=self.name, body=body), self.connection, policy)

    def _set(self, settings: Mapping[str, Any], policy: RetryPolicy | None) -> None:
        body = {"index": dict(settings)}
        persistently(partial(self.client.indices.put_settings, index=self.name, body=body), self.connection, policy)

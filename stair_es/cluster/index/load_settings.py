"""Index settings for a bulk load, restored afterwards in any case.

The original settings are written to the index itself (`_meta.stair_es.original_settings`) before anything is changed: after a
kill the next run finds them there. Settings and `_meta` are read in one request, so from one cluster state, and `_meta` is
written before the settings and cleared after them: a run that sees relaxed settings also sees the originals, and never takes the
relaxed settings of another run for originals.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

from stair_es.cluster.client.capabilities import get_product
from stair_es.cluster.client.cluster import Cluster
from stair_es.cluster.client.products import ManagedProduct
from stair_es.cluster.metadata.index_metadata import WriteTarget
from stair_es.errors import ClusterError
from stair_es.retry import RetryPolicy

logger = logging.getLogger(__name__)

_REPLICAS = ("number_of_replicas", "auto_expand_replicas")
_SETTINGS: Mapping[ManagedProduct, tuple[str, ...]] = {
    "": ("refresh_interval", *_REPLICAS),
    "opensearch-service": ("refresh_interval", *_REPLICAS),
    "opensearch-serverless": (),  # it manages them: a change has no effect
    "elasticsearch-serverless": ("refresh_interval",),
}
_LIVE_REFRESH = "30s"
_UNIT_S = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "micros": 1e-6, "nanos": 1e-9}
_AFTER_FAILURE = RetryPolicy(attempts=4)
"""The run has failed, perhaps because the cluster is down: its user shouldn't wait another minute."""


class _IndexState(NamedTuple):
    settings: dict[str, Any]
    meta: dict[str, Any]

    @property
    def saved_settings(self) -> dict[str, Any] | None:
        saved = self.meta.get("stair_es", {}).get("original_settings")
        return saved if isinstance(saved, dict) else None


@contextmanager
def relax_index_settings(cluster: Cluster, target: WriteTarget, *, replicas: bool) -> Iterator[None]:
    """Relax the settings of an index within the context: it refreshes rarely, or not at all while it isn't searched yet.

    Of runs that load the same index concurrently, the first to end restores the settings for all. With `replicas` it also loses
    its replicas, if it isn't searched yet; where the cluster doesn't permit that, it keeps them. Only settings that change are
    sent, and only those that the product doesn't manage.

    Raises:
        ClusterError: If the settings can't be changed or restored; the next run then restores them.
    """
    names = _SETTINGS[get_product(cluster)]
    if replicas and not set(names).issuperset(_REPLICAS):
        logger.warning("the replicas of %s are managed by the provider, and stay", target.name)
        replicas = False
    if not names:
        yield
        return
    index = _SettingsClient(cluster, target.name, names)
    before = index.read_state()
    originals = {**before.settings, **(before.saved_settings or {})}
    if before.saved_settings:
        logger.warning("%s still has the settings of a load that was killed, or that is still running", target.name)
    changed: Mapping[str, Any] = {
        **originals,
        **choose_load_settings(originals, live=target.replaces is None and not target.created, replicas=replicas),
    }
    try:
        changed = index.relax_settings(originals, changed)
        changes = ", ".join(f"{name} {changed[name]}" for name in names if changed[name] != originals[name])
        if changes:
            logger.info("settings during the load: %s", changes)
        yield
    except BaseException:
        try:
            index.restore_settings(originals, changed, _AFTER_FAILURE)
        except ClusterError as error:
            logger.warning(
                "the settings of %s could not be restored (%s): the next run restores them", target.name, error.message
            )
        raise
    index.restore_settings(originals, changed, RetryPolicy())


def choose_load_settings(originals: Mapping[str, Any], *, live: bool, replicas: bool) -> dict[str, Any]:
    """Choose the settings to change while an index loads; `live` is whether it is searched already. Pure."""
    if not live:
        no_replicas = {"number_of_replicas": "0", "auto_expand_replicas": "false"} if replicas else {}
        return {"refresh_interval": "-1", **no_replicas}
    current_s = parse_interval_s(originals.get("refresh_interval"))
    return {} if current_s < 0 or current_s >= parse_interval_s(_LIVE_REFRESH) else {"refresh_interval": _LIVE_REFRESH}


def parse_interval_s(interval: str | None) -> float:
    """Parse a time interval of index settings into seconds; -1 for `-1`, 0 if it is unset or invalid."""
    match = re.fullmatch(r"(-?\d+)([a-z]*)", str(interval))
    if not match:
        return 0.0
    return -1.0 if match[1].startswith("-") else int(match[1]) * _UNIT_S.get(match[2].lower(), 0.0)


@dataclass(frozen=True)
class _SettingsClient:
    cluster: Cluster
    name: str
    settings: tuple[str, ...]

    def read_state(self, policy: RetryPolicy | None = None) -> _IndexState:
        """Read settings and `_meta` in one request."""
        params = {"flat_settings": "true"}
        response = self.cluster.call(self.cluster.client.indices.get, index=self.name, params=params, retry=policy)
        index = response[self.name]
        settings = {name: index.get("settings", {}).get(f"index.{name}") for name in self.settings}
        return _IndexState(settings, index["mappings"].get("_meta", {}))

    def relax_settings(self, originals: Mapping[str, Any], changed: Mapping[str, Any]) -> Mapping[str, Any]:
        """Change the settings, and return those that are now to be in effect."""
        current = self._save_originals(originals, None)
        try:
            self._put_settings(changed, current, None)
        except ClusterError as error:
            if error.code != "copies-required":
                raise
            logger.warning("%s keeps its replicas: the cluster requires a copy in every zone", self.name)
            changed = {**changed, **{name: originals[name] for name in _REPLICAS}}
            self._put_settings(changed, current, None)
        if self.read_state().saved_settings is None:  # cleared by a run that has just ended
            self._save_originals(originals, None)
        return changed

    def restore_settings(self, originals: Mapping[str, Any], changed: Mapping[str, Any], policy: RetryPolicy) -> None:
        current = self.read_state(policy).settings
        # What this run has changed is put back in any case: the cluster may not report it.
        current = {name: changed[name] if value == originals[name] else value for name, value in current.items()}
        self._put_settings(originals, current, policy)
        self._save_originals(None, policy)
        after = self.read_state(policy)
        if after.saved_settings is None and after.settings != dict(originals):  # relaxed by a run that has just started
            self._save_originals(originals, policy)

    def _save_originals(self, originals: Mapping[str, Any] | None, policy: RetryPolicy | None) -> Mapping[str, Any]:
        """Save the originals in `_meta`, or remove them; return the current settings.

        A mapping update replaces all of `_meta`, so it is read first.
        """
        current, meta = self.read_state(policy)
        own_meta = {name: value for name, value in meta.get("stair_es", {}).items() if name != "original_settings"}
        if originals is not None:
            own_meta["original_settings"] = dict(originals)
        body = {"_meta": {**meta, "stair_es": own_meta}}
        self.cluster.call(self.cluster.client.indices.put_mapping, index=self.name, body=body, retry=policy)
        return current

    def _put_settings(self, settings: Mapping[str, Any], current: Mapping[str, Any], policy: RetryPolicy | None) -> None:
        """Put the settings that differ from the current ones."""
        if differing := {name: settings[name] for name, value in current.items() if settings[name] != value}:
            body = {"index": differing}
            self.cluster.call(self.cluster.client.indices.put_settings, index=self.name, body=body, retry=policy)

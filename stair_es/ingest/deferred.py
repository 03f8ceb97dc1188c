"""Images whose host asks to wait (Retry-After): they are deferred while others continue, and fetched when the time is over.

The total waiting time for a host is limited to its patience: pauses use it up, and images that the host serves restore it.
When it is used up, an image fails with the host's response, while the other images of the host are still tried. A host that
refuses many in a row is given up, and its images fail without a request. An image that is refused again although the host
served others since then waits alone, with a separate patience: on a shared host it must not hold up the others repeatedly.
"""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from stair_es.ingest.queues import SizedQueue
from stair_es.ingest.state import Deferred, ImageState, Outcome, Pending, estimate_pending_bytes, get_item_host

MAX_DEFERRED_IMAGES = 20_000
"""Maximum number of deferred images; above it no further images are taken from the sources."""
MAX_DEFERRED_BYTES = 128 * 1024 * 1024
"""Maximum total size of deferred images: an image can have long URLs, and a megabyte of fields."""
MAX_REFUSALS = 20
"""Number of refusals in a row after which a host without patience left is given up."""
RESTORED_PATIENCE_S = 10.0
"""Patience that each served image restores, in seconds: a rate-limited host is waited for as long as it keeps serving images."""
_MIN_PAUSE_S = 1.0
_MAX_PER_HOST = 16
_MAX_HOSTS = 1024


@dataclass
class _Host:
    """A host, or one image of it that waits alone."""

    name: str
    images: int = 0
    """Number of its deferred images."""
    paused_until: float = 0.0
    pauses: int = 0
    """Consecutive pauses without a served image."""
    waited_s: float = 0.0
    """Used part of the patience."""
    served: int = 0
    refusals: int = 0
    given_up: str = ""
    """Why its images fail until `paused_until`."""


class DeferredImages:
    """All deferred images, by host. Not thread-safe."""

    def __init__(self, patience_s: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without deferred images. `patience_s` is the total time to wait for a host."""
        self._patience_s = patience_s
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._images = SizedQueue(estimate_pending_bytes, MAX_DEFERRED_IMAGES, MAX_DEFERRED_BYTES)
        self._next_due = math.inf

    def __len__(self) -> int:
        return len(self._images)

    @property
    def is_full(self) -> bool:
        """Whether no more images should be taken from the sources."""
        return self._images.is_full

    def route_image(self, image: Pending) -> Pending | Outcome | None:
        """Return the image if it can be fetched now, None if it was deferred, or its outcome if its host is given up."""
        name = get_item_host(image.item) if self._hosts else ""
        host = self._hosts.get(name) if name else None
        if host is None or host.paused_until <= self._clock():
            return image
        if host.given_up:
            return Outcome(image.item, "failed", "read", host.given_up)
        self._keep_image(name, image)
        return None

    def add_deferred(self, image: Pending, state: Deferred) -> list[Outcome]:
        """Defer a refused image; return the outcomes, of this and other images of its host, if it isn't waited for."""
        name = self._get_key(image, state)
        host = self._hosts.get(name)
        if host is None:
            self._forget_hosts()
            host = self._hosts[name] = _Host(state.host)
        if state.was_requested:
            image = replace(image, served_when_refused=host.served)
        now = self._clock()
        if host.given_up and host.paused_until > now:
            return [Outcome(image.item, "failed", "read", host.given_up)]
        remaining_s = self._patience_s - host.waited_s
        if host.paused_until > now or not state.was_requested:  # the pause was already started by another worker or image
            self._keep_image(name, image)
            return []
        if remaining_s < _MIN_PAUSE_S:
            return self._fail_refused(host, image, state, now)
        pause_s = min(max(state.wait_s, 2.0**host.pauses), remaining_s)
        host.paused_until, host.pauses = now + pause_s, host.pauses + 1
        host.waited_s, host.refusals, host.given_up = host.waited_s + pause_s, 0, ""
        self._keep_image(name, image)
        return []

    def observe_result(self, image: Pending, state: ImageState) -> list[Outcome]:
        """Record that an image was fetched: its host serves images, unless the fetch failed.

        Returns:
            Outcomes of other images that follow from it.
        """
        if not self._hosts or (isinstance(state, Outcome) and state.kind == "failed" and state.stage == "read"):
            return []
        for name in {image.deferral_key, get_item_host(image.item)} - {""}:
            host = self._hosts.get(name)
            if host is not None:
                host.pauses = host.refusals = 0
                host.served += 1
                host.waited_s = max(0.0, host.waited_s - RESTORED_PATIENCE_S)
        self._hosts.pop(image.item.uri, None)
        return []

    def take_due(self, max_images: int) -> list[Pending]:
        """Take up to `max_images` images whose host is no longer paused."""
        now = self._clock()
        if now < self._next_due:
            return []
        taken = Counter[str]()

        def is_due(image: Pending) -> bool:
            if self._hosts[image.deferral_key].paused_until > now or taken[image.deferral_key] >= _MAX_PER_HOST:
                return False
            taken[image.deferral_key] += 1
            return True

        due = self._take_images(max_images, is_due)
        self._next_due = min((host.paused_until for host in self._hosts.values() if host.images), default=math.inf)
        return due

    @property
    def due_in_s(self) -> float | None:
        """Seconds until images are due; None if none is deferred."""
        return max(0.0, self._next_due - self._clock()) if len(self._images) else None

    def describe_waiting(self) -> str:
        """Return a message about the hosts that are waited for; "" if there are none."""
        now = self._clock()
        paused = [host for host in self._hosts.values() if host.images and host.paused_until > now]
        if not paused:
            return ""
        busiest = max(paused, key=lambda host: host.images)
        hosts = len({host.name for host in paused})
        others = f" and {hosts - 1:,} other hosts" if hosts > 1 else ""
        urls = f"{busiest.images:,} URL{'s' if busiest.images > 1 else ''}"
        return f"waiting {math.ceil(busiest.paused_until - now)} s for {busiest.name} ({urls}){others}"

    def _get_key(self, image: Pending, state: Deferred) -> str:
        """Return the key that an image is deferred under: its host, or its own URI if it waits alone."""
        host = self._hosts.get(state.host)
        served_since = host is not None and image.served_when_refused is not None and host.served > image.served_when_refused
        alone = state.was_requested and (image.deferral_key == image.item.uri or served_since)
        return image.item.uri if alone else state.host

    def _keep_image(self, key: str, image: Pending) -> None:
        host = self._hosts[key]
        self._images.append(replace(image, deferral_key=key))
        host.images += 1
        self._next_due = min(self._next_due, host.paused_until)

    def _take_images(self, count: int, is_wanted: Callable[[Pending], bool]) -> list[Pending]:
        images = self._images.take(count, is_wanted)
        for image in images:
            self._hosts[image.deferral_key].images -= 1
        return images

    def _fail_refused(self, host: _Host, image: Pending, state: Deferred, now: float) -> list[Outcome]:
        waited = f"after {host.waited_s:.0f} s of waiting for the host"
        host.refusals += 1
        self._hosts.pop(image.item.uri, None)
        failed = [Outcome(image.item, "failed", "read", f"{state.reason}, {waited}")]
        if host.refusals >= MAX_REFUSALS:
            status = state.reason.partition(": ")[2].partition(",")[0] or state.reason
            host.given_up = f"{host.name}: not requested, since {host.refusals} others got {status} {waited}"
            waiting = self._take_images(host.images, lambda image: self._hosts[image.deferral_key] is host)
            failed += [Outcome(image.item, "failed", "read", host.given_up) for image in waiting]
            host.paused_until, host.waited_s, host.refusals, host.pauses = now + self._patience_s, 0.0, 0, 0
        return failed

    def _forget_hosts(self) -> None:
        """Drop hosts that have no images and weren't paused lately: lists can name millions of hosts."""
        if len(self._hosts) < _MAX_HOSTS:
            return
        cutoff = self._clock() - self._patience_s
        self._hosts = {name: host for name, host in self._hosts.items() if host.images or host.paused_until > cutoff}

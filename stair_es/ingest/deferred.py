"""Images that are held back from the stages, in particular those whose host asks to wait (Retry-After).

These are deferred while others continue, and fetched when the time is over. The total waiting time for a host is limited to its
patience: pauses use it up, and images that the host serves restore it. When it is used up, an image fails with the host's
response, while the other images of the host are still tried. A host that refuses many in a row is given up, and its images fail
without a request. An image that is refused again although the host served others since then waits alone, with a separate
patience: on a shared host it must not hold up the others repeatedly.
"""

from __future__ import annotations

import math
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Sequence
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


class HeldImages(ABC):
    """Images that wait for something before they go through the stages. Not thread-safe."""

    def __init__(self, max_images: int, max_bytes: int) -> None:
        self._images = SizedQueue(estimate_pending_bytes, max_images, max_bytes)

    def __len__(self) -> int:
        return len(self._images)

    @property
    def is_full(self) -> bool:
        """Whether no more images should be taken from the sources."""
        return self._images.is_full

    @abstractmethod
    def route_image(self, image: Pending) -> Pending | Outcome | Deferred | None:
        """Return the image if it can go on, None if it is held back, or its state if it is known already."""

    @abstractmethod
    def observe_result(self, image: Pending, state: ImageState) -> Sequence[Outcome | Deferred]:
        """Record how an image left the stages; return states that follow, of others or of one to be deferred."""

    def observe_results(self, images: Sequence[Pending], states: Sequence[ImageState]) -> list[ImageState]:
        """Record how images left the stages; return the states of those that aren't deferred, and what follows for others."""
        finished = list[ImageState]()
        for image, state in zip(images, states, strict=True):
            if not isinstance(state, Deferred):
                finished.append(state)
            finished += self.observe_result(image, state)
        return finished

    def take_due(self, max_images: int) -> list[Pending]:
        """Take up to `max_images` images whose time has come."""
        return []

    @property
    def due_in_s(self) -> float | None:
        """Seconds until images are due; None if none waits for a time."""
        return None

    def describe_waiting(self) -> str:
        """Return a message about what is waited for; "" for nothing."""
        return ""


class ReturnedImages(HeldImages):
    """The images of a worker, which holds none back: those whose host asks to wait go back to the driver, which defers them."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without hosts."""
        super().__init__(0, 0)
        self._clock = clock
        self._refusals: dict[str, tuple[float, Deferred]] = {}
        """Host -> until when it is paused, and what it answered."""

    def route_image(self, image: Pending) -> Pending | Deferred:
        """Return the image, or its deferral if its host was refusing others a moment ago."""
        host = get_item_host(image.item) if self._refusals else ""
        paused_until, refusal = self._refusals.get(host, (0.0, None))
        if refusal is None or paused_until <= self._clock():
            return image
        return replace(refusal, item=image.item, was_requested=False)

    def observe_result(self, image: Pending, state: ImageState) -> Sequence[Deferred]:
        """Return the image if it was refused, and remember its host."""
        if not isinstance(state, Deferred):
            return ()
        if state.host:
            self._refusals[state.host] = (self._clock() + state.wait_s, state)
        return (state,)


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

    def pause(self, now: float, seconds: float) -> None:
        self.paused_until, self.pauses = now + seconds, self.pauses + 1
        self.waited_s, self.refusals, self.given_up = self.waited_s + seconds, 0, ""

    def give_up(self, now: float, seconds: float, reason: str) -> None:
        self.paused_until, self.given_up = now + seconds, reason
        self.waited_s, self.refusals, self.pauses = 0.0, 0, 0

    def record_served(self) -> None:
        self.pauses = self.refusals = 0
        self.served += 1
        self.waited_s = max(0.0, self.waited_s - RESTORED_PATIENCE_S)


class DeferredImages(HeldImages):
    """All deferred images, by host."""

    def __init__(self, patience_s: float = 600.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Start without deferred images. `patience_s` is the total time to wait for a host."""
        super().__init__(MAX_DEFERRED_IMAGES, MAX_DEFERRED_BYTES)
        self._patience_s = patience_s
        self._clock = clock
        self._hosts: dict[str, _Host] = {}
        self._next_due = math.inf

    def route_image(self, image: Pending) -> Pending | Outcome | None:
        """Return the image if it can be fetched now, None if it is deferred, or its outcome if its host is given up."""
        name = get_item_host(image.item) if self._hosts else ""
        host = self._hosts.get(name) if name else None
        if host is None or host.paused_until <= self._clock():
            return image
        if host.given_up:
            return Outcome(image.item, "failed", "read", host.given_up)
        self._keep_image(name, image)
        return None

    def observe_result(self, image: Pending, state: ImageState) -> list[Outcome]:
        """Defer a refused image, or record that its host serves images, unless the fetch failed.

        A refused image that isn't waited for has failed, and may take other images of its host with it.
        """
        if isinstance(state, Deferred):
            return self._defer_image(image, state)
        if not self._hosts or (isinstance(state, Outcome) and state.kind == "failed" and state.stage == "read"):
            return []
        for key in {image.deferral_key, get_item_host(image.item)} - {""}:
            if key in self._hosts:
                self._hosts[key].record_served()
        self._hosts.pop(image.item.uri, None)
        return []

    def observe_results(self, images: Sequence[Pending], states: Sequence[ImageState]) -> list[ImageState]:
        """Record how images left the stages; while no host asks to wait, there is nothing to do for each one."""
        if not self._hosts and not any(isinstance(state, Deferred) for state in states):
            return list(states)
        return super().observe_results(images, states)

    def _defer_image(self, image: Pending, state: Deferred) -> list[Outcome]:
        key, now = self._get_key(image, state), self._clock()
        if key not in self._hosts:
            self._forget_hosts()
        host = self._hosts.setdefault(key, _Host(state.host))
        is_paused = host.paused_until > now
        if is_paused and host.given_up:
            return [Outcome(image.item, "failed", "read", host.given_up)]
        if state.was_requested:
            image = image._replace(served_when_refused=host.served)
        if state.was_requested and not is_paused:  # otherwise another worker or image has started the pause
            remaining_s = self._patience_s - host.waited_s
            if remaining_s < _MIN_PAUSE_S:
                return self._fail_refused(host, image, state, now)
            host.pause(now, min(max(state.wait_s, 2.0**host.pauses), remaining_s))
        self._keep_image(key, image)
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
        self._images.append(image._replace(deferral_key=key))
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
            host.give_up(now, self._patience_s, f"{host.name}: not requested, since {host.refusals} others got {status} {waited}")
            waiting = self._take_images(host.images, lambda image: self._hosts[image.deferral_key] is host)
            failed += [Outcome(image.item, "failed", "read", host.given_up) for image in waiting]
        return failed

    def _forget_hosts(self) -> None:
        """Drop hosts that have no images and weren't paused lately: lists can name millions of hosts."""
        if len(self._hosts) < _MAX_HOSTS:
            return
        cutoff = self._clock() - self._patience_s
        self._hosts = {name: host for name, host in self._hosts.items() if host.images or host.paused_until > cutoff}

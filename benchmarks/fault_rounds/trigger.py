"""Act at a chosen request of a run. Requests are counted, not timed, so that each step of a run can be hit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Literal, TypeAlias

from support.servers.fault_proxy import Fault, MaybeResponse, Request, Send

from .command import Command

Moment: TypeAlias = Literal["before", "after"]
_POLL_S = 0.05


class Trigger:
    """A plan for `FaultProxy`: at request `number`, `act` is called.

    Args:
        number: Number of the request, from 1; a run with fewer requests is not disturbed.
        act: The function to call.
        moment: `before` the node gets the request, while all others wait; or `after` it has processed the request, before the
            response is sent.
        is_counted: Returns whether a request counts.
    """

    def __init__(
        self,
        number: int,
        act: Callable[[], None],
        moment: Moment = "before",
        is_counted: Callable[[Request], bool] = lambda _: True,
    ) -> None:
        self.number, self.seen = number, 0
        self.done = threading.Event()
        """Set when `act` has returned."""
        self._begun = False
        self._act, self._moment, self._is_counted = act, moment, is_counted
        self._lock = threading.Lock()

    def __call__(self, request: Request) -> Fault | None:
        """Return a fault for the request with this number, else None."""
        with self._lock:
            self.seen += self._is_counted(request)
            if self.seen < self.number or self._begun:
                return None
            self._begun = True
            if self._moment == "before":
                self._happen()
                return None
            return Fault("after", self._after)

    def wait_while(self, command: Command) -> None:
        """Wait until `act` has been called, or the command has ended."""
        while command.is_running and not self.done.wait(_POLL_S):
            pass

    def _after(self, request: Request, send: Send) -> MaybeResponse:
        reply = send(request)
        self._happen()
        return reply

    def _happen(self) -> None:
        self._act()
        self.done.set()

"""What goes wrong on the way to an image, told apart: what may pass by itself, and what won't."""

from __future__ import annotations

import http
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpcore2

from stair_es.errors import ReadError
from stair_es.sources.web.body import CutOff


class Passing(Exception):
    """An attempt failed with what may pass by itself."""

    def __init__(self, reason: str, wait_s: float = 0.0, host: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.wait_s = wait_s
        """What the server asked to wait."""
        self.host = host
        """Which server that was."""


@contextmanager
def translated(where: str) -> Iterator[None]:
    """The library's errors and ours, all of them saying where.

    Raises:
        ReadError: Won't pass.
        Passing: May pass.
    """
    try:
        yield
    except ReadError as error:
        raise ReadError(f"{where}: {error.message}", error.remedy) from error
    except Passing as error:
        raise Passing(f"{where}: {error.reason}", error.wait_s, error.host) from error
    except httpcore2.TimeoutException as error:
        raise Passing(f"{where}: no answer in time") from error
    except httpcore2.ConnectError as error:
        cause = error.__context__  # the pool of httpcore clears `__cause__`
        if isinstance(cause, ssl.SSLCertVerificationError):
            why = cause.verify_message
            raise ReadError(f"{where}: its certificate isn't trusted: {why}", "Add its CA to those of this machine.") from error
        raise Passing(f"{where}: can't connect: {getattr(cause, 'strerror', None) or error}") from error
    except (httpcore2.NetworkError, CutOff) as error:
        raise Passing(f"{where}: connection lost") from error
    except httpcore2.RemoteProtocolError as error:
        raise Passing(f"{where}: bad answer: {str(error)[:120]}") from error
    except httpcore2.LocalProtocolError as error:
        raise ReadError(f"{where}: can't be asked for: {str(error)[:120]}") from error


def status_text(status: int) -> str:
    """By the standard's words: the server's own could say anything."""
    with suppress(ValueError):
        return f"{status} {http.HTTPStatus(status).phrase}"
    return f"status {status}"

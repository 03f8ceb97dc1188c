"""URLs of clusters and products, checked and shown without what may be secret in them. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from stair_es.errors import UsageError

MASK = "***"


def split_nodes(urls: str) -> list[str]:
    """One URL for each node; a comma may also stand in a password."""
    return re.split(r"\s*,\s*(?=https?://)", urls.strip())


def parse_url(url: str, what: str, remedy: str) -> SplitResult:
    """The parts of `http[s]://[user:password@]host[:port][/prefix]`.

    Args:
        url: May hold secrets anywhere while it isn't known to be a URL, so no error repeats any of it.
        what: What it should be, with its article, for the error.
        remedy: Of the error.

    Raises:
        UsageError: It is no such URL; says which part is wrong.
    """
    flaw = _find_flaw(url)
    if flaw:
        raise UsageError(f"not {what}: {flaw}", remedy)
    return urlsplit(url)


def without_login(url: str) -> str:
    """The URL without user and password."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def mask_urls(urls: str) -> str:
    """The URLs with `***` in place of each login; `***` alone if one of them is no URL, and may be a secret itself."""
    parts = split_nodes(urls)
    if any(_find_flaw(part) for part in parts):
        return MASK
    return ",".join(without_login(part).replace("://", f"://{MASK}@" if urlsplit(part).username else "://", 1) for part in parts)


def _find_flaw(url: str) -> str:
    """What is wrong with it, in words that are none of its own; empty if nothing is."""
    try:
        url.encode()
        parts = urlsplit(url)
        port = parts.port
    except UnicodeEncodeError:
        return "it isn't UTF-8"
    except ValueError:
        return "its host or port can't be read"
    if parts.scheme not in ("http", "https"):
        return "it doesn't start with http:// or https://"
    if "@" in parts.path + parts.query + parts.fragment:
        return "there is an @ behind the host"
    if parts.query or parts.fragment:
        return "it has a query string or a fragment"
    if not parts.hostname or port == 0:
        return "it has no host, or port 0"
    return ""

"""URLs of clusters and of Dashboards: parsed, checked, and shown without secrets. Pure."""

from __future__ import annotations

import re
from urllib.parse import SplitResult, urlsplit, urlunsplit

from stair_es.errors import UsageError
from stair_es.types import is_utf8

MASK = "***"


def split_node_urls(urls: str) -> list[str]:
    """Split comma-separated URLs, one per node; a comma may also be part of a password."""
    return re.split(r"\s*,\s*(?=https?://)", urls.strip())


def has_password(urls: str) -> bool:
    """Return whether one of the comma-separated URLs contains a password, which may itself contain commas."""
    try:
        return any(urlsplit(part).password for part in split_node_urls(urls))
    except ValueError:
        return False  # reported where the URL is parsed


def parse_node_url(url: str, what: str, remedy: str) -> SplitResult:
    """Parse `http[s]://[user:password@]host[:port][/prefix]`.

    Args:
        url: May contain secrets anywhere before it is known to be valid, so errors never repeat any part of it.
        what: Expected kind of URL with its article, for the error.
        remedy: Remedy of the error.

    Raises:
        UsageError: If it isn't such a URL; says which part is wrong.
    """
    flaw = _find_flaw(url)
    if flaw:
        raise UsageError(f"not {what}: {flaw}", remedy, code="invalid-server-url")
    return urlsplit(url)


def remove_login(url: str) -> str:
    """Remove user and password from a URL."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def mask_urls(urls: str) -> str:
    """Return the URLs with `***` instead of each login; only `***` if one of them is invalid and may be a secret itself."""
    parts = split_node_urls(urls)
    if any(_find_flaw(part) for part in parts):
        return MASK
    return ",".join(remove_login(part).replace("://", f"://{MASK}@" if urlsplit(part).username else "://", 1) for part in parts)


def _find_flaw(url: str) -> str:
    """Return what is wrong with a URL, without repeating any part of it; an empty string if it is valid."""
    if not is_utf8(url):
        return "it isn't UTF-8"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "its host or port can't be read"
    if parts.scheme not in ("http", "https"):
        return "it doesn't start with http:// or https://"
    if "@" in parts.path + parts.query + parts.fragment:
        return "there is an @ after the host"
    if parts.query or parts.fragment:
        return "it has a query string or a fragment"
    if not parts.hostname or port == 0:
        return "it has no host, or port 0"
    return ""

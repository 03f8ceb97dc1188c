"""Redact URLs for messages and documents: credentials and signatures are for the server only."""

from __future__ import annotations

import hashlib
import re
from urllib.parse import urlsplit, urlunsplit

# Signed URLs of object stores: parameter that marks one -> parameters of its signature.
_SIGNATURES = tuple(
    (re.compile(mark, re.IGNORECASE), re.compile(signature, re.IGNORECASE))
    for mark, signature in (
        (r"x-(amz|goog)-.*", r"x-(amz|goog)-.*"),
        (r"awsaccesskeyid|googleaccessid|key-pair-id", r"awsaccesskeyid|googleaccessid|key-pair-id|signature|policy|expires"),
        (r"sig", r"sig|sv|ss|srt|sr|sp|st|se|spr|sip|si|sk[a-z]{1,3}"),
        (r"access[-_]?token|api[-_]?key", r"access[-_]?token|api[-_]?key"),
    )
)
# Secrets, or parameters that identify the image: unknown. A digest is enough for the latter.
_SECRET_NAME = re.compile(r".*(token|auth|signature|passw(or)?d|secret|jwt|api[-_]?key).*", re.IGNORECASE)


def redact_web_url(url: str) -> str:
    """Return the URL for messages: without user, password, query and fragment, at most 200 characters."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return (text if len(text) <= 200 else text[:197] + "...") + ("?..." if parts.query else "")


def find_credentials_error(url: str) -> str | None:
    """Return why a URL with credentials is never fetched, or None. Checked before the URL is stored for a retry."""
    try:
        login = "@" in urlsplit(url).netloc
    except ValueError:
        return None  # fetching it reports the reason
    return f"a URL with a user name or password isn't fetched; use a signed one: {redact_web_url(url)}" if login else None


def normalize_url(url: str) -> str:
    """Return the URL as the identity of an image: without credentials, signature and fragment."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return redact_web_url(url)
    pairs = [pair.partition("=") for pair in parts.query.split("&")] if parts.query else []
    signing = [signature for mark, signature in _SIGNATURES if any(mark.fullmatch(name) for name, _, _ in pairs)]
    kept = [
        name + equals + (hashlib.sha256(value.encode()).hexdigest()[:16] if _SECRET_NAME.fullmatch(name) else value)
        for name, equals, value in pairs
        if not any(signature.fullmatch(name) for signature in signing)
    ]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "&".join(kept), ""))

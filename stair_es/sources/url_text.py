"""URLs as they may be shown: credentials and signatures are for the server alone."""

from __future__ import annotations

import re
from urllib.parse import urlsplit, urlunsplit

_SIGNING = re.compile(
    r"x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|key-pair-id|policy|expires|(access_)?token|auth|api[-_]?key|sig",
    re.IGNORECASE,
)
# Words of a shared access signature, too common to be left out where there is none.
_AZURE = re.compile(r"sv|ss|srt|sr|sp|st|se|spr|sip|si|sk[a-z]{1,3}", re.IGNORECASE)


def shown(url: str) -> str:
    """The URL for messages: without user, password, query and fragment, and not longer than a line."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "a malformed URL"
    text = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))
    text = "".join(letter if letter.isprintable() else "?" for letter in text)
    return (text if len(text) <= 200 else text[:197] + "...") + ("?..." if parts.query else "")


def public_uri(url: str) -> str:
    """The URL as the identity of an image: without credentials, signature and fragment, the same however often it is signed."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return shown(url)
    pairs = parts.query.split("&") if parts.query else []
    names = [pair.partition("=")[0] for pair in pairs]
    azure = "sig" in (name.lower() for name in names)
    kept = [
        pair
        for pair, name in zip(pairs, names, strict=True)
        if not _SIGNING.fullmatch(name) and not (azure and _AZURE.fullmatch(name))
    ]
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "&".join(kept), ""))

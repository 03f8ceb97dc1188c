"""Reversible escaping of tokens as keys of a `rank_features` field, and the form of labels there.

The engines index a feature whose name contains a dot and never find it again (the query splits the field name at its last
dot), and newer versions reject it; some reject an empty name. So `.` is written `%2E`, `%` is written `%25`, and the empty token
`%`. Everything else, `##ing` and Unicode included, stays unchanged.
"""

import re
import unicodedata

WORD_PARTS = re.compile(r"[^\W_]+(?:['-][^\W_]+)*")
"""Words of a text, as they are searched in captions and labels: `t-shirt` is one."""


def normalize_label(text: str) -> str:
    """Return a label as it is stored and searched: its words in lower case, without punctuation (`st bernard`)."""
    return " ".join(WORD_PARTS.findall(unicodedata.normalize("NFC", text).lower()))


def escape_feature(token: str) -> str:
    """Escape a token as a `rank_features` key."""
    if not token:
        return "%"
    return token.replace("%", "%25").replace(".", "%2E")


def unescape_feature(feature: str) -> str:
    """Unescape a `rank_features` key: the inverse of `escape_feature`."""
    if feature == "%":
        return ""
    return feature.replace("%2E", ".").replace("%25", "%")

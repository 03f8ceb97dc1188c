"""The reversible escape between words and `rank_features` keys.

The engines index a feature whose name has a dot and never find it again (the query splits the field name at its last
dot), and newer ones refuse it; some refuse an empty name. So `.` is written `%2E`, `%` is written `%25`, and the empty word
`%`. Everything else, `##ing` and unicode included, stays as it is.
"""


def escape(word: str) -> str:
    """The `rank_features` key of a word."""
    if not word:
        return "%"
    return word.replace("%", "%25").replace(".", "%2E")


def unescape(feature: str) -> str:
    """The word of a `rank_features` key: the inverse of `escape`."""
    if feature == "%":
        return ""
    return feature.replace("%2E", ".").replace("%25", "%")

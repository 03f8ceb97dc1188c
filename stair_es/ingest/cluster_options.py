"""The options of the built-in sink, as text from the command line or from whoever calls."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

from stair_es.config import KEEP
from stair_es.errors import UsageError

Swap = Literal["auto", "always", "never"]
_YES_NO = ("yes", "no")


@dataclass(frozen=True, kw_only=True)
class ClusterOptions:
    """See `cluster_sink`."""

    keep: int = KEEP
    swap: Swap = "auto"
    relax_replicas: bool = False
    mapping: Path | None = None
    words_index: bool | None = None
    """None for what the index has."""

    @classmethod
    def of(cls, given: Mapping[str, str]) -> ClusterOptions:
        """The options of a plan.

        Raises:
            UsageError: One that there isn't, or a value that makes no sense.
        """
        unknown = set(given) - {"keep", "swap", "relax_replicas", "mapping", "words_index"}
        if unknown:
            raise UsageError(f"the sink 'cluster' has no option {', '.join(sorted(unknown))}", "See docs/plugins.md.")
        keep, swap, relax = given.get("keep", str(KEEP)), given.get("swap", "auto"), given.get("relax_replicas", "no")
        words = given.get("words_index")
        if not keep.isdecimal() or swap not in get_args(Swap) or relax not in _YES_NO or words not in (None, *_YES_NO):
            has = f"keep={keep}, swap={swap}, relax_replicas={relax}" + (f", words_index={words}" if words else "")
            raise UsageError(
                f"the sink 'cluster' can't have {has}",
                f"keep is a number, swap one of {', '.join(get_args(Swap))}, relax_replicas and words_index yes or no.",
            )
        return cls(
            keep=int(keep),
            swap=cast(Swap, swap),
            relax_replicas=relax == "yes",
            mapping=Path(given["mapping"]) if given.get("mapping") else None,
            words_index=None if words is None else words == "yes",
        )

"""`stair-es encode`."""


def encode() -> None:
    """Placeholder, replaced in the next commits."""
    raise NotImplementedError

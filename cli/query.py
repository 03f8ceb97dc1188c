"""`stair-es query`."""


def query() -> None:
    """Placeholder, replaced in the next commits."""
    raise NotImplementedError

"""`stair-es search`."""


def search() -> None:
    """Placeholder, replaced in the next commits."""
    raise NotImplementedError

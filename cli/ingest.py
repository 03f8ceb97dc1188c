"""`stair-es ingest`."""


def ingest() -> None:
    """Placeholder, replaced in the next commits."""
    raise NotImplementedError

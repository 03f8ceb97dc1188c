"""The embedded node: a real OpenSearch on the loopback interface, downloaded once, with persistent data.

::

    from stair_es.node import ensure_running

    url = ensure_running(say=print)
"""

from .lifecycle import Status, down, ensure_running, status, up
from .spec import NodeSpec

__all__ = ["NodeSpec", "Status", "down", "ensure_running", "status", "up"]

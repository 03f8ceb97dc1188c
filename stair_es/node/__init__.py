"""The embedded node: a real OpenSearch on the loopback interface, downloaded once, with persistent data.

::

    from stair_es.node import ensure_running

    url = ensure_running(say=print)
"""

from .lifecycle import NodeStatus, ensure_running, get_node_status, start_node, stop_node
from .spec import NodeSpec

__all__ = ["NodeSpec", "NodeStatus", "ensure_running", "get_node_status", "start_node", "stop_node"]

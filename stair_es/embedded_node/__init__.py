"""The embedded node: a real OpenSearch on the loopback interface, downloaded once, with persistent data.

::

    from stair_es.embedded_node import ensure_running

    url = ensure_running()
"""

from stair_es.embedded_node.lifecycle import NodeStatus, ensure_running, find_node_url, get_node_status, start_node, stop_node
from stair_es.embedded_node.spec import NodeSpec

__all__ = ["NodeSpec", "NodeStatus", "ensure_running", "find_node_url", "get_node_status", "start_node", "stop_node"]

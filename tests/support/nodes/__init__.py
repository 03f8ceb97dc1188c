"""Search nodes of several versions, their jars and their users."""

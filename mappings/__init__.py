"""Index bodies (JSON)."""

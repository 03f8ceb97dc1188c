"""The `stair-es evaluate` commands."""

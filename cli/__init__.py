"""The `stair-es` command: one module per command; `main.py` is the only exit point."""

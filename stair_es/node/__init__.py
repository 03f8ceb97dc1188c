"""The embedded search node."""

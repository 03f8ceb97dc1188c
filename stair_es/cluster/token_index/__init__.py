"""The token index: one document per token weight, for charts."""

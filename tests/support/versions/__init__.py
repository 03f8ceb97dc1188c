"""The compatibility run: the same checks on every version of the engines."""

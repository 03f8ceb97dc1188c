"""`stair-es policy` and `stair-es teach`."""

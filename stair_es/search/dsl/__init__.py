"""Clauses of the query DSL for token weights."""

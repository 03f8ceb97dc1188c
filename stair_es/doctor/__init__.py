"""Diagnose this machine, the cluster and the index, and suggest the command that fixes each problem. Read-only.

`machine` and `cluster` have the topics: `check_*` gathers facts, pure `evaluate_*` functions turn them into results.
"""

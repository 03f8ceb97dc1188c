"""Diagnose this machine, the cluster and the index, and suggest the command that fixes each problem. Read-only.

Each file except `run` and `facts` is one topic: `check_*` gathers facts, pure `evaluate_*` functions turn them into results.
"""

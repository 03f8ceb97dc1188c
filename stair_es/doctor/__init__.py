"""What is wrong with this machine, this cluster and this index, and the command that mends it. Looks only: changes nothing.

Each file but `run` and `look` is one topic: pure functions from what was seen to findings, with `*_here` to see it.
"""

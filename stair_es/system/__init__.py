"""The machine: limits of its CPUs and memory, folders, the Ray session, logs of the image decoders."""

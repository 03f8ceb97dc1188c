"""The machine: limits of its CPUs and memory, garbage collection, folders, the Ray session, logs of the image decoders."""

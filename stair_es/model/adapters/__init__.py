"""Public checkpoints in third-party formats, one module per format; networks are loaded on first use."""

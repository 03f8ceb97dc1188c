"""Public checkpoints that others trained: each format is one file, which loads no network before an encoder is used."""

"""STAIR checkpoints: configuration, model, tokenizer, runtimes, export."""

"""The HTTP API of the encoder: requests, batches of what arrives together, responses, and its OpenAPI document."""

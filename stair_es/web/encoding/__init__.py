"""The HTTP API of the encoder: requests, batching, responses, and the OpenAPI document."""

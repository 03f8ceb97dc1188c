"""One plugin of each kind for stair-es: the source `zip`, the encoder `colors`, the enricher `pixelate`, the sink `ndjson`."""

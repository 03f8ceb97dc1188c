"""One plugin of each kind for stair-es: the source `zip`, the encoder `colours`, the enricher `pixelate`, the sink `ndjson`."""

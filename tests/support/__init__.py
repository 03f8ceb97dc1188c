"""What tests, benchmarks and scripts share: nodes, servers, tiny models, corpora and oracles. Nothing of it is shipped."""

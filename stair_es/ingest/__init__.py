"""The ingest flow: read, decode, encode, write, and its report."""

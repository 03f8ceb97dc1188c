"""HTTP servers and proxies on loopback that record, fail or misbehave on purpose."""

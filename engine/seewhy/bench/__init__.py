"""Measurements of latency and throughput, for `seewhy bench`."""

"""Latency and throughput, for seewhy bench."""

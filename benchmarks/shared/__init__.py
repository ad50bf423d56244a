"""Common parts of the benchmarks: timing, statistics, tables and files."""

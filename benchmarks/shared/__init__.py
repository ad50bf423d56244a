"""What the benchmarks have in common: timing, statistics, tables, files."""

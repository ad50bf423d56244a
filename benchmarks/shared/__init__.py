"""Helpers of several benchmarks: timing, statistics, tables and files."""

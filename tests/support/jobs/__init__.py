"""Helpers for tests of jobs that are interrupted, killed and resumed."""

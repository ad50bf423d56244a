"""Helpers of the tests that need PyTorch."""

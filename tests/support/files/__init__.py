"""Image files and inputs for tests, intact and damaged."""

"""Image files and inputs for tests, whole and damaged."""

"""Joint graphs written as model files."""

"""Resumable jobs over many images."""

"""Helpers that all packages of the exporter share."""

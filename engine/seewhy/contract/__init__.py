"""The file contract between exporter and engine. This package uses the standard library alone."""

"""Messages that all of the exporter shares."""

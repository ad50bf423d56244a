"""The file contract, which exporter and engine share."""

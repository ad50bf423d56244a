"""Measurements of SeeWhy; README.md says which script answers which question."""

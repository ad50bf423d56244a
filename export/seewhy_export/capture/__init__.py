"""Modules traced into forward graphs."""

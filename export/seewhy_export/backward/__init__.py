"""Tracing of forward and backward pass into one joint graph."""

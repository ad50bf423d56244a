"""From a module to its forward graph."""

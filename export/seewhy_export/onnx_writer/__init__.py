"""From the joint graph to a model file."""

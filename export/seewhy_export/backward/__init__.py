"""The backward pass beside the forward pass, in one graph."""

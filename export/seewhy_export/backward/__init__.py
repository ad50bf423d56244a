"""The backward pass beside the forward pass, in one joint graph."""

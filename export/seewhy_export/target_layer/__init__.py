"""Selection of the layer that is explained, and the layout of its map."""

"""The layer that is explained, and the places of its map."""

"""Which layer is explained, and where the places of its map lie."""

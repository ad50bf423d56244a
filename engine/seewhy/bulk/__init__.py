"""Jobs over many images: parallel, resumable, each result committed once."""

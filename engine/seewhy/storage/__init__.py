"""Files on disk: the output folder, its results and their records."""

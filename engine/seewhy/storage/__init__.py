"""What lies on disk: the output folder, its results and its records."""

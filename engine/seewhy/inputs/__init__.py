"""Lists of images: from files, folders, patterns, list files and archives."""

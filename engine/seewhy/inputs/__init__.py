"""Lists what is to be explained: files, folders, patterns, lists and archives."""

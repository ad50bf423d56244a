"""Images of a job, from files, folders, patterns, lists and archives."""

"""Arrays, text, checks, files and tables that know nothing of images or models."""

"""The page that `make bench` writes: its tables, plots and text."""

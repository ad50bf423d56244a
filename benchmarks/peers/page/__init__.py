"""Tables, plots and text of the page that `make bench` writes."""

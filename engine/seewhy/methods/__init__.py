"""The methods, one file a family, and the table that lists them."""

"""Jobs that are broken off, killed and resumed."""

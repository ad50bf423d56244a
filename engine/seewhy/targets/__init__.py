"""From what a user writes as target to what is explained."""

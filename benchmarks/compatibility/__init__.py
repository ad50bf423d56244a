"""Which networks and model files SeeWhy takes, and how exactly."""

"""Messages, and what touches PyTorch's private interfaces."""

"""SeeWhy: explain an image classifier's decisions with onnxruntime alone."""

__version__ = "0.1.0"

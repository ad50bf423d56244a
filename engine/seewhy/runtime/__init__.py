"""Everything that runs onnxruntime."""

"""Everything that runs onnxruntime: model files, pruned graphs, providers and sessions."""

"""Model files, pruned graphs, execution providers and sessions of onnxruntime."""

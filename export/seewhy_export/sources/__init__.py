"""Sources of networks: torchvision, timm, Python factories, checkpoints and ONNX files."""

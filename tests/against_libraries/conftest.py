"""These tests need PyTorch."""

import support.exporting.torch_setup  # noqa: F401

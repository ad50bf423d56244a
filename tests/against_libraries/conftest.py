"""PyTorch setup for the comparisons with other libraries, which are skipped if PyTorch is not installed."""

import support.exporting.torch_setup  # noqa: F401

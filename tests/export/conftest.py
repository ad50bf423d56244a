"""PyTorch setup of the exporter's tests, which are skipped without PyTorch."""

import support.exporting.torch_setup  # noqa: F401

"""PyTorch setup of the comparisons with other libraries, which are skipped without PyTorch."""

import support.exporting.torch_setup  # noqa: F401

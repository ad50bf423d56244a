"""Fixture that runs every kernel test with each instruction set."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seewhy import _core


@pytest.fixture(scope="module", params=_core.isas(), autouse=True)
def every_isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Run each test with every instruction set that this processor supports."""
    before = _core.isa()
    _core.use_isa(request.param)
    yield request.param
    _core.use_isa(before)

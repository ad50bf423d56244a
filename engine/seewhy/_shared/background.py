"""Call a function in a thread, and get its result later."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

_Result = TypeVar("_Result")


class Background(Generic[_Result]):
    """Call of a function in a thread of its own, or at once if the system allows no more threads.

    `concurrent.futures` does the same, but it takes longer to import than a small model file takes to read.
    """

    def __init__(self, function: Callable[[], _Result], name: str) -> None:
        """Start the call.

        Args:
            function: The function.
            name: Name of the thread.
        """
        self._function = function
        self._found: list[_Result] = []
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=name)
        try:
            self._thread.start()
        except RuntimeError:  # the system allows no more threads
            self._run()

    def _run(self) -> None:
        try:
            self._found.append(self._function())
        except BaseException as error:  # noqa: BLE001  raised again on the thread that asks for the result
            self._error = error

    def result(self) -> _Result:
        """Wait for the end of the call.

        Returns:
            The result of the function. It can be asked for once, so that this object does not keep it alive.

        Raises:
            BaseException: If the function raised it.
        """
        if self._thread.ident is not None:
            self._thread.join()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        return self._found.pop()

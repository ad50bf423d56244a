"""Pass a pruned model to onnxruntime without a copy of its weights in this process.

Large weights come from the model file (see `stored_weights.py`). On Linux, onnxruntime reads the model from a pipe,
into which a thread writes it block by block. Elsewhere the model is joined to one block of memory, which costs the size
of the weights until the session exists.

In protobuf, a message whose field occurs twice is merged from both. So the model without large weights is followed by a
second graph that holds nothing but these weights, whose bytes are those in the model file.
"""

from __future__ import annotations

import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import TypeVar

from seewhy.errors import ModelFileError
from seewhy.runtime.onnx_messages import ModelProto, TensorProto
from seewhy.runtime.stored_weights import GRAPH, StoredWeights, field_start

_Session = TypeVar("_Session")

_HAS_PIPES = sys.platform == "linux" and os.path.isdir("/dev/fd")  # not in every container
# The largest size that Linux allows every user. With the default of 64 KiB, the threads at both ends of the pipe wait
# for each other more often: a session of ResNet-50 took 15 % longer to create.
_PIPE_SIZE = 2**20
# Ends of pipes that a thread of this process writes to, and the lock under which they are opened and closed.
_writing: set[int] = set()
_lock = threading.Lock()


def _close_in_child() -> None:
    """Close the pipes in a forked process, or onnxruntime would wait for their end until that process ends."""
    for descriptor in _writing:
        os.close(descriptor)
    _writing.clear()
    _lock.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_close_in_child)


def start_from(
    model: ModelProto, stored: StoredWeights, start: Callable[[str | bytes], _Session], by_pipe: bool
) -> _Session:
    """Start a session with a model whose large weights are in its file.

    Args:
        model: The model. Weights that are in `stored` are removed from it, unless it refers to other values of them.
        stored: Weights of the model file.
        start: Function that starts a session with the path or the bytes of a model.
        by_pipe: Whether `start` may get the path of a pipe. Providers that derive names of files from the path of the
            model must not.

    Returns:
        The session.

    Raises:
        ModelFileError: If the model file cannot be read, or was overwritten since it was first read.
        Exception: If `start` fails.
    """
    weights = model.graph.initializer
    kept = [one for one in weights if one.name not in stored or one.data_location == TensorProto.EXTERNAL]
    if len(kept) == len(weights):
        return start(model.SerializeToString())
    size, entries = stored.entries({one.name for one in weights} - {one.name for one in kept})
    del weights[:]
    weights.extend(kept)
    blocks = itertools.chain((memoryview(model.SerializeToString() + field_start(GRAPH, size)),), entries)
    if not by_pipe or not _HAS_PIPES:
        return start(_joined(blocks))
    source, writer = _open_pipe(blocks)
    try:
        try:
            writer.start()
        except RuntimeError:  # the system allows no more threads
            writer.close()
            return start(_joined(blocks))
        try:
            session = start(f"/dev/fd/{source}")
        except Exception:
            writer.stop(source)
            stored.check()  # onnxruntime may have failed on the bytes of a file that was overwritten
            raise
        finally:
            writer.stop(source)
        if writer.failure is not None:
            raise writer.failure
    finally:
        os.close(source)
    if not writer.complete:
        raise ModelFileError(f"{stored.path}: onnxruntime did not read the whole model; load the model file again")
    return session


def _joined(blocks: Iterator[memoryview]) -> bytes:
    """Return all blocks, each of which is valid until the next one."""
    return b"".join(map(bytes, blocks))


def _open_pipe(blocks: Iterator[memoryview]) -> tuple[int, _Writer]:
    """Return the end of a new pipe to read from, and a thread that writes into it."""
    import fcntl  # exists on Unix only

    with _lock:
        source, sink = os.pipe()
        _writing.add(sink)
    with suppress(OSError):  # a user may have too many pipes, or a system another limit
        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, _PIPE_SIZE)
    return source, _Writer(sink, blocks)


class _Writer(threading.Thread):
    """Writes a model into a pipe, and closes it.

    Args:
        sink: End of the pipe that is written to.
        blocks: Parts of the model.

    Attributes:
        complete: True once everything was written, and the model file was found unchanged.
        failure: Exception by which reading the model file ended, or None.
    """

    def __init__(self, sink: int, blocks: Iterator[memoryview]) -> None:
        super().__init__(name="seewhy-model-stream")
        self.complete = False
        self.failure: BaseException | None = None
        self._sink, self._blocks, self._stopped = sink, blocks, False

    def run(self) -> None:
        """Write until the end, or until the thread is stopped."""
        try:
            for block in self._blocks:
                while block and not self._stopped:
                    block = block[os.write(self._sink, block) :]
                if self._stopped:
                    return
            self.complete = True
        except BaseException as error:  # noqa: BLE001  raised again by the thread that starts the session
            self.failure = error
        finally:
            self.close()

    def stop(self, source: int) -> None:
        """Wait until the thread has ended, although nobody may read from `source` any more.

        Closing `source` would not end it, because a process that was forked meanwhile has this end of the pipe, too.
        """
        self._stopped = True
        while os.read(source, _PIPE_SIZE):
            pass
        self.join()

    def close(self) -> None:
        """Close the end of the pipe that is written to."""
        with _lock:
            _writing.discard(self._sink)
            os.close(self._sink)

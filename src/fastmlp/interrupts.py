"""Ctrl-C while steps run: handled only after the last of them is finished and counted; and Ctrl-C in other threads.

Python runs a signal handler between two bytecode instructions, for example after the engine has returned and before its
steps have been counted. The reference would be interrupted in the middle of a step.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextvars import ContextVar
from types import FrameType
from typing import Any

try:  # the same functions without the conversion to enums, which takes as long as a step of a small network
    from _signal import getsignal as _handler_of  # type: ignore[import-not-found]
    from _signal import signal as _handle
except ImportError:
    _handler_of, _handle = signal.getsignal, signal.signal


class WholeSteps:
    """A block that Ctrl-C does not interrupt: the signal's handler is called, and may raise, at the end of the block.

    Python handles signals in the main thread only; in other threads, and if SIGINT has no Python handler, this has no
    effect. If the handler of another signal raises while the block is entered or left, this block's handler of SIGINT
    may remain installed; when called, it finds that the block has ended, and restores the handler before it.

    Examples
    --------
    >>> import os, signal
    >>> try:
    ...     with WholeSteps():
    ...         os.kill(os.getpid(), signal.SIGINT)
    ...         print("the block is finished")
    ... except KeyboardInterrupt:
    ...     print("then the handler raises")
    the block is finished
    then the handler raises
    """

    def __enter__(self) -> None:
        self.handler: Any = None
        self.deferred: tuple[int, FrameType | None] | None = None
        self.frame: FrameType | None = sys._getframe(1)  # of the block
        if threading.current_thread() is threading.main_thread():
            handler = _handler_of(signal.SIGINT)
            left = getattr(handler, "__self__", None)
            if isinstance(left, WholeSteps) and not left._is_in(self.frame):
                handler = left.handler
            if callable(handler):
                self.handler = handler
                _handle(signal.SIGINT, self._defer)

    def _is_in(self, frame: FrameType | None) -> bool:
        """Whether `frame` is the frame of the block, or called from it."""
        while frame is not None and frame is not self.frame:
            frame = frame.f_back
        return frame is not None

    def _defer(self, number: int, frame: FrameType | None) -> None:
        if self._is_in(frame):
            self.deferred = number, frame
            return
        _handle(signal.SIGINT, self.handler)
        self.handler(number, frame)

    def __exit__(self, *error: Any) -> None:
        self.frame = None  # else a reference cycle: the frame refers to this object
        if self.handler is None:
            return
        _handle(signal.SIGINT, self.handler)
        if self.deferred is not None:
            self.handler(*self.deferred)


# Python runs signal handlers in the main thread only: a thread that trains networks in other threads sets this event.
CANCEL: ContextVar[threading.Event | None] = ContextVar("CANCEL", default=None)


def check_cancelled() -> None:
    """KeyboardInterrupt if the thread that started this one has cancelled the training."""
    cancel = CANCEL.get()
    if cancel and cancel.is_set():
        raise KeyboardInterrupt("the training was cancelled")

"""Ctrl-C while steps run: handled after the last of them is finished and counted; and in other threads.

Python runs a signal's handler between two of its own instructions, such as right after the engine has returned and
before anybody has noted how many steps it made. And the reference would be stopped in the middle of a step.
"""

from __future__ import annotations

import signal
import sys
import threading
from contextvars import ContextVar
from types import FrameType
from typing import Any

try:  # the same without a search for names in enumerations, which takes as long as a step of a small network
    from _signal import getsignal as _handler_of  # type: ignore[import-not-found]
    from _signal import signal as _handle
except ImportError:
    _handler_of, _handle = signal.getsignal, signal.signal


class WholeSteps:
    """A block that Ctrl-C does not break: what the signal's handler does, such as raise, it does at the block's end.

    Only Python's main thread hears signals; in others, and where SIGINT has no handler in Python, nothing is changed.
    Where the handler of another signal raises while the block is entered or left, the block's own handler of Ctrl-C may
    stay behind; it then finds that the block is over, and gives way to the one before it.

    Examples
    --------
    >>> import os, signal
    >>> try:
    ...     with WholeSteps():
    ...         os.kill(os.getpid(), signal.SIGINT)
    ...         print("this is still done")
    ... except KeyboardInterrupt:
    ...     print("and then it is heard")
    this is still done
    and then it is heard
    """

    def __enter__(self) -> None:
        self.handler: Any = None
        self.heard: tuple[int, FrameType | None] | None = None
        self.frame: FrameType | None = sys._getframe(1)  # of the block
        if threading.current_thread() is threading.main_thread():
            handler = _handler_of(signal.SIGINT)
            left = getattr(handler, "__self__", None)
            if isinstance(left, WholeSteps) and not left._is_in(self.frame):
                handler = left.handler
            if callable(handler):
                self.handler = handler
                _handle(signal.SIGINT, self._hear)

    def _is_in(self, frame: FrameType | None) -> bool:
        """Whether the block is being run, as seen from the frame at hand."""
        while frame is not None and frame is not self.frame:
            frame = frame.f_back
        return frame is not None

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if self._is_in(frame):
            self.heard = number, frame
            return
        _handle(signal.SIGINT, self.handler)
        self.handler(number, frame)

    def __exit__(self, *error: Any) -> None:
        self.frame = None  # which has this block among what it holds
        if self.handler is None:
            return
        _handle(signal.SIGINT, self.handler)
        if self.heard is not None:
            self.handler(*self.heard)


# Python runs signal handlers in the main thread only: a thread that trains networks in other threads sets this event.
CANCEL: ContextVar[threading.Event | None] = ContextVar("CANCEL", default=None)


def check_cancelled() -> None:
    """KeyboardInterrupt if the thread that started this one has cancelled the training."""
    cancel = CANCEL.get()
    if cancel and cancel.is_set():
        raise KeyboardInterrupt("the training was cancelled")

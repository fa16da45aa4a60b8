"""Ctrl-C while steps run: it is heard when the last of them is finished and counted.

Python runs a signal's handler between two of its own instructions, such as right after the engine has returned and
before anybody has noted how many steps it made. And the reference would be stopped in the middle of a step.
"""

from __future__ import annotations

import signal
import threading
from typing import Any

try:  # the same without a search for names in enumerations, which takes as long as a step of a small network
    from _signal import getsignal as _handler_of  # type: ignore[import-not-found]
    from _signal import signal as _handle
except ImportError:
    _handler_of, _handle = signal.getsignal, signal.signal


class WholeSteps:
    """A block that Ctrl-C does not break: what the signal's handler does, such as raise, it does at the block's end.

    Only Python's main thread hears signals; in others, and where SIGINT has no handler in Python, nothing is changed.

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
        self.heard: tuple[Any, ...] | None = None
        if threading.current_thread() is threading.main_thread():
            handler = _handler_of(signal.SIGINT)
            if callable(handler):
                self.handler = handler
                _handle(signal.SIGINT, self._hear)

    def _hear(self, *signal_and_frame: Any) -> None:
        self.heard = signal_and_frame

    def __exit__(self, *error: Any) -> None:
        if self.handler is None:
            return
        _handle(signal.SIGINT, self.handler)
        if self.heard is not None:
            self.handler(*self.heard)

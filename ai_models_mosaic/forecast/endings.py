"""How a run ends, seen from where nothing passes unseen: by success, an error, a bug, Ctrl-C or a signal."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

from ..errors import INTERRUPTED, MosaicError
from ..wording.excerpts import first_line
from .bulletin import Bulletin

SIGNALS = (signal.SIGTERM, signal.SIGHUP)
"""Those that end a process, and that it may hear."""

OF_A_SIGNAL = 128
"""A shell adds this to the number of the signal that ended a process."""

BUG = 1
"""Exit status of Python after a traceback."""


class SignalledError(BaseException):
    """A signal came that ends the process; no error that anything on the way up may take for its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def told(bulletin: Bulletin, *, success: bool = True) -> Iterator[None]:
    """Tell how what runs here ended, and let it end so.

    Parameters
    ----------
    bulletin : Bulletin
        Who is told.
    success : bool
        Whether it is the end of the run if nothing goes wrong here.
    """
    try:
        with _heard(wanted=bulletin.is_wanted):
            yield
    except SignalledError as error:
        bulletin.close(OF_A_SIGNAL + error.number, f"ended by {signal.Signals(error.number).name}")
        _end_by(error.number)
    except MosaicError as error:
        bulletin.close(error.exit_status, str(error))
        raise
    except KeyboardInterrupt:
        bulletin.close(INTERRUPTED, "interrupted")
        raise
    except Exception as error:
        bulletin.close(BUG, f"{type(error).__name__}: {first_line(error)}")
        raise
    if success:
        bulletin.close(0)


@contextmanager
def _heard(*, wanted: bool) -> Iterator[None]:
    """While this lasts, signals that would end the process raise, if somebody wants to know; ignored ones stay so."""
    if not wanted or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in SIGNALS}
    deadly = [number for number, handler in before.items() if handler == signal.SIG_DFL]
    for number in deadly:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in deadly:
            signal.signal(number, signal.SIG_DFL)


def _raise(number: int, _: FrameType | None) -> NoReturn:
    raise SignalledError(number)


def _end_by(number: int) -> NoReturn:
    """End the process as the signal does by itself."""
    signal.signal(number, signal.SIG_DFL)
    signal.raise_signal(number)
    raise SystemExit(OF_A_SIGNAL + number)

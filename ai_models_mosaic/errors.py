"""The errors that a user can act on; everything else is a bug and keeps its traceback.

Each kind has an exit status of its own, for scripts; ``docs/operations.md`` lists them.
"""

from .wording.redaction import redacted


class MosaicError(Exception):
    """Root of the errors shown without a traceback: what was expected, what came, what to do."""

    exit_status = 1

    def __str__(self) -> str:
        # Messages hold what was asked for, and what libraries say of it: a URL may have a password.
        return redacted(super().__str__())


class OptionError(MosaicError):
    """An option, or a combination of options, that cannot be honoured."""

    exit_status = 2


class InputError(MosaicError):
    """Input fields that are missing, unreadable, ambiguous or physically impossible."""

    exit_status = 3


class CheckpointError(MosaicError):
    """Weights or other assets that are absent, unsafe, incomplete or of the wrong kind."""

    exit_status = 4


class ForecastError(MosaicError):
    """A forecast or a training that cannot go on, such as one that has become non-finite."""

    exit_status = 5


class OutputError(MosaicError):
    """Output that cannot be written where, or labelled as, it was asked for."""

    exit_status = 6


class ResumeError(MosaicError):
    """An unfinished run that cannot be resumed, or not so."""

    exit_status = 7


class LostRankError(MosaicError):
    """A process of a run of several that is gone."""

    exit_status = 8


class DatesError(MosaicError):
    """Some of several initial times that failed, the others being done."""

    exit_status = 9


class ReplayError(MosaicError):
    """Fields made again that are not those of the original."""

    exit_status = 10


class LateError(MosaicError):
    """An ensemble that is complete, and later than it was asked for."""

    exit_status = 11


class CheckError(MosaicError):
    """Files that are off from what they should hold by more than packing and rounding."""

    exit_status = 12


class HealthError(MosaicError):
    """A complete forecast some of whose members left their bands, where that was to be told by the exit status."""

    exit_status = 13


class TerminatedError(MosaicError):
    """A run that was asked to stop by a signal, and did so in good order."""

    exit_status = 143


class ReaderGoneError(MosaicError):
    """Standard output that nobody reads any more, as of ``… | head -1``: no reason to say anything."""

    exit_status = 141


INTERRUPTED = 130
"""Exit status after Ctrl-C, which Python tells by an exception of its own."""

"""The errors that a user can act on; everything else is a bug and keeps its traceback."""


class MosaicError(Exception):
    """Root of the errors shown without a traceback: what was expected, what came, what to do."""


class OptionError(MosaicError):
    """An option, or a combination of options, that cannot be honoured."""


class InputError(MosaicError):
    """Input fields that are missing, unreadable, ambiguous or physically impossible."""


class CheckpointError(MosaicError):
    """Weights or other assets that are absent, unsafe, incomplete or of the wrong kind."""


class ForecastError(MosaicError):
    """A forecast that cannot go on, such as one that has become non-finite."""


class OutputError(MosaicError):
    """Output that cannot be written where, or labelled as, it was asked for."""

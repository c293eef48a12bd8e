"""Whether forecast, truth and climatology seem to be in the same units."""

from __future__ import annotations

import logging
from collections.abc import Mapping

from ..arrays import FloatArray
from ..channels import Channel
from ..inputs.states import unit_hint

LOG = logging.getLogger(__name__)


def warn_of_units(channel: Channel, fields: Mapping[str, FloatArray]) -> None:
    """Warn where some fields of a channel, and not all, look as if they were in other units than its own.

    A warning, and no refusal: what a forecast that went astray holds can look like anything.

    Parameters
    ----------
    channel : Channel
    fields : mapping of str to array (…)
        By what they are, such as ``truth``.
    """
    hints = {name: unit_hint(values, channel) for name, values in fields.items()}
    if all(hints.values()):
        return
    for name, hint in hints.items():
        if hint:
            low, high = float(fields[name].min()), float(fields[name].max())
            LOG.warning(
                "%s of the %s lies within %g … %g, where %s was expected%s Forecast and truth must both be in SI units",
                channel.label,
                name,
                low,
                high,
                channel.units,
                hint,
            )

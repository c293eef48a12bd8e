"""Tables by scale: power spectra, CRPS and errors."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..arrays import FloatArray
from .evaluation import Evaluation
from .scales import DISTANCE, HALF_DIFFERENCE, MEAN_ERROR, MEMBER_ERROR, REFERENCE
from .tables import Row


def spectrum_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``spectra.csv``: power by wavenumber of members, mean and truth, and the former over the latter."""
    sums = evaluation.sums
    if not sums.spectra:
        return
    mean = evaluation.mean(sums.spectra_power)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratios = [evaluation.bootstrap.interval(mean[:, :, :, kind] / mean[:, :, :, 2]) for kind in (0, 1)]
    dates = np.isfinite(sums.spectra_power[:, :, :, 2, 0]).sum(axis=0)
    for row, channel in enumerate(sums.spectra):
        for index, lead in enumerate(sums.lead_hours):
            if not dates[row, index]:
                continue
            for wavenumber in range(mean.shape[-1]):
                where = (row, index, wavenumber)
                line: Row = {
                    "forecast": evaluation.name,
                    "channel": channel.name,
                    "units": f"({channel.units})**2",
                    "lead_hours": lead,
                    "wavenumber": wavenumber,
                }
                for kind, name in enumerate(("members", "mean", "truth")):
                    line[f"{name}_power"] = float(mean[0, row, index, kind, wavenumber])
                for name, ends in zip(("members", "mean"), ratios, strict=True):
                    for end, values in zip(("", "_low", "_high"), ends, strict=True):
                        line[f"{name}_ratio{end}"] = float(values[where])
                yield line | {"dates": int(dates[row, index]), "members": sums.members}


def crps_by_degree(evaluation: Evaluation, where: tuple[int, int] | None = None) -> FloatArray:
    """Fair CRPS of every wavenumber alone, of the sample and of every replicate, ``(replicate + 1, …, wavenumber)``.

    Parameters
    ----------
    evaluation : Evaluation
        With spectra.
    where : (int, int) or None
        Index of the spectrum and of the lead time; None for all of them.
    """
    scales = evaluation.sums.scales if where is None else evaluation.sums.scales[:, where[0], where[1]]
    return evaluation.mean(scales[..., DISTANCE, :] - scales[..., HALF_DIFFERENCE, :])


def scale_rows(evaluation: Evaluation) -> Iterator[Row]:
    """Lines of ``scales.csv``: CRPS by wavenumber, and the errors' power over what it grows to."""
    sums = evaluation.sums
    if not sums.spectra:
        return
    crps = evaluation.bootstrap.interval(crps_by_degree(evaluation))
    power = {
        name: evaluation.mean(sums.scales[..., kind, :])
        for name, kind in (("members", MEMBER_ERROR), ("mean", MEAN_ERROR), ("truth", REFERENCE))
    }
    with np.errstate(invalid="ignore", divide="ignore"):
        saturated = evaluation.bootstrap.interval(power["members"] / (2 * power["truth"]))
    dates = np.isfinite(sums.scales[:, :, :, 0, 0]).sum(axis=0)
    for row, channel in enumerate(sums.spectra):
        for index, lead in enumerate(sums.lead_hours):
            for wavenumber in range(sums.scales.shape[-1] if dates[row, index] else 0):
                where = (row, index, wavenumber)
                line: Row = {
                    "forecast": evaluation.name,
                    "channel": channel.name,
                    "units": channel.units,
                    "lead_hours": lead,
                    "wavenumber": wavenumber,
                }
                for name, ends in (("crps_fair", crps), ("members_saturation", saturated)):
                    for end, values in zip(("", "_low", "_high"), ends, strict=True):
                        line[f"{name}{end}"] = float(values[where])
                line["members_error_power"] = float(power["members"][(0, *where)])
                line["mean_error_power"] = float(power["mean"][(0, *where)])
                line["saturated_power"] = 2 * float(power["truth"][(0, *where)])
                yield line | {"dates": int(dates[row, index]), "members": sums.members}

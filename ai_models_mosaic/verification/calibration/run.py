"""A calibration as its options say: forecasts and truth read, factors fitted, tried on other dates, written."""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from ... import __version__
from ...arrays import FloatArray
from ...channels import Channel
from ...errors import InputError, OptionError
from ...files import write_whole
from ...forecast.provenance import now
from ...options.factor_files import NOISE, SPREAD, VERSION
from ...outputs.calibration import LIMITS, moved
from ...wording.redaction import redacted
from ..accumulate import Sums, verify
from ..bootstrap import Bootstrap
from ..cases import Case, Forecasts, Truth
from ..evaluation import Evaluation
from ..options import plan_of_channels
from ..plan import Plan
from ..run import on_grid, open_forecasts, open_truth
from ..spectra import PowerSpectrum
from .dates import split
from .noise import fit_noise
from .options import by_noise_factor, wavenumbers_of
from .origin import Origin, common_origin, origin_of
from .spectra import bands_of
from .spread import Fit, fit_spread
from .tables import noise_lines, noise_scores, spread_lines, spread_scores

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Dates:
    """Which dates serve for what.

    Parameters
    ----------
    fit, trial : list of datetime
    block : int
        Dates in a block.
    """

    fit: list[datetime]
    trial: list[datetime]
    block: int

    def described(self) -> dict[str, Any]:
        """As JSON can hold it."""
        return {
            "dates": [date.isoformat() for date in self.fit],
            "trial_dates": [date.isoformat() for date in self.trial],
            "block_length_dates": self.block,
        }


def calibrate(known: argparse.Namespace) -> list[str]:
    """Fit as the options say, and write the file; returns the table of what came of it.

    Raises
    ------
    OptionError
        If an option cannot be understood.
    InputError
        If forecasts or truth cannot be read or do not fit, or there are too few dates.
    OutputError
        If the file cannot be written.
    """
    plan = plan_of_channels(known.channels, known.lead_times)
    if not known.output.parent.is_dir():
        raise OptionError(f"--output: expected a file in a folder that exists, got {known.output}")
    bootstrap = Bootstrap(known.bootstrap, known.block_length, known.confidence, known.seed)
    if len(known.forecast) == 1:
        return _fit_spread(known, plan, bootstrap)
    return _fit_noise(known, plan, bootstrap)


def _fit_spread(known: argparse.Namespace, plan: Plan, bootstrap: Bootstrap) -> list[str]:
    pattern = known.forecast[0]
    origin, forecasts = origin_of(pattern), open_forecasts(pattern, plan)
    truth = on_grid(open_truth(known.truth, plan.channels), forecasts.grid, "the truth", known.regrid)
    bands = bands_of(wavenumbers_of(known), PowerSpectrum(forecasts.grid).maximum, known.bound)
    whole = _verified("forecasts", forecasts.cases(), truth, plan, bootstrap)
    dates = _dates(whole.sums, whole.block)
    # Blocks of the halves are no longer than they have dates.
    block = min(whole.block, len(dates.trial))
    fit = fit_spread(whole.on(dates.fit, min(whole.block, len(dates.fit))), bands)
    _tell_cuts(fit, whole.sums)
    cases = _moved_cases(forecasts, dates.trial, fit, whole.sums)
    leads = replace(plan, lead_hours=whole.sums.lead_hours)
    after = Evaluation("after", verify(cases, truth, leads), bootstrap, block)
    rows = list(spread_scores(whole.on(after.sums.dates, block), after, fit, bands))
    sums = whole.sums
    factors = {channel.name: fit.factors[row].tolist() for row, channel in enumerate(sums.channels)}
    more = {"limits": list(LIMITS), "bound": bands.bound, "wavenumbers": list(bands.names)}
    _write(known, SPREAD, origin, sums, {**dates.described(), **more}, factors, rows)
    return list(spread_lines(rows, {channel.name: channel.label for channel in sums.channels}))


def _fit_noise(known: argparse.Namespace, plan: Plan, bootstrap: Bootstrap) -> list[str]:
    patterns = by_noise_factor(known.forecast)
    origin = common_origin({factor: origin_of(pattern) for factor, pattern in patterns.items()})
    forecasts = {factor: open_forecasts(pattern, plan) for factor, pattern in patterns.items()}
    grid = next(iter(forecasts.values())).grid
    truth = on_grid(open_truth(known.truth, plan.channels), grid, "the truth", known.regrid)
    bands = bands_of(wavenumbers_of(known), PowerSpectrum(grid).maximum, known.bound)
    evaluations = {
        factor: _verified(f"{factor:g}", one.cases(), truth, plan, bootstrap) for factor, one in forecasts.items()
    }
    first = _refuse_unlike(evaluations)
    dates = _dates(first.sums, first.block)
    fit = fit_noise({factor: one.on(dates.fit, 1) for factor, one in evaluations.items()}, bands)
    block = min(first.block, len(dates.trial))
    rows = list(noise_scores({factor: one.on(dates.trial, block) for factor, one in evaluations.items()}, fit))
    more = {"bound": bands.bound, "wavenumbers": list(bands.names), "noise_factors": sorted(patterns)}
    more["channels"] = [channel.name for channel in plan.channels]
    _write(known, NOISE, origin, first.sums, {**dates.described(), **more}, fit.factors.tolist(), rows)
    return list(noise_lines(rows))


def _verified(name: str, cases: Iterator[Case], truth: Truth, plan: Plan, bootstrap: Bootstrap) -> Evaluation:
    sums = verify(cases, truth, plan)
    for reason, count in sums.skipped.items():
        LOG.warning("%s: skipped %s: %d", name, reason, count)
    if sums.members < 2:
        raise InputError(f"{name}: expected an ensemble, whose spread can be fitted, got forecasts of one member")
    error = sums.terms["squared_error"]
    if np.isnan(error).all(axis=0).any():
        raise InputError(f"{name}: expected every channel at every lead time, got none of some: choose --lead-times")
    return Evaluation(name, sums, bootstrap)


def _refuse_unlike(evaluations: Mapping[float, Evaluation]) -> Evaluation:
    """The first of some forecasts, all of which must be of the same dates, lead times and members."""
    first, *others = evaluations.values()
    for other in others:
        for what in ("dates", "lead_hours", "members"):
            here, there = getattr(first.sums, what), getattr(other.sums, what)
            if here != there:
                raise InputError(
                    f"--forecast: expected the same {what.replace('_', ' ')} with every noise factor, got others with "
                    f"{other.name} than with {first.name}"
                )
    return first


def _dates(sums: Sums, block: int) -> Dates:
    fit, trial = split(sums.dates, block)
    return Dates(fit, trial, block)


def _tell_cuts(fit: Fit, sums: Sums) -> None:
    for row, channel in enumerate(sums.channels):
        for column, lead in enumerate(sums.lead_hours):
            why = fit.cut_by[row][column]
            if why:
                factor, wanted = fit.factors[row, column], fit.wanted[row, column]
                LOG.info("%s at +%d h: factor cut from %g to %g by %s", channel.label, lead, wanted, factor, why)


def _moved_cases(forecasts: Forecasts, dates: Sequence[datetime], fit: Fit, sums: Sums) -> Iterator[Case]:
    """The forecasts of some dates with their members moved."""
    wanted = set(dates)
    for case in forecasts.cases():
        if case.initial_time in wanted:
            yield _moved_case(case, fit, sums)


def _moved_case(case: Case, fit: Fit, sums: Sums) -> Case:
    column = {lead: index for index, lead in enumerate(sums.lead_hours)}

    def read(channel: Channel) -> FloatArray:
        row = sums.channels.index(channel)
        # Lead times that no date could be verified at have no factor, and are left as they are.
        factors = np.array([fit.factors[row, column[lead]] if lead in column else 1.0 for lead in case.lead_hours])
        return moved(case.read(channel), factors[:, None, None])

    return replace(case, read=read)


def _write(
    known: argparse.Namespace,
    kind: str,
    origin: Origin,
    sums: Sums,
    fit: Mapping[str, Any],
    factors: Any,
    rows: Sequence[Mapping[str, Any]],
) -> None:
    """Write the file, a line for every row of scores."""
    content = {
        "format": kind,
        "version": VERSION,
        "written": now(),
        "ai-models-mosaic": __version__,
        **origin.described(),
        "members": sums.members,
        "lead_hours": list(sums.lead_hours),
        "factors": factors,
        "sources": {"forecast": known.forecast, "truth": known.truth},
        "fit": fit,
        "intervals": {"confidence": known.confidence, "replicates": known.bootstrap, "seed": known.seed},
    }
    lines = [f"  {json.dumps(name)}: {json.dumps(value)}" for name, value in content.items()]
    listed = ",\n".join(f"    {json.dumps(row)}" for row in rows)
    text = "{\n" + ",\n".join([*lines, f'  "scores": [\n{listed}\n  ]']) + "\n}\n"
    write_whole(Path(known.output), [redacted(text).encode()])

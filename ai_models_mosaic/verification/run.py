"""A verification as its options say: readers, scores and report, wired together."""

from __future__ import annotations

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from ..channels import Channel
from ..engines.threads import cores
from ..errors import OptionError
from ..geometry.grid import LatLonGrid
from .accumulate import require_grid, verify
from .bootstrap import Bootstrap
from .cases import Forecasts, Regridded, Truth
from .climatology import Climatology, FittedClimatology
from .evaluation import Evaluation
from .grib_files import GribForecasts, GribTruth
from .options import plan_of
from .plan import Plan
from .report import Report
from .zarr_stores import ZarrForecasts, ZarrTruth, is_store

LOG = logging.getLogger(__name__)


def run(known: argparse.Namespace) -> list[Path]:
    """Verify as the options say; returns the files written.

    Raises
    ------
    OptionError
        If an option cannot be understood.
    InputError
        If forecasts, truth or climatology cannot be read or do not fit, or nothing could be verified.
    OutputError
        If the folder cannot be written to.
    """
    plan = plan_of(known)
    bootstrap = Bootstrap(known.bootstrap, known.block_length, known.confidence, known.seed)
    named = _named(known.forecast)
    if known.against not in ("", *named):
        raise OptionError(f"--against: expected the name of a forecast, {', '.join(named)}; got {known.against}")
    forecasts = {name: _forecasts(path, plan, known.with_control) for name, path in named.items()}
    grid = next(iter(forecasts.values())).grid
    for name, each in forecasts.items():
        require_grid(f"forecast {name}", each.grid, grid)
    truth = _on_grid(_truth(known.truth, plan.channels), grid, "the truth", known.regrid)
    climatology = _climatology(known.climatology, plan, grid, known.regrid)
    evaluations = []
    for name, each in forecasts.items():
        sums = verify(each.cases(), truth, plan, climatology)
        for reason, count in sums.skipped.items():
            LOG.warning("%s: skipped %s: %d", name, reason, count)
        evaluations.append(Evaluation(name, sums, bootstrap))
    sources = {"forecasts": named, "truth": known.truth, "climatology": known.climatology}
    pictures, processes = not known.no_pictures, known.jobs or cores()
    return Report(tuple(evaluations), sources, pictures, known.against, processes).write(known.output)


def _named(forecasts: Sequence[str]) -> dict[str, str]:
    """Paths by name; without a name, by the file's own."""
    found: dict[str, str] = {}
    for text in forecasts:
        name, equals, path = text.partition("=")
        if not equals:
            name, path = Path(text.rstrip("/")).stem, text
        if not name or not path or name in found:
            raise OptionError(f"--forecast: expected a name of its own and a path, NAME=PATH; got {text}")
        found[name] = path
    return found


def _forecasts(path: str, plan: Plan, with_control: bool) -> Forecasts:
    if is_store(path):
        return ZarrForecasts(path, plan.channels, plan.lead_hours)
    return GribForecasts(path, plan.channels, plan.lead_hours, with_control)


def _truth(paths: Sequence[str], channels: Sequence[Channel]) -> Truth:
    stores = [is_store(path) for path in paths]
    if all(stores):
        return ZarrTruth(paths, channels)
    if any(stores):
        raise OptionError(
            f"--truth: expected Zarr stores and NetCDF files, or GRIB files, got both: {', '.join(paths)}"
        )
    return GribTruth(paths, channels)


def _on_grid(truth: Truth, grid: LatLonGrid, what: str, regrid: bool) -> Truth:
    if regrid and not truth.grid.same_points(grid):
        LOG.info("Regridding %s from %s to %s", what, truth.grid, grid)
        return Regridded(truth, grid)
    require_grid(what, truth.grid, grid)
    return truth


def _climatology(paths: Sequence[str], plan: Plan, grid: LatLonGrid, regrid: bool) -> Climatology | None:
    if not paths:
        LOG.warning("No --climatology: no skill against it, no anomaly correlation, no events")
        return None
    if not all(is_store(path) for path in paths):
        raise OptionError(
            f"--climatology: expected Zarr stores (.zarr) or NetCDF files of a training period, got {', '.join(paths)}"
        )
    stores = ZarrTruth(paths, plan.channels)
    period = _on_grid(stores, grid, "the climatology", regrid)
    return FittedClimatology(period, stores.times, [event.probability for event in plan.events])

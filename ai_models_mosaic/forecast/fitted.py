"""Factors that were fitted on past dates, on the noise and on the spread: what they go together with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import OptionError

if TYPE_CHECKING:
    from .options import Options


def check_fitted(options: Options) -> None:
    """Refuse fitted factors together with what they make no sense with.

    Raises
    ------
    OptionError
        Says what.
    """
    if options.noise_factors is not None and (options.noise_factor != 1 or options.perturbations == "off"):
        off = options.perturbations == "off"
        other = "--perturbations off" if off else f"--noise-factor {options.noise_factor:g}"
        raise OptionError(f"--noise-factor-file: expected to be the only factor on the noise, got {other} with it")
    _refuse_other_members(options)
    _refuse_other_noise(options)
    size, run = options.ensemble_size, len(options.members)
    if options.output.calibration is not None and (size is None or size < 2 or run != size):
        raise OptionError(
            "--calibration: expected all members of an ensemble of at least 2 (--num-ensemble-members N, without "
            f"--member-number), since members are moved about their mean; got {run} of {size or 'an unknown number'}"
        )


def _refuse_other_members(options: Options) -> None:
    """Refuse fitted factors where members have not the lead times of the fit, or are not all at hand."""
    calibration, noise = options.output.calibration, options.noise_factors
    flag = "--calibration" if calibration is not None else "--noise-factor-file"
    if options.lagged is not None and (calibration or noise):
        raise OptionError(
            f"{flag}: expected members of one start, since factors are by lead time, got --lagged; leave one out"
        )
    other = "--crossed" if options.crossed else options.growth.flag
    if calibration is not None and other is not None:
        raise OptionError(
            "--calibration: expected an ensemble whose size is known and whose members differ by noise alone, since "
            f"they are moved about their mean, got {other}; leave one out"
        )


def _refuse_other_noise(options: Options) -> None:
    """Refuse a calibration of forecasts whose noise had other factors: their spread was another."""
    calibration = options.output.calibration
    then = None if calibration is None else calibration.content.get("noise")
    if not isinstance(then, dict):
        return
    fitted, factors = then.get("noise_factors"), options.noise_factors
    digest = fitted.get("sha256") if isinstance(fitted, dict) else None
    before = (then.get("noise_factor", 1.0), then.get("perturbations", "on"), digest)
    after = (options.noise_factor, options.perturbations, None if factors is None else factors.sha256)
    if before != after:
        words = "--noise-factor {}, --perturbations {}, --noise-factor-file with SHA-256 {}"
        raise OptionError(
            f"--calibration: expected the noise of the forecasts that it was fitted to, {words.format(*before)}; got "
            f"{words.format(*after)}"
        )


def refuse_other_fits(options: Options, *, variant: str | None = None, weights: str | None = None) -> None:
    """Refuse factors that were fitted for another variant, or for other weights.

    Parameters
    ----------
    options : Options
    variant : str or None
        What runs, if it is to be compared.
    weights : str or None
        SHA-256 of its weights, likewise.

    Raises
    ------
    OptionError
        Says which.
    """
    for fitted in (options.noise_factors, options.output.calibration):
        if fitted is not None:
            fitted.refuse_others(variant, weights)

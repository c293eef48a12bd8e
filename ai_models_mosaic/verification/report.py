"""Everything in a folder: tables, a summary, pictures."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from .. import __version__
from ..errors import InputError, OutputError
from ..files import parse_json, write_whole
from ..wording.redaction import redacted
from .comparison import common, comparison_rows
from .evaluation import Evaluation, scores_of
from .overview import overview
from .probability_tables import pit_rows, rank_rows, reliability_rows
from .scale_tables import scale_rows, spectrum_rows
from .tables import Row, score_rows

LOG = logging.getLogger(__name__)

TABLES: dict[str, Callable[[Evaluation], Iterator[Row]]] = {
    "scores.csv": score_rows,
    "spectra.csv": spectrum_rows,
    "scales.csv": scale_rows,
    "rank_histogram.csv": rank_rows,
    "pit.csv": pit_rows,
    "reliability.csv": reliability_rows,
}
"""Tables that are made of one forecast system at a time."""

SUMMARY = "summary.json"
OVERVIEW = "overview.txt"

SUFFIXES = (".csv", ".txt", ".png")
"""Of the files of a report, beside its summary."""

MEANINGFUL_WAVENUMBERS = (1, 15)
"""Wavenumbers over which the summary gives the range of spectral ratios."""


@dataclass(frozen=True)
class Report:
    """What is reported.

    Parameters
    ----------
    evaluations : tuple of Evaluation
        All forecast systems.
    sources : dict of str to str
        Where everything came from, for the summary.
    pictures : bool
        Whether to draw.
    against : str
        Name of the one that others are compared with; the first if empty.
    processes : int
        How many may draw at a time; more than one only where a script guards what it does by
        ``if __name__ == "__main__"``.
    """

    evaluations: tuple[Evaluation, ...]
    sources: dict[str, Any]
    pictures: bool = True
    against: str = ""
    processes: int = 1

    def write(self, folder: Path) -> list[Path]:
        """Write everything; returns the files, each of which appears only when it is complete.

        Files of an earlier report in the folder, which its summary lists, are removed: what is not made again would be
        taken for a part of this one. The summary comes last.

        Raises
        ------
        OutputError
            If the folder cannot be written to.
        InputError
            If pictures are wanted and matplotlib is not installed.
        """
        draw = _drawing() if self.pictures else None
        written = []
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_earlier(folder)
            for name, rows in self._tables().items():
                if text := _csv(rows):
                    written.append(_written(folder / name, text.encode()))
            lines = chain.from_iterable(map(overview, self.evaluations))
            written.append(_written(folder / OVERVIEW, "".join(f"{line}\n" for line in lines).encode()))
            pictures = draw(self.evaluations, self.reference.name, self.processes) if draw else ()
            for name, picture in pictures:
                written.append(_written(folder / name, picture))
            about = {**self.summary(), "files": sorted(path.name for path in written)}
            summary = json.dumps(about, indent=2, ensure_ascii=False) + "\n"
            written.append(_written(folder / SUMMARY, redacted(summary).encode()))
        except OSError as error:
            raise OutputError(f"cannot write to {folder}: {error}") from error
        LOG.info("%d files in %s", len(written), folder)
        return written

    @property
    def reference(self) -> Evaluation:
        """The one that others are compared with."""
        return next((each for each in self.evaluations if each.name == self.against), self.evaluations[0])

    def _tables(self) -> dict[str, Iterator[Row]]:
        tables: dict[str, Iterator[Row]] = {
            name: chain.from_iterable(map(rows, self.evaluations)) for name, rows in TABLES.items()
        }
        others = [each for each in self.evaluations if each is not self.reference]
        for other in others:
            if not all(common(other, self.reference)):
                told = "%s and %s have no initial date, or no lead time, in common: they are not compared"
                LOG.warning(told, other.name, self.reference.name)
        tables["comparison.csv"] = chain.from_iterable(comparison_rows(other, self.reference) for other in others)
        return tables

    def summary(self) -> dict[str, Any]:
        """What was verified and how, and the numbers that a person looks for first."""
        bootstrap = self.evaluations[0].bootstrap
        return {
            "version": __version__,
            "sources": self.sources,
            "against": self.reference.name,
            "intervals": {
                "method": "circular moving-block bootstrap over initial dates, percentiles",
                "confidence": bootstrap.confidence,
                "replicates": bootstrap.replicates,
                "seed": bootstrap.seed,
            },
            "forecasts": {evaluation.name: _about(evaluation) for evaluation in self.evaluations},
        }


def _about(evaluation: Evaluation) -> dict[str, Any]:
    sums = evaluation.sums
    return {
        "dates": len(sums.dates),
        "first_date": f"{sums.dates[0]:%Y-%m-%dT%H:%M}",
        "last_date": f"{sums.dates[-1]:%Y-%m-%dT%H:%M}",
        "members": sums.members,
        "lead_hours": list(sums.lead_hours),
        "block_length_dates": evaluation.block,
        "skipped": sums.skipped,
        "scores": _headlines(evaluation),
        "spectral_ratio": _spectral_ranges(evaluation),
    }


def _headlines(evaluation: Evaluation) -> dict[str, dict[str, dict[str, float | None]]]:
    """Scores by name, channel and lead time."""
    sums = evaluation.sums
    found: dict[str, dict[str, dict[str, float | None]]] = {}
    for score in scores_of(sums):
        value = evaluation.interval_of(score)[0]
        found[score.name] = {
            channel.name: {f"{lead}": _number(value[column, index]) for index, lead in enumerate(sums.lead_hours)}
            for column, channel in enumerate(sums.channels)
        }
    return found


def _spectral_ranges(evaluation: Evaluation) -> dict[str, dict[str, dict[str, list[float | None]]]]:
    """Least and largest ratio of power to the truth's over the meaningful wavenumbers, by kind, channel and lead."""
    sums = evaluation.sums
    if not sums.spectra:
        return {}
    first, last = MEANINGFUL_WAVENUMBERS
    mean = evaluation.mean(sums.spectra_power)[0, ..., first : last + 1]
    found = {}
    for kind, name in enumerate(("members", "mean")):
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = mean[:, :, kind] / mean[:, :, 2]
        found[f"{name}_over_truth_wavenumbers_{first}_to_{last}"] = {
            channel.name: {
                f"{lead}": [_number(ratio[row, index].min()), _number(ratio[row, index].max())]
                for index, lead in enumerate(sums.lead_hours)
            }
            for row, channel in enumerate(sums.spectra)
        }
    return found


def _number(value: float) -> float | None:
    """A number for JSON, which has no NaN."""
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _csv(rows: Iterator[Row]) -> str:
    """Rows as CSV, numbers to nine digits, unknown ones empty; empty without rows."""
    first = next(rows, None)
    if first is None:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(first), lineterminator="\n")
    writer.writeheader()
    for row in chain([first], rows):
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, float):
        return value
    return f"{value:.9g}" if math.isfinite(value) else ""


def _remove_earlier(folder: Path) -> None:
    """Remove a report's files, and no others; its summary first, without which nothing is one."""
    try:
        listed = parse_json((folder / SUMMARY).read_bytes())["files"]
        names = [name for name in listed if Path(name).name == name and Path(name).suffix in SUFFIXES]
    except (OSError, ValueError, TypeError, KeyError):
        return
    for name in (SUMMARY, *names):
        (folder / name).unlink(missing_ok=True)


def _written(path: Path, content: bytes) -> Path:
    write_whole(path, [content])
    return path


def _drawing() -> Callable[[Sequence[Evaluation], str, int], Iterator[tuple[str, bytes]]]:
    try:
        from .drawing import draw
    except ImportError as error:
        raise InputError(
            f"pictures need matplotlib ({error}): pip install 'ai-models-mosaic[verify]', or --no-pictures"
        ) from error
    return draw

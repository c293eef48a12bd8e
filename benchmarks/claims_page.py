"""The page of ``make claims``: the paper's claims left, ours right, and where ours falls short."""

from __future__ import annotations

import html
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from claims_table import CALIBRATED, FIELDS, POWER, SPREAD, WAVENUMBERS, Cell, Results

from ai_models_mosaic.report.atlas import data_url

PICTURES = ("spectra_z500*", "spectra_t850*", "spread*", "rank_histograms_mini*", "scores*")
"""Of the verification, that are shown."""

MORE_STYLE = """
table { border-collapse: collapse; margin: .6rem 0; }
td, th { border: 1px solid var(--line); padding: .25rem .5rem; vertical-align: top; text-align: left; }
td.short { background: #fbe9d9; }
img { max-width: 100%; }
"""

READ_OFF = "read off its figure"


@dataclass(frozen=True)
class Claim:
    """A claim of the paper, what came of it here, and the numbers of that.

    Parameters
    ----------
    name : str
        In a few words, for headings.
    paper, here : str
        What is said there, and here.
    aim : str
        When a cell counts as reached.
    cells : sequence of Cell
    """

    name: str
    paper: str
    here: str
    aim: str
    cells: Sequence[Cell]

    @property
    def short(self) -> list[Cell]:
        """What is not as aimed at."""
        return [cell for cell in self.cells if not cell.reached]


def claims(results: Results) -> list[Claim]:
    """The claims that numbers are known of."""
    waves = f"{WAVENUMBERS[0]} to {WAVENUMBERS[-1]}"
    last = ", ".join(f"{label} {days:g}" for label, days in results.last_days_of_skill().items())
    final = results.all_hours[-1]
    errors = ", ".join(
        f"{label} {factor * results.score('rmse_mean', channel, final).value:.3g} {units} (climatology "
        f"{factor * results.score('rmse_climatology', channel, final).value:.3g})"
        for channel, (label, factor, units) in FIELDS.items()
        if label in ("z500", "2t")
    )
    found = [
        Claim(
            "Spectra of members",
            f"Members have the power of ERA5 at all scales: 0.98 to 1.0 of it, down to 333 km ({READ_OFF}).",
            f"Power of single members over the truth's, of the wavenumbers from {waves} with the least and the most.",
            f"{POWER[0]} to {POWER[1]}",
            list(results.power()),
        ),
        Claim(
            "Spread and error",
            f"The ensemble is calibrated: spread over error of about 0.83 at 3 to 4 days, 0.95 at 10 ({READ_OFF}).",
            "Spread over error of the mean; 1 if the truth is like a further member.",
            f"{SPREAD[0]} to {SPREAD[1]}",
            list(results.spread()),
        ),
        Claim(
            "Ranks",
            "The same: the truth ranks anywhere among the members alike.",
            "How often the truth has a rank, over that of a flat histogram: the rarest and the most frequent rank.",
            "no rank whose interval excludes 1",
            list(results.ranks()),
        ),
        Claim(
            "Skill",
            "Skill to ten days: RMSE of the mean at day 10 of 624 m² s⁻² in z500 and 2.05 K in 2t (ERA5, 2020, "
            "1.5°), of another atmosphere than this one.",
            f"CRPS, and how much lower than the climatology's. Lower than it to day: {last}. RMSE of the mean at day "
            f"{final / 24:g}: {errors}.",
            "lower than the climatology's",
            list(results.skill()),
        ),
    ]
    if results.has_calibration:
        found.insert(
            2,
            Claim(
                "Spread and error, calibrated",
                "The same.",
                "Spread over error before and after members are moved about their mean (--calibration), of the half of "
                "the dates that the factors were not fitted to.",
                f"{CALIBRATED[0]} to {CALIBRATED[1]}",
                list(results.calibrated_spread()),
            ),
        )
    if results.has_twin:
        found += [
            Claim(
                "A deterministic twin blurs",
                "A network that is trained on the squared error loses power with lead time.",
                f"Power of the twin over the truth's, of the wavenumbers from {waves} with the least and the most.",
                f"less than {POWER[0]} somewhere",
                list(results.blurs()),
            ),
            Claim(
                "Members against the twin",
                "Members score better than a deterministic forecast.",
                "CRPS of the members against the absolute error of the twin.",
                "15 % lower",
                list(results.against_twin()),
            ),
        ]
    return found


def page(results: Results, facts: Mapping[str, str]) -> str:
    """The page, with everything in it.

    Parameters
    ----------
    results : Results
        Of the verification.
    facts : mapping of str to str
        What was run.
    """
    said = claims(results)
    style = files("ai_models_mosaic.report").joinpath("data/page.css").read_text(encoding="utf-8") + MORE_STYLE
    rows = "".join(
        f"<tr><td>{html.escape(claim.paper)}<td>{html.escape(claim.here)}<td>{html.escape(verdict(claim))}"
        for claim in said
    )
    listed = "".join(f"<tr><th>{html.escape(name)}<td>{html.escape(text)}" for name, text in facts.items())
    tables = "".join(f"<h2>{html.escape(claim.name)}</h2>{table(claim, results.lead_hours)}" for claim in said)
    places = sorted({path for pattern in PICTURES for path in results.folder.glob(f"{pattern}.png")})
    pictures = "".join(
        f'<h3>{path.stem}</h3><img alt="{path.stem}" src="{data_url(path.read_bytes())}">' for path in places
    )
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>The paper's claims in miniature</title><style>{style}</style></head>
<body>
<header><h1>The paper's claims in miniature</h1>
<p>Zhdanov et al., arXiv:2604.16429, of ERA5 at 1.5°; here of a small network in a simulated world: the same claims, not
the same numbers. In brackets intervals of 95 % over initial dates.</p></header>
<table><tr><th>The paper<th>Here<th>Within the aim</tr>{rows}</table>
<h2>Where it falls short</h2>{shortcomings(said)}
{tables}
<h2>Pictures</h2>{pictures}
<h2>What was run</h2><table>{listed}</table>
</body></html>
"""


def verdict(claim: Claim) -> str:
    """How many numbers are as aimed at."""
    return f"{len(claim.cells) - len(claim.short)} of {len(claim.cells)} (aim: {claim.aim})"


def shortcomings(said: Sequence[Claim]) -> str:
    """Of every claim, the fields and days that are not as aimed at; their numbers are marked in its table."""
    lines = [
        f"<li><b>{html.escape(claim.name)}</b>: {'; '.join(days_by_field(claim.short))}"
        for claim in said
        if claim.short
    ]
    return f"<ul>{''.join(lines)}</ul>" if lines else "<p>Nowhere, by these numbers.</p>"


def days_by_field(cells: Sequence[Cell]) -> Iterator[str]:
    """Such as ``z500 at days 1, 3``."""
    for channel, (label, _, _) in FIELDS.items():
        days = [f"{cell.lead_hours / 24:g}" for cell in cells if cell.field == channel]
        if days:
            yield f"{label} at day{'s' * (len(days) > 1)} {', '.join(days)}"


def table(claim: Claim, lead_hours: Sequence[int]) -> str:
    """A claim's numbers, a row for each field; what is not as aimed at is marked."""
    head = "".join(f"<th>day {hours / 24:g}" for hours in lead_hours)
    rows = []
    for channel, (label, _, _) in FIELDS.items():
        cells = [cell for cell in claim.cells if cell.field == channel]
        rows.append(
            f"<tr><th>{label}"
            + "".join(f"<td{'' if cell.reached else ' class=short'}>{html.escape(cell.text)}" for cell in cells)
        )
    said = f"<p>{html.escape(claim.here)} Aim: {html.escape(claim.aim)}.</p>"
    return f"{said}<table><tr><th>{head}</tr>{''.join(rows)}</table>"

"""``ai-models-mosaic representatives``."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from ..errors import InputError, OptionError
from ..forecast.console import say
from ..report.options import CLUSTERS, add_ensemble
from . import Commands, add_command
from .report import require_drawing


def add(commands: Commands) -> None:
    """Add the command to the subparsers."""
    chosen = add_command(commands, "representatives", "name few members that stand for an ensemble, with weights")
    add_ensemble(chosen)
    chosen.add_argument("--param", required=True, metavar="FIELD", help="by which they are chosen, such as z500")
    chosen.add_argument("--lead-time", type=float, required=True, metavar="HOURS", help="at which they are chosen")
    chosen.add_argument("--area", metavar="N/W/S/E", help="the region, degrees, such as 72/-25/34/45 (all of the grid)")
    chosen.add_argument("--clusters", type=int, default=CLUSTERS, metavar="K", help="how many scenarios (%(default)s)")
    chosen.add_argument("--json", action="store_true", help="print JSON in place of a table")
    chosen.add_argument(
        "--messages", type=Path, metavar="FOLDER", help="copy each one's messages to a file there; of GRIB only"
    )
    chosen.set_defaults(command=run)


def run(known: argparse.Namespace) -> None:
    """Choose the members, print them, and copy their messages.

    Raises
    ------
    OptionError
        If there is no folder for messages.
    InputError
        If messages are to be copied of what is not GRIB.
    """
    require_drawing()
    from ..inputs.netcdf import netcdf_files
    from ..inputs.zarr_store.opening import is_zarr
    from ..report.ensemble import open_ensemble
    from ..report.options import area_of, date_of
    from ..report.scenarios import representatives, write_messages

    if known.messages is not None:
        if not known.messages.is_dir():
            raise OptionError(f"--messages: expected a folder that exists, got {known.messages}")
        if any(is_zarr(path) or netcdf_files(path) for path in known.ensemble):
            raise InputError(f"--messages: expected an ensemble in GRIB, got {', '.join(known.ensemble)}")
    area = None if known.area is None else area_of(known.area.replace("/", ","))
    dataset = open_ensemble(known.ensemble, date_of(known.date))
    chosen = representatives(dataset, known.param, known.lead_time, area, known.clusters)
    say(json.dumps(chosen.as_json(), indent=4) if known.json else str(chosen))
    if known.messages is not None:
        time = dataset["time"].values.astype("datetime64[s]").item()
        for path in write_messages(known.ensemble, chosen, known.messages, time):
            if not known.json:
                say(str(path))

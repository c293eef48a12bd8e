"""Simulate an atmosphere with jcm: run as a script by the Python of an environment of its own.

JAX needs a newer numpy than the ai-models runner accepts, so this file imports nothing of the
package and the package nothing of it; `simulation.py` starts it and reads its files. It writes

* ``static.npz``: ``latitude`` (north to south), ``longitude``, degrees; ``orography``, m; ``land_sea_mask``;
* ``block-00000.npz``, …: ``time`` (datetime64[s]) and the fields of at most ``--block-days`` days,
  ``(time, level, lat, lon)`` or ``(time, lat, lon)``, float32, SI units;
* ``state``: where the simulation stands, so that a killed run goes on from its last block.

The simulator is jcm (SPEEDY's physics on a spectral dynamical core, eight layers). Its default
diffusion lets errors grow half as fast as SPEEDY's own, which is used here.
"""

from __future__ import annotations

import argparse
import datetime
import math
import os
import resource
import threading
from importlib import resources
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jcm.checkpoint import load_checkpoint, save_checkpoint
from jcm.diffusion import DiffusionFilter
from jcm.dycore.dinosaur import DinosaurDycore
from jcm.forcing import ForcingData
from jcm.model import Model
from jcm.physics.speedy.speedy_coords import get_speedy_coords
from jcm.terrain import TerrainData

LEVELS_HPA = (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000)
STEP_MINUTES = 30
LAYERS = 8
DRY_AIR_GAS_CONSTANT = 287.05
GRAVITY = 9.80665
LAPSE_RATE = 0.0065
REFERENCE_PRESSURE = 1e5
SPEEDY_DIFFUSION_SECONDS = 2.4 * 3600.0


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--seed", type=int, required=True, help="of the perturbation of the state of rest")
    parser.add_argument("--start", required=True, help="first time written, such as 2001-01-01")
    parser.add_argument("--days", type=int, required=True)
    parser.add_argument("--truncation", type=int, default=31)
    parser.add_argument("--spin-up-days", type=int, default=180)
    parser.add_argument("--block-days", type=int, default=30)
    parser.add_argument("--interval-hours", type=int, default=6)
    return parser.parse_args()


def make_model(truncation: int, start: datetime.datetime) -> tuple[Model, ForcingData, TerrainData]:
    """The model, its boundary conditions of every day of the year, and its orography."""
    packaged = resources.files("jcm.data.bc") / "t30/clim"
    coordinates = get_speedy_coords(layers=LAYERS, spectral_truncation=truncation)
    terrain = TerrainData.from_coords(coordinates, terrain_file=str(packaged / "terrain.nc"), interpolate=True)
    forcing = ForcingData.from_file(str(packaged / "forcing.nc"), coords=coordinates, align_mode="wrap_year")
    names = ("div", "vor_q", "temp")
    diffusion = DiffusionFilter(
        **{f"{name}_timescale": SPEEDY_DIFFUSION_SECONDS for name in names}, **{f"{name}_order": 4 for name in names}
    )
    core = DinosaurDycore(coords=coordinates, terrain=terrain, dt_seconds=STEP_MINUTES * 60, diffusion=diffusion)
    return Model(dycore=core, start_time=start.isoformat(timespec="seconds")), forcing, terrain


def on_pressure_levels(
    sigma: jax.Array,
    u: jax.Array,
    v: jax.Array,
    temperature: jax.Array,
    humidity: jax.Array,
    geopotential: jax.Array,
    surface_pressure: jax.Array,
    omega: jax.Array,
) -> dict[str, jax.Array]:
    """Fields ``(layer, lon, lat)``, layers from the top, on `LEVELS_HPA`, and the mean sea level pressure.

    Linear in the logarithm of pressure, geopotential by the hypsometric equation within a layer.
    Below the lowest layer the lapse rate is constant and the rest is that of the layer.
    """
    pressure = sigma[:, None, None] * surface_pressure
    log_pressure = jnp.log(pressure)
    lowest_pressure, lowest_temperature, lowest_geopotential = pressure[-1], temperature[-1], geopotential[-1]

    def at_level(level):
        log_level = jnp.log(level)
        below = jnp.clip(jnp.sum(pressure < level, axis=0), 1, LAYERS - 1)

        def take(field, index):
            return jnp.take_along_axis(field, index[None], axis=0)[0]

        upper_log, lower_log = take(log_pressure, below - 1), take(log_pressure, below)
        weight = jnp.clip((log_level - upper_log) / (lower_log - upper_log), 0, 1)

        def interpolate(field):
            return (1 - weight) * take(field, below - 1) + weight * take(field, below)

        inside = interpolate(temperature)
        upper, lower = take(temperature, below - 1), take(temperature, below)
        from_lower = take(geopotential, below) + DRY_AIR_GAS_CONSTANT * 0.5 * (lower + inside) * (lower_log - log_level)
        from_upper = take(geopotential, below - 1) - DRY_AIR_GAS_CONSTANT * 0.5 * (upper + inside) * (
            log_level - upper_log
        )
        exponent = DRY_AIR_GAS_CONSTANT * LAPSE_RATE / GRAVITY
        under_temperature = lowest_temperature * jnp.exp(exponent * jnp.log(level / lowest_pressure))
        under_geopotential = lowest_geopotential - GRAVITY / LAPSE_RATE * (under_temperature - lowest_temperature)
        underground = level > lowest_pressure
        return {
            "z": jnp.where(underground, under_geopotential, weight * from_lower + (1 - weight) * from_upper),
            "q": jnp.maximum(interpolate(humidity), 0),
            "t": jnp.where(underground, under_temperature, inside),
            "u": interpolate(u),
            "v": interpolate(v),
            "w": interpolate(omega),
        }

    fields = jax.vmap(at_level)(jnp.asarray(LEVELS_HPA) * 100.0)
    # From the lowest layer, not from the orography: the latter is not truncated alike and gave nonsense.
    mean_temperature = lowest_temperature + 0.5 * LAPSE_RATE * lowest_geopotential / GRAVITY
    msl = lowest_pressure * jnp.exp(lowest_geopotential / (DRY_AIR_GAS_CONSTANT * mean_temperature))
    return fields | {"msl": msl}


def make_diagnosis(model: Model):
    """A compiled function from what the model saved to fields ``(time, level, lat, lon)``, north first."""
    sigma = jnp.asarray(model.coords.vertical.centers)

    def one(state):
        omega = model.dycore._compute_omega(model.dycore.initial_state(state))
        return on_pressure_levels(
            sigma,
            state.u_wind,
            state.v_wind,
            state.temperature,
            state.specific_humidity,
            state.geopotential,
            state.normalized_surface_pressure * REFERENCE_PRESSURE,
            omega,
        )

    @jax.jit
    def diagnose(dynamics, surface):
        fields = jax.lax.map(one, dynamics) | surface
        return {name: jnp.swapaxes(field, -1, -2)[..., ::-1, :] for name, field in fields.items()}

    return diagnose


def near_surface(predictions: Any) -> dict[str, jax.Array]:
    """2 m temperature and 10 m wind from the surface fluxes."""
    physics = predictions.physics
    fluxes = physics["surface_flux"] if "surface_flux" in physics else physics["_surface_flux"]
    return {"2t": fluxes.t0, "10u": fluxes.u0, "10v": fluxes.v0}


def write(path: Path, **arrays: np.ndarray) -> None:
    """A file that is either whole or not there."""
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez(file, **arrays)
    partial.replace(path)


def end_with_parent() -> None:
    """End this process when standard input closes, as it does when who started it has gone, however it went.

    Left alone it would go on, and the same command, given again, would start another in the same folder.
    """

    def watch() -> None:
        # Not by sys.stdin, whose lock, held by this thread, would be fatal to the interpreter's end.
        os.read(0, 1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def main() -> None:
    """Simulate block by block."""
    options = arguments()
    end_with_parent()
    options.output.mkdir(parents=True, exist_ok=True)
    interval = datetime.timedelta(hours=options.interval_hours)
    # The model saves at the end of an interval, so it begins one before the first time that is wanted.
    first = datetime.datetime.fromisoformat(options.start)
    model, forcing, terrain = make_model(
        options.truncation, first - interval - datetime.timedelta(days=options.spin_up_days)
    )
    latitude = np.unique(np.degrees(np.asarray(model.coords.horizontal.latitudes)).round(9))[::-1]
    write(
        options.output / "static.npz",
        latitude=latitude,
        longitude=np.degrees(np.asarray(model.coords.horizontal.longitudes)),
        orography=np.asarray(terrain.orog).T[::-1],
        land_sea_mask=np.asarray(terrain.fmask).T[::-1],
    )
    model.bootstrap_state(model.initial_state(random_seed=options.seed))
    where = options.output / "state"
    if where.exists():
        done = load_checkpoint(model, where) - options.spin_up_days
    else:
        jax.block_until_ready(
            model.resume(forcing=forcing, total_time=options.spin_up_days, save_interval=options.spin_up_days).dynamics
        )
        save_checkpoint(model, where)
        done = 0.0
    diagnose = make_diagnosis(model)
    block = round(done / options.block_days)
    for index in range(block, math.ceil(options.days / options.block_days)):
        days = min(options.block_days, options.days - index * options.block_days)
        predictions = model.resume(forcing=forcing, total_time=days, save_interval=options.interval_hours / 24)
        fields = {
            name: np.asarray(field) for name, field in diagnose(predictions.dynamics, near_surface(predictions)).items()
        }
        wrong = [name for name, field in fields.items() if not np.isfinite(field).all()]
        if wrong:
            raise SystemExit(f"block {index}: not finite: {', '.join(wrong)}; try another --seed")
        times = np.asarray(predictions.times.to_datetime64()).astype("datetime64[s]")
        write(options.output / f"block-{index:05d}.npz", time=times, **fields)
        save_checkpoint(model, where)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
        print(f"block {index} until {times[-1]}, peak memory {memory} MB", flush=True)


if __name__ == "__main__":
    main()

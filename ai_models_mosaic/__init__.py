"""Mosaic, the probabilistic global weather model: ensembles from a program, a command, or ECMWF's ai-models runner.

Importing this package, its plugin or its command never imports torch: listing fields, requests
or assets has to answer at once, also on a machine without a GPU.

>>> import ai_models_mosaic as mosaic
>>> model = mosaic.load_model("mini")
>>> start = mosaic.open_input("examples/mini-input.grib", model)
>>> forecast = model.forecast(start, members=[2], lead_time_hours=24)
>>> [step.field("z500").shape for step in forecast]
[(1, 31, 60), (1, 31, 60)]
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Forecast, Model, load_model, open_input
    from .state import ForecastStep
    from .verification.datasets import scores

__version__ = "0.1.0"

__all__ = ["Forecast", "ForecastStep", "Model", "__version__", "load_model", "open_input", "scores"]

_ELSEWHERE = {"scores": ".verification.datasets"}
"""Modules of what is not in `api`."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_ELSEWHERE.get(name, ".api"), __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)

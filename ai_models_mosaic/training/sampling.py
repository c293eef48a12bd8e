"""Which sample comes when, and with which noise: functions of the seed and a counter alone.

Nothing here has a state, so that a run that was killed goes on as if nothing had happened and
every process of many knows its share.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import numpy as np

from ..arrays import Float32Array, IntArray
from ..forecast.rollout import member_noise
from .archive import Sample


def sample_at(samples: Sequence[Sample], seed: int, position: int) -> Sample:
    """The sample of a position in the run: every epoch is another permutation.

    Parameters
    ----------
    samples : sequence of Sample
        All that there are.
    seed : int
        Of the run.
    position : int
        Samples drawn before this one.
    """
    epoch, index = divmod(position, len(samples))
    return samples[int(_permutation(len(samples), seed, epoch)[index])]


def _permutation(count: int, seed: int, epoch: int) -> IntArray:
    """Argsort of Philox words, which NumPy keeps stable between its releases, unlike its shuffles."""
    words = np.random.Philox(key=np.array([seed, epoch], dtype=np.uint64)).random_raw(count)
    return np.argsort(words, kind="stable")


def free_steps_at(seed: int, update: int, most: int) -> int:
    """Steps ahead of the scored ones in an update, evenly spread over 0 … `most`.

    Parameters
    ----------
    seed : int
        Of the run.
    update : int
        From 0.
    most : int
        `Phase.free_steps`.
    """
    key = np.array([seed, ~np.uint64(update)], dtype=np.uint64)  # keys that no epoch has
    return int(np.random.Philox(key=key).random_raw()) % (most + 1)


def training_noise(seed: int, position: int, time: datetime, members: int, step: int, width: int) -> Float32Array:
    """ε of every member of a sample in one step of its roll-out, ``(member, width)``.

    The scheme of forecasts (`rollout.member_noise`), with the sample's position added to the seed: a
    time that comes again in a later epoch meets other noise.
    """
    return np.stack([member_noise(seed + position, time, member, step, width) for member in range(1, members + 1)])

"""The CRPS at points and the energy score, of a library: what means of terms, which are all that is kept, are compared with."""

import numpy as np
import scoringrules


def fair_crps(forecast, truth):
    """Fair CRPS of an ensemble (member, …) of several members; (…)."""
    return scoringrules.crps_ensemble(truth, forecast, m_axis=0, estimator="fair")


def plain_crps(forecast, truth):
    """CRPS of the empirical distribution of an ensemble (member, …); (…)."""
    return scoringrules.crps_ensemble(truth, forecast, m_axis=0, estimator="nrg")


def fair_energy_score(forecast, truth, weights):
    """Fair energy score of fields, (member, date, …) and (date, …), with areas that sum to 1 over the rest; mean of dates."""
    rooted = np.sqrt(weights).ravel()
    flat = forecast.reshape(*forecast.shape[:2], -1) * rooted, truth.reshape(len(truth), -1) * rooted
    return float(scoringrules.es_ensemble(flat[1], flat[0], m_axis=0, v_axis=-1, estimator="fair").mean())

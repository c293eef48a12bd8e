"""The CRPS at points, of a library: what means of terms, which are all that is kept, are compared with."""

import scoringrules


def fair_crps(forecast, truth):
    """Fair CRPS of an ensemble (member, …) of several members; (…)."""
    return scoringrules.crps_ensemble(truth, forecast, m_axis=0, estimator="fair")


def plain_crps(forecast, truth):
    """CRPS of the empirical distribution of an ensemble (member, …); (…)."""
    return scoringrules.crps_ensemble(truth, forecast, m_axis=0, estimator="nrg")

import numpy as np
import pytest
import scoringrules
import torch
from worlds import GRID

from ai_models_mosaic.channels import CHANNELS
from ai_models_mosaic.geometry.harmonics import synthesis
from ai_models_mosaic.training.losses import GridLoss, SpectralLoss, channel_weights, ensemble_crps, squared_error

ONES = np.ones(len(CHANNELS))


def drawn(members, *shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(members, *shape, generator=generator), torch.randn(*shape, generator=generator)


@pytest.mark.parametrize("members", [2, 3, 8])
@pytest.mark.parametrize(("fairness", "estimator"), [(1.0, "fair"), (0.0, "nrg")])
def test_the_fair_and_the_plain_score_are_those_of_a_known_library(members, fairness, estimator):
    forecast, truth = drawn(members, 50)
    known = scoringrules.crps_ensemble(truth.numpy(), forecast.numpy().T, estimator=estimator)
    np.testing.assert_allclose(ensemble_crps(forecast, truth, fairness).numpy(), known, rtol=1e-5, atol=1e-6)


def test_the_almost_fair_score_lies_between_them_in_proportion():
    forecast, truth = drawn(4, 20)
    fair, plain = ensemble_crps(forecast, truth, 1.0), ensemble_crps(forecast, truth, 0.0)
    torch.testing.assert_close(ensemble_crps(forecast, truth, 0.95), 0.95 * fair + 0.05 * plain)


def test_one_member_has_its_absolute_error():
    forecast, truth = drawn(1, 9)
    torch.testing.assert_close(ensemble_crps(forecast, truth), (forecast[0] - truth).abs())


def test_two_members_in_closed_form():
    forecast, truth = torch.tensor([[1.0], [4.0]]), torch.tensor([2.0])
    assert ensemble_crps(forecast, truth).item() == pytest.approx((1 + 2) / 2 - 3 / 2)


def test_the_expected_fair_score_of_a_perfect_forecast_is_that_of_the_normal_distribution():
    forecast, truth = drawn(2, 400_000)
    # E CRPS(N(0, 1), y) with y ~ N(0, 1) is 1/√π, whatever the number of members.
    assert ensemble_crps(forecast, truth).mean().item() == pytest.approx(1 / np.sqrt(np.pi), abs=4e-3)


@pytest.mark.parametrize("wrong", [0.5, 2.0])
def test_another_spread_than_the_truths_scores_worse(wrong):
    forecast, truth = drawn(2, 100_000)
    assert ensemble_crps(wrong * forecast, truth).mean() > ensemble_crps(forecast, truth).mean() + 0.01


def test_half_precision_loses_nothing_to_large_offsets():
    """Members that differ little at a large value: the score is a sum of small differences, taken in float32."""
    forecast, truth = drawn(2, 64)
    near = (100 + forecast).to(torch.bfloat16), (100 + truth).to(torch.bfloat16)
    expected = ensemble_crps(near[0].double().float(), near[1].double().float())
    assert ensemble_crps(*near).dtype == torch.float32
    torch.testing.assert_close(ensemble_crps(*near), expected)


def test_gradients_stay_finite_where_members_and_truth_coincide():
    forecast = torch.zeros(2, 5, requires_grad=True)
    ensemble_crps(forecast, torch.zeros(5)).sum().backward()
    assert torch.isfinite(forecast.grad).all()


def test_the_gradient_is_that_of_finite_differences():
    forecast, truth = (values.double() for values in drawn(3, 4))

    def score(members):
        error = (members - truth).abs().mean(dim=0)
        pairs = (members[:, None] - members[None]).abs().sum(dim=(0, 1)) / (3 * 2)
        return (error - pairs / 2).sum()

    forecast.requires_grad_(True)
    (expected,) = torch.autograd.grad(score(forecast), forecast)
    single = forecast.detach().float().requires_grad_(True)
    (found,) = torch.autograd.grad(ensemble_crps(single, truth.float()).sum(), single)
    torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-6)


def test_levels_weigh_by_pressure_and_the_rest_as_documented():
    weights = dict(zip((channel.label for channel in CHANNELS), channel_weights(), strict=True))
    assert weights["z500"] / weights["z100"] == pytest.approx(5)
    assert weights["t850"] == weights["q850"]
    assert weights["2t"] / weights["10u"] == pytest.approx(10)
    assert weights["2t"] == pytest.approx(
        sum(weights[f"z{level}"] for level in (50, 100, 150, 200, 250, 300, 400, 500, 600, 700, 850, 925, 1000))
    )
    assert np.mean(list(weights.values())) == pytest.approx(1)


def test_a_uniform_error_scores_its_size():
    loss = GridLoss(GRID, 3 * ONES)
    truth = torch.zeros(2, *GRID.shape, len(CHANNELS))
    members = torch.full((1, 2, *GRID.shape, len(CHANNELS)), 0.5)
    assert loss(members, truth, "crps", 1.0).item() == pytest.approx(1.5)
    assert loss(members, truth, "mse", 1.0).item() == pytest.approx(2.25)


def test_an_error_counts_by_its_area():
    """A row of error weighs what its band has of the sphere."""
    loss = GridLoss(GRID, ONES)
    members = torch.zeros(1, 1, *GRID.shape, len(CHANNELS))
    members[:, :, :, 0] = 1.0
    share = (1 - np.cos(np.radians(15))) / 2
    assert loss(members, torch.zeros(1, *GRID.shape, len(CHANNELS)), "crps", 1.0).item() == pytest.approx(
        share, rel=1e-5
    )


def test_each_degree_weighs_alike_whatever_its_power():
    deviation = np.array([1.0, 0.5, 0.1, 0.02])[:, None] * ONES
    loss = SpectralLoss(GRID, deviation)
    scores = []
    for degree, first in enumerate((0, 1, 4, 9)):
        coefficients = np.zeros(16)
        coefficients[first : first + 2 * degree + 1] = deviation[degree, 0]
        field = torch.from_numpy(synthesis(GRID, 3) @ coefficients).float().view(1, 1, *GRID.shape, 1)
        members = field.expand(1, 1, *GRID.shape, len(CHANNELS))
        scores.append(loss(members, torch.zeros(1, *GRID.shape, len(CHANNELS)), "crps", 1.0)[0].item())
    np.testing.assert_allclose(scores, 0.25, rtol=1e-4)


def test_a_score_of_scales_sees_what_one_at_points_does_not():
    """Smooth and rough members with the same spread at every point: only the harmonics tell them apart."""
    generator = np.random.default_rng(0)
    smooth, rough = np.zeros((300, 16)), np.zeros((300, 16))
    smooth[:, 1:4] = generator.normal(size=(300, 3)) / np.sqrt(3)
    rough[:, 9:] = generator.normal(size=(300, 7)) / np.sqrt(7)
    basis = synthesis(GRID, 3)

    def fields(coefficients, members):
        made = torch.from_numpy(coefficients @ basis.T).float().view(-1, *GRID.shape, 1)
        return made.expand(-1, *GRID.shape, len(CHANNELS)).unflatten(0, members)

    truth = fields(rough[:100], (100,))
    at_points, by_scale = GridLoss(GRID, ONES), SpectralLoss(GRID, np.ones(4)[:, None] * ONES)
    right, wrong = fields(rough[100:], (2, 100)), fields(smooth[100:], (2, 100))
    assert at_points(wrong, truth, "crps", 1.0) < 1.15 * at_points(right, truth, "crps", 1.0)
    assert by_scale(wrong, truth, "crps", 1.0)[0] > 1.3 * by_scale(right, truth, "crps", 1.0)[0]


def waves(members, degree_3, *, seed, days=400):
    """Fields of degree 3 alone, of that size, for `members` of every day; the same in all channels."""
    coefficients = np.zeros((members * days, 16))
    coefficients[:, 9:] = degree_3 * np.random.default_rng(seed).normal(size=(members * days, 7))
    made = torch.from_numpy(coefficients @ synthesis(GRID, 3).T).float().view(members, days, *GRID.shape, 1)
    return made.expand(-1, -1, -1, -1, len(CHANNELS))


@pytest.mark.parametrize("wrong", [0.8, 1.25])
def test_the_score_of_power_sees_members_too_weak_or_too_strong(wrong):
    """Far more sharply than that of their coefficients does."""
    loss, truth = SpectralLoss(GRID, np.ones((4, len(CHANNELS)))), waves(1, 1.0, seed=0)[0]
    right = loss(waves(2, 1.0, seed=1), truth, "crps", 1.0)
    found = loss(waves(2, wrong, seed=1), truth, "crps", 1.0)
    of_coefficients, of_power = (float(one / other) for one, other in zip(found, right, strict=True))
    assert 1.0 < of_coefficients < 1.05
    assert of_power > 1.2


def test_the_expected_score_of_the_right_power_is_that_of_the_logarithm_of_a_sum_of_squares():
    """Log χ² of seven orders, in units of √(2 / 7), against scoringrules on numbers drawn alike."""
    loss = SpectralLoss(GRID, np.ones((4, len(CHANNELS))))
    found = loss(waves(2, 1.0, seed=1), waves(1, 1.0, seed=0)[0], "crps", 1.0)[1].item()
    drawn = np.log(np.random.default_rng(2).chisquare(7, size=(3, 20_000))) / np.sqrt(2 / 7)
    expected = scoringrules.crps_ensemble(drawn[0], drawn[1:].T, estimator="fair").mean()
    assert found == pytest.approx(expected, rel=0.1)


def test_no_power_at_all_has_a_score_and_a_gradient():
    members = torch.zeros(2, 1, *GRID.shape, len(CHANNELS), requires_grad=True)
    score = SpectralLoss(GRID, np.ones((4, len(CHANNELS))))(members, waves(1, 1.0, seed=0, days=1)[0], "crps", 1.0)[1]
    score.backward()
    assert torch.isfinite(score)
    assert torch.isfinite(members.grad).all()


def test_the_squared_error_is_the_mean_over_members():
    forecast, truth = drawn(3, 6)
    torch.testing.assert_close(squared_error(forecast, truth), ((forecast - truth) ** 2).mean(dim=0))

"""Clipping, noise, epsilon, and what an update gives away."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.stats import norm

from foretaste.errors import InputError
from foretaste.federated.core.config import PrivacyConfig
from foretaste.federated.core.curiosity import area, infer_histories
from foretaste.federated.core.privacy import (
    clipped,
    epsilon,
    local_epsilon,
    noisy,
    renyi,
)
from foretaste.federated.core.updates import Rows, Updates, zeros

from .rings import keys_of, method_of, ring, same, server_of, small_sasrec


@pytest.mark.parametrize(
    ("noise", "share", "order"), [(1.0, 0.1, 2), (2.0, 0.01, 5), (0.8, 0.3, 4), (1.5, 1.0, 7)]
)
def test_renyi_divergence_is_the_integral(noise, share, order):
    """By quadrature of E[(mixture / noise)^order] under the noise alone."""

    def integrand(x: float) -> float:
        alone = norm.pdf(x, 0, noise)
        mixture = (1 - share) * alone + share * norm.pdf(x, 1, noise)
        return alone * (mixture / alone) ** order

    integral, _ = quad(integrand, -12 * noise, order + 12 * noise, limit=400)
    assert renyi(noise, share, order) == pytest.approx(math.log(integral) / (order - 1), rel=1e-6)


def test_epsilon_of_a_published_setting():
    """TensorFlow Privacy's tutorial: n = 60,000, batch 250, noise 1.3, 15 epochs, delta 1e-5.

    It says 1.18 with the older conversion, at order 17; ours is tighter, never looser.
    """
    share, steps, delta = 250 / 60_000, 3_600, 1e-5
    older = min(
        steps * renyi(1.3, share, order) - math.log(delta) / (order - 1) for order in range(2, 64)
    )
    assert older == pytest.approx(1.18, abs=0.005)
    assert 0.9 < epsilon(1.3, share, steps, delta) < older


def test_epsilon_of_one_gaussian_is_near_the_exact_one():
    """Balle and Wang 2018: delta of a Gaussian mechanism in closed form, solved by bisection."""
    noise, delta = 2.0, 1e-5

    def exact_delta(eps: float) -> float:
        a, b = 1 / (2 * noise), eps * noise
        return float(norm.cdf(a - b) - math.exp(eps) * norm.cdf(-a - b))

    low, high = 0.0, 10.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if exact_delta(middle) > delta else (low, middle)
    assert low < epsilon(noise, 1.0, 1, delta) < 1.15 * low


def test_epsilon_moves_as_it_must():
    assert epsilon(1.0, 0.1, 0, 1e-5) == 0
    assert epsilon(0.0, 0.1, 1, 1e-5) == math.inf
    assert epsilon(1.0, 0.1, 10, 1e-5) < epsilon(1.0, 0.1, 20, 1e-5)
    assert epsilon(1.0, 0.1, 10, 1e-5) < epsilon(1.0, 0.2, 10, 1e-5)
    assert epsilon(2.0, 0.1, 10, 1e-5) < epsilon(1.0, 0.1, 10, 1e-5)
    assert local_epsilon(2.0, 10, 1e-5) == epsilon(1.0, 1.0, 10, 1e-5)


def test_every_user_is_clipped_for_itself():
    table = Rows(torch.tensor([[0, 2], [1, -1]]), torch.zeros(2, 2, 2), 3)
    table.values[0] = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    table.values[1, 0] = torch.tensor([0.3, 0.4])
    small = clipped(Updates(torch.tensor([7.0, 1.0]), {"t": table}), PrivacyConfig(clip=1.0))
    torch.testing.assert_close(small.norms(), torch.tensor([1.0, 0.5]))
    assert small.weights.tolist() == [1.0, 1.0]
    sums = zeros({"t": (3, 2)})
    small.add_to(sums)
    np.testing.assert_allclose(sums["t"], [[0.6, 0], [0.3, 0.4], [0, 0.8]], atol=1e-6)


def test_noise_is_of_the_size_that_was_asked_for():
    config = PrivacyConfig(clip=0.5, noise=2.0)
    sums = noisy(zeros({"a": (40_000,), "b": (3,)}), config, 4.0, (1, 2))
    assert sums["a"].std() == pytest.approx(2.0 * 0.5 * math.sqrt(4), rel=0.03)
    again = noisy(zeros({"a": (40_000,), "b": (3,)}), config, 4.0, (1, 2))
    np.testing.assert_array_equal(sums["a"], again["a"])
    other = noisy(zeros({"a": (40_000,), "b": (3,)}), config, 4.0, (1, 3))
    assert abs(np.corrcoef(sums["a"], other["a"])[0, 1]) < 0.03


def test_a_round_with_noise_divides_by_what_was_expected():
    """No data-dependent count: the noisy sum over 40 x 0.5 expected users."""
    config = {"clients": 0.5, "rounds": 1, "local": {"epochs": 1, "negatives": 6}}
    clean = server_of(method_of(privacy={"clip": 0.1}, **config), ring(40))
    private = server_of(method_of(privacy={"clip": 0.1, "noise": 1e-9}, **config), ring(40))
    first, second = clean.step(), private.step()
    assert second.loss is None
    start = clean.method.start()
    for name in start:
        change = (clean.now.state[name] - start[name]) * first.users / 20
        np.testing.assert_allclose(private.now.state[name] - start[name], change, atol=1e-6)


def test_noise_of_clients_adds_up_the_same_on_one_node_or_many():
    spread = []
    for nodes in (1, 30):
        method = method_of(
            clients=1.0,
            rounds=1,
            local={"epochs": 1},
            privacy={"clip": 0.1, "noise": 3.0, "where": "client"},
        )
        server = server_of(method, ring(30), nodes)
        start = server.now.state
        server.step()
        change = np.concatenate([(server.now.state[n] - start[n]).ravel() for n in start])
        spread.append(change.std())
    assert spread[0] == pytest.approx(3.0 * 0.1 / math.sqrt(30), rel=0.1)
    assert spread[1] == pytest.approx(spread[0], rel=0.1)


def test_epsilon_is_told_by_the_server():
    method = method_of(clients=0.2, rounds=3, privacy={"clip": 1.0, "noise": 1.5})
    server = server_of(method, ring(10))
    server.run()
    assert server.spent() == epsilon(1.5, 0.2, 3, 1e-5)
    assert server_of(method_of(), ring(4)).spent() is None


def test_a_resumed_server_draws_the_same_noise(tmp_path):
    config = {"clients": 1.0, "rounds": 2, "local": {"epochs": 1, "negatives": 6}}
    config["privacy"] = {"clip": 0.1, "noise": 1.0}
    whole = server_of(method_of(**config), ring(6), folder=tmp_path)
    whole.step()
    secret = whole.now.secret
    after = server_of(method_of(**config), ring(6), folder=tmp_path)
    assert after.now.secret == secret
    whole.step()
    after.step()
    same(whole.now.state, after.now.state, 0.0)
    assert server_of(method_of(**config), ring(6)).now.secret != secret


def test_settings_without_an_epsilon_are_refused():
    noisy_rounds = {"noise": 1.0, "clip": 1.0}
    with pytest.raises(InputError, match="clip above 0"):
        method_of(privacy={"noise": 1.0})
    with pytest.raises(InputError, match="uniform"):
        method_of(privacy=noisy_rounds, weighting="events")
    with pytest.raises(InputError, match="no epsilon"):
        method_of(privacy=noisy_rounds, robust={"rule": "median"})
    with pytest.raises(InputError, match="sums without noise"):
        method_of(privacy=noisy_rounds, client_evaluation=True)


def test_area_under_the_curve():
    assert area(np.array([5.0, 4, 3, 2]), np.array([0, 1])) == 1.0
    assert area(np.array([5.0, 4, 3, 2]), np.array([2, 3])) == 0.0
    assert area(np.array([1.0, 1, 1, 1]), np.array([0])) == 0.5
    assert math.isnan(area(np.array([1.0, 2]), np.array([0, 1])))


def test_an_update_gives_the_history_away_and_noise_hides_it():
    histories, keys = ring(30, longest=6), keys_of(30)
    local = {"epochs": 2, "negatives": 0, "learning_rate": 0.01}
    found = {}
    for name, privacy in {
        "open": {},
        "clipped": {"clip": 0.1},
        "noise": {"clip": 0.1, "noise": 3.0},
    }.items():
        method = method_of(model=small_sasrec(dropout=0.0), local=local, privacy=privacy)
        found[name] = infer_histories(method, method.start(), keys, histories).mean
    assert found["open"] > 0.75
    assert found["clipped"] == pytest.approx(found["open"], abs=0.02)  # scaling hides nothing
    assert abs(found["noise"] - 0.5) < 0.1

"""The accountant of DP-SGD against published figures and its limits."""

import sys

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from wemem.defenses import DPSGD
from wemem.errors import InputError
from wemem.results.privacy import epsilon


def gaussian_epsilon(mu, delta):
    """Exact ε of the Gaussian mechanism (Balle & Wang, ICML 2018)."""

    def excess(e):
        return norm.cdf(mu / 2 - e / mu) - np.exp(e) * norm.cdf(-mu / 2 - e / mu) - delta

    return brentq(excess, 0, 50)


@pytest.fixture(scope="module")
def opacus():
    return pytest.importorskip("opacus")


@pytest.mark.usefixtures("opacus")
def test_epsilon_is_below_the_published_one_and_above_the_limit_for_many_steps():
    # Abadi et al., section 3.2: q = 0.01, σ = 4, 10000 steps, δ = 1e-5 give ε of about 1.26 by looser moments
    limit = gaussian_epsilon(0.01 * np.sqrt(10000 * np.expm1(1 / 16)), 1e-5)
    assert limit < epsilon(4.0, 0.01, 10000, 1e-5) < 1.26


@pytest.mark.usefixtures("opacus")
@pytest.mark.parametrize(("noise", "steps"), [(1.0, 1), (4.0, 4), (5.0, 50)])
def test_epsilon_of_whole_batches_is_a_close_upper_bound_of_the_gaussian_mechanism_s(noise, steps):
    exact = gaussian_epsilon(np.sqrt(steps) / noise, 1e-5)
    assert exact <= epsilon(noise, 1.0, steps, 1e-5) < 1.1 * exact


@pytest.mark.usefixtures("opacus")
def test_epsilon_falls_with_noise_and_grows_with_steps_rate_and_smaller_delta():
    base = epsilon(1.0, 0.05, 100, 1e-5)
    assert epsilon(2.0, 0.05, 100, 1e-5) < base
    assert epsilon(1.0, 0.05, 200, 1e-5) > base
    assert epsilon(1.0, 0.10, 100, 1e-5) > base
    assert epsilon(1.0, 0.05, 100, 1e-6) > base


@pytest.mark.usefixtures("opacus")
def test_epsilon_of_little_noise_is_large_and_of_none_infinite():
    assert epsilon(0.0, 0.05, 100, 1e-5) == np.inf
    assert 1e4 < epsilon(0.01, 0.05, 100, 1e-5) < np.inf
    assert 1e2 < epsilon(0.1, 0.05, 100, 1e-5) < epsilon(0.01, 0.05, 100, 1e-5)


@pytest.mark.usefixtures("opacus")
def test_the_smallest_epsilon_is_given_without_a_warning():
    assert 0 < epsilon(100.0, 0.001, 1, 1e-5) < 0.3


def test_without_opacus_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "opacus", None)
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    with pytest.raises(InputError, match=r"pip install wemem\[dp\]"):
        epsilon(1.0, 0.1, 10, 1e-5)


@pytest.mark.parametrize("wrong", [{"noise": -1}, {"sample_rate": 0}, {"sample_rate": 2}, {"steps": 0}, {"delta": 1}])
def test_what_epsilon_cannot_take_is_refused(wrong):
    with pytest.raises(InputError, match=next(iter(wrong))):
        epsilon(**{"noise": 1.0, "sample_rate": 0.1, "steps": 10, "delta": 1e-5, **wrong})


@pytest.mark.parametrize("noise", [1e-300, 1e-20, 2.0**-21])
def test_noise_that_float32_loses_is_refused(noise):
    with pytest.raises(InputError, match="less is lost when it is added"):
        DPSGD(noise=noise)

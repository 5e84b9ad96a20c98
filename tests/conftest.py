"""Settings and fixtures that all tests share."""

from pathlib import Path

import jaxtyping
import pytest
import torch
from hypothesis import HealthCheck, settings

# One thread per process: test processes run side by side, and sums come out the same on every machine.
torch.set_num_threads(1)

# The same examples in every run, and no output that depends on how fast the machine is.
settings.register_profile(
    "ci", deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("ci")


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of data and golden cases beside the project; a test that needs it is skipped where it is absent."""
    folder = Path(__file__).resolve().parents[1].parent / "shared"
    if not folder.is_dir():
        pytest.skip("needs the data folder ../shared, which is not here")
    return folder


@pytest.fixture
def unchecked_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shapes are not checked in a test that passes a wrong one, to see that it is refused in one line."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)

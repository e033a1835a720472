"""Fixtures for every test."""

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def few_threads():
    """Two threads at most: the tests' tensors are small, and more threads only make them slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(min(2, before))
    yield
    torch.set_num_threads(before)


@pytest.fixture
def generator() -> torch.Generator:
    """A generator seeded 0, fresh for each test."""
    return torch.Generator().manual_seed(0)

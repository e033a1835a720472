"""On a GPU, where there is one: training as it is recommended there, and the same purified images as on a CPU."""

import json

import pytest
import torch
from nets import random_images, small_density
from test_density_training import stripes

from pixeldefend import PixelDefend, loop
from pixeldefend.pixelcnn.network import Network, PixelCNNConfig
from pixeldefend.pixelcnn.training import OPTIMIZERS, DensityJob, Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def train(folder, *, steps: int, optimizer: str, compiled: bool) -> DensityJob:
    network = Network(PixelCNNConfig(1, filters=8, blocks=1, mixtures=2, dropout=0.0))
    recipe = Recipe(steps=30, cooldown_steps=10, warmup_steps=4, optimizer=optimizer)
    job = DensityJob(network, stripes(64).cuda(), recipe, compiled=compiled)
    assert loop.run(job, loop.Plan(64, 16, steps, seed=1, log_every=5), folder, progress=False) == steps
    return job


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # torch's compiler imports what torch deprecates
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
def test_training_learns_and_goes_on_from_its_checkpoint(tmp_path, optimizer, compiled):
    train(tmp_path, steps=10, optimizer=optimizer, compiled=compiled)
    job = train(tmp_path, steps=30, optimizer=optimizer, compiled=compiled)
    state = loop.load_checkpoint(tmp_path / loop.CHECKPOINT)["job"]
    assert all(value.isfinite().all() for value in state["average"])
    first, *_ = [json.loads(line) for line in (tmp_path / loop.LOG).read_text().splitlines()]
    assert job.step(torch.arange(16), 29)["bits_per_dim"] < first["bits_per_dim"] - 0.5


@pytest.mark.parametrize("channels", [1, 3])
def test_purified_images_are_those_of_a_cpu(channels):
    images = random_images(6, channels, 8, 12)
    found = {}
    for device in ("cpu", "cuda"):
        density = small_density(channels).to(device)
        found[device] = PixelDefend(density, eps_defend=20)(images).cpu()
    same = (found["cpu"] == found["cuda"]).double().mean()
    assert same > 0.95, "a choice may fall otherwise where two levels are equally likely, and all that follow"

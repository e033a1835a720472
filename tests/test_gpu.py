"""On a GPU, where there is one: training as it is recommended there, and the same numbers and images as on a CPU."""

import json

import pytest
import torch
from nets import random_images, small_density
from test_density_training import stripes
from torch import nn

from pixeldefend import PixelCNN, PixelDefend, attacks, loop, roc
from pixeldefend.classifiers import ResNet
from pixeldefend.classifiers.training import ClassifierJob
from pixeldefend.classifiers.training import Recipe as ClassifierRecipe
from pixeldefend.defenses import UnrolledPurification
from pixeldefend.defenses.lbfgs import log_likelihood_and_gradient
from pixeldefend.pixelcnn.network import Network, PixelCNNConfig
from pixeldefend.pixelcnn.training import OPTIMIZERS, DensityJob, Recipe

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")


def train(folder, *, steps: int, optimizer: str, compiled: bool) -> DensityJob:
    network = Network(PixelCNNConfig(1, filters=8, blocks=1, mixtures=2, dropout=0.0))
    recipe = Recipe(steps=30, cooldown_steps=10, warmup_steps=4, optimizer=optimizer)
    job = DensityJob(network, stripes(64).cuda(), recipe, compiled=compiled)
    assert loop.run(job, loop.Plan(64, 16, steps, seed=1, log_every=5), folder, progress=False) == steps
    return job


@pytest.mark.filterwarnings("ignore")  # torch's compiler warns of what it does itself
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
    images = random_images(6, channels, 20, 12)  # so many rows that each of the recorded graphs is replayed, and twice
    found = {}
    for device in ("cpu", "cuda"):
        density = small_density(channels).to(device)
        found[device] = PixelDefend(density, eps_defend=20, batch_size=3)(images).cpu()
    same = (found["cpu"] == found["cuda"]).double().mean()
    assert same > 0.95, "a choice may fall otherwise where two levels are equally likely, and all that follow"


def small_net() -> nn.Module:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    for parameter in net.parameters():
        nn.init.normal_(parameter, generator=torch.Generator().manual_seed(1))
    return net


def computed(density: PixelCNN) -> dict[str, torch.Tensor]:
    """By every way to the network's products: in parallel, pixel by pixel, and with a gradient."""
    images = random_images(6, 1, 8, 8)
    nats, slopes = log_likelihood_and_gradient(density, images.float().cuda())
    pixels = (images / 255).cuda().requires_grad_()
    unrolled = UnrolledPurification(density, eps_defend=16, temperature=1.0)(pixels)
    unrolled.square().sum().backward()
    return {
        "scores": density.bits_per_dim(images),
        "samples": density.sample(8, generator=torch.Generator().manual_seed(0)),
        "purified": PixelDefend(density, eps_defend=20)(images),
        "likelihoods": nats, "slopes": slopes, "unrolled": unrolled.detach(), "unrolled slopes": pixels.grad,
    }  # fmt: skip


@pytest.fixture
def reduced():
    """All that a process can choose of reduced precision, by torch's older settings, and by the newer where it has them."""
    backends, newer = torch.backends, hasattr(torch.backends.cudnn, "conv")
    torch.set_float32_matmul_precision("medium")
    if newer:
        backends.fp32_precision = backends.cudnn.conv.fp32_precision = "tf32"
    yield
    if newer:
        backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")


@pytest.mark.filterwarnings("ignore:Please use the new API:UserWarning")
@pytest.mark.parametrize("half", [False, True], ids=["TF32", "autocast"])
def test_what_a_process_chooses_to_round_is_not_rounded_here(half, request):
    density = small_density(1).cuda()
    exact = computed(density)
    request.getfixturevalue("reduced")
    with torch.autocast("cuda", torch.bfloat16, enabled=half):
        found = computed(density)
    for name, value in exact.items():
        tolerance = {"rtol": 1e-5, "atol": 1e-5 * value.abs().double().max().item()}
        torch.testing.assert_close(found[name], value, **tolerance, msg=name)


@pytest.mark.filterwarnings("ignore:Please use the new API:UserWarning")
@pytest.mark.usefixtures("reduced")
def test_scores_are_those_of_a_cpu_to_float32():
    density, images = small_density(3), random_images(6, 3, 8, 12)
    bits = [density.to(device).bits_per_dim(images) for device in ("cpu", "cuda")]
    torch.testing.assert_close(bits[0], bits[1], rtol=1e-5, atol=1e-5)


def test_everything_works_where_tensors_are_made_on_a_gpu():
    """A generator is still the CPU's."""
    images, labels, net = random_images(4, 1, 8, 8).cuda(), torch.arange(4).cuda(), small_net().cuda()
    with torch.device("cuda"):
        density = PixelCNN(channels=1, height=8, width=8, filters=4, blocks=1)
        assert density.device.type == "cuda" and density.bits_per_dim(images).is_cuda
        attacked = attacks.carlini_wagner(net, images, labels, eps=4, setting="tuned")
        assert attacked.is_cuda and (attacked.int() - images.int()).abs().max() <= 4
        curve = roc(torch.rand(9), torch.rand(5))
        assert 0 <= curve.auc <= 1 and not curve.true_positive_rate.is_cuda
        job = ClassifierJob(ResNet(channels=1, width=2, units=1), images, labels, ClassifierRecipe(steps=2))
        assert job.step(torch.arange(4), 0)["loss"] > 0
        assert len(loop.batch_indices(loop.Plan(20, 5, 3), 1)) == 5


def test_a_density_is_loaded_on_a_gpu(tmp_path):
    small_density(1).save_pretrained(tmp_path)
    assert PixelCNN.from_pretrained(tmp_path, device="cuda").device.type == "cuda"

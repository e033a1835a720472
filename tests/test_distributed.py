"""Several processes: two that torchrun starts train, score, attack and purify as one does; what fails is named."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import two_processes
from nets import random_images, small_density
from test_images import idx
from torch import nn
from two_processes import BATCH, PURIFY, RAND, SCORE, STEPS, STOP, classifier_job, command, density_job, train, trained

from pixeldefend import cli, distributed, images, loop, paths
from pixeldefend.classifiers import VGG, ResNet, save_classifier
from pixeldefend.commands import chunks
from pixeldefend.pixelcnn.training import SCORES

COUNT = 1100  # images: three chunks, the third of them smaller
TESTS = Path(__file__).parent

# Fails on rank 1 as long as there is more than one process.
FAILING = """
import sys
from pixeldefend import PixelDefend, cli, distributed
purify = PixelDefend.purify
def fail(*args, **options):
    if distributed.rank() == 1:
        raise RuntimeError("the lamp\\nwent out")
    return purify(*args, **options)
PixelDefend.purify = fail
sys.exit(cli.main(sys.argv[1:]))
"""


def torchrun(*command: str, folder: Path, **environment) -> subprocess.CompletedProcess:
    """Run a script in two processes that talk over the loopback interface, on a port that torchrun finds."""
    loopback = next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
    path = os.pathsep.join([str(paths.ROOT), str(TESTS)])
    env = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": loopback, **environment}
    launcher = ["torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-m", *launcher, *command], cwd=folder, env=env, **pipes) as process:
        try:
            out, error = process.communicate(timeout=240)
        except subprocess.TimeoutExpired:
            process.terminate()  # so that torchrun ends the two as well
            raise
    return subprocess.CompletedProcess(command, process.returncode, out, error)


def make_files(folder: Path) -> None:
    """A tiny density, a tiny classifier, images, and Fashion-MNIST's layout with 12 images to train on."""
    small_density(1).save_pretrained(folder / "density")
    net = ResNet(channels=1, width=2, units=1)
    net.reset_parameters(torch.Generator().manual_seed(0))
    save_classifier(net, data_set="fashion-mnist", network="resnet", training="normal", scores={}, root=folder / "nets")
    labels = torch.arange(COUNT) % 10
    np.savez(folder / "in.npz", images=random_images(COUNT, 1, 8, 8), labels=labels, data_set="fashion-mnist")
    (folder / "data").mkdir()
    for part, count in {"train": 15, "t10k": 6}.items():
        pixels = random_images(count, 1, 28, 28)[:, 0].numpy()
        (folder / "data" / f"{part}-images-idx3-ubyte").write_bytes(idx(pixels))
        (folder / "data" / f"{part}-labels-idx1-ubyte").write_bytes(idx(np.arange(count, dtype=np.uint8) % 10))


@pytest.fixture(autouse=True)
def one_thread():
    """As under torchrun: with another number of threads sums may differ in their last bit."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where two processes have done all that `two_processes` does."""
    folder = tmp_path_factory.mktemp("two")
    make_files(folder)
    train(density_job(), folder / "begun-by-one", steps=STOP)
    done = torchrun(two_processes.__file__, folder=folder, **{images.ENVIRONMENT: str(folder / "data")})
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What each of the two found."""
    return [torch.load(folder / f"found-{rank}.pt") for rank in range(2)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """What one process trains."""
    return trained(tmp_path_factory.mktemp("one"))


def assert_same(one: list[torch.Tensor], other: list[torch.Tensor]):
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def assert_close(found: dict, expected: dict):
    """Up to float32 summation: one step changes weights by about 1e-3."""
    assert found["done"] == expected["done"] == STEPS
    for name in ("weights", "average"):
        for one, other in zip(found[name], expected[name], strict=True):
            assert torch.allclose(one, other, rtol=0, atol=2e-6)


# -- two processes ----------------------------------------------------------------------------------------------------


def test_numbers_are_averaged_and_values_gathered_in_order(found):
    for mine in found:
        assert mine["mean"] == [0.5, 5.0]
        assert mine["gathered"] == ["rank 0", "rank 1"]


@pytest.mark.parametrize("name", ["whole", "resumed"])
def test_two_processes_train_what_one_trains(name, found, alone):
    """From the start, and from a checkpoint that one process made."""
    for mine in found:
        assert_close(mine[name], alone)
    assert_same(found[0][name]["weights"], found[1][name]["weights"])
    assert not torch.allclose(alone["weights"][0], density_job().parameters[0], atol=1e-4), "training changes weights"


def test_one_process_goes_on_from_the_checkpoint_of_two(folder, found, alone):
    assert [mine["begun"]["done"] for mine in found] == [STOP, STOP]
    assert_close(trained(folder / "begun-by-two"), alone)


def test_the_log_of_two_processes_is_that_of_one(folder, tmp_path):
    train(density_job(), tmp_path)
    logs = [(where / loop.LOG).read_text().splitlines() for where in (folder / "two", tmp_path)]
    two, one = ([json.loads(line) for line in log] for log in logs)
    assert len(two) == len(one) == STEPS // 2
    for mine, expected in zip(two, one, strict=True):
        assert mine.pop("seconds") >= 0 and expected.pop("seconds") >= 0
        assert mine == pytest.approx(expected, rel=1e-5)


def test_a_signal_to_one_process_stops_both_after_the_same_step(folder, found):
    assert [mine["stopped"] for mine in found] == [{"done": STOP + 1, "seen": (STOP + 1) * BATCH // 2}] * 2
    assert loop.load_checkpoint(folder / "stopped" / loop.CHECKPOINT)["step"] == STOP + 1


def test_each_process_has_noise_of_its_own_and_rank_0_that_of_one_process(found):
    assert torch.equal(found[0]["noise"], two_processes.noise())
    assert not torch.equal(found[0]["noise"], found[1]["noise"])


def test_a_batch_that_cannot_be_shared_equally_is_refused(folder, found):
    assert [mine["unequal"] for mine in found] == ["2 processes cannot share batch_size 5 equally"] * 2
    assert not (folder / "unequal").exists()


def test_processes_that_see_different_checkpoints_are_refused(found):
    assert all(f"different steps [{STOP}, 0]" in mine["strangers"] for mine in found)


def test_classifiers_follow_the_mean_gradient_of_the_two_halves(found):
    """Two steps by hand. Each half has its own batch statistics; the running ones are those of the first."""
    halves = [classifier_job(flip=False).model for _ in range(2)]
    job = classifier_job(flip=False)
    plan = loop.Plan(len(job.images), 8, STEPS, seed=1)
    for step in range(2):
        gradients = []
        for model, index in zip(halves, loop.batch_indices(plan, step).chunk(2), strict=True):
            model.load_state_dict(job.model.state_dict())
            loss, _ = job.loss(model, job._batch(index)[0], job.labels[index])
            gradients.append(torch.autograd.grad(loss, list(model.parameters())))
        for parameter, one, other in zip(job.model.parameters(), *gradients, strict=True):
            parameter.grad = (one + other) / 2
        for group in job.optimizer.param_groups:
            group["lr"] = job.recipe.learning_rate_at(step)
        job.optimizer.step()
        for mine, first in zip(job.model.buffers(), halves[0].buffers(), strict=True):
            mine.copy_(first)
    for mine, expected in zip(found[0]["normal"], job.model.state_dict().values(), strict=True):
        assert torch.allclose(mine, expected, atol=1e-5)


@pytest.mark.parametrize("training", ["normal", "adversarial"])
def test_both_processes_end_with_the_same_classifier(training, found):
    keys = list(classifier_job().model.state_dict())
    for key, one, other in zip(keys, found[0][training], found[1][training], strict=True):
        if "running" not in key:  # rank 0's are sent to the others before each step, and only rank 0's are kept
            assert torch.equal(one, other), key


def test_rank_0_saves_and_both_load_what_one_process_would_have_trained(folder, found, monkeypatch):
    monkeypatch.setenv(images.ENVIRONMENT, str(folder / "data"))
    monkeypatch.setattr(images, "HELD_OUT", images.HELD_OUT)  # two_processes sets it
    assert found[0]["density"] == found[1]["density"]
    two_processes.saved_density(folder, "saved-by-one")
    scores = [json.loads((folder / f"{name}-weights" / SCORES).read_text()) for name in ("saved", "saved-by-one")]
    assert scores[0]["test_bits_per_dim"] == pytest.approx(scores[1]["test_bits_per_dim"], abs=1e-3)
    assert scores[0]["fingerprint"] == found[0]["density"]


@pytest.mark.parametrize("line", [SCORE, RAND, PURIFY], ids=["score", "attack, all noise in one draw", "purify"])
def test_a_command_writes_the_same_file_from_two_processes_as_from_one(line, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    command(line.format("one"))
    one, two = ((folder / line.format(name).split()[-1]).read_bytes() for name in ("one", "two"))
    assert one == two
    assert not list(folder.glob("*.parts"))
    said = capsys.readouterr().out
    assert said and (folder / "stdout").read_text().count(said) == 1, "rank 0 alone says what one process says"


def test_a_failed_shard_is_named_and_can_be_computed_alone(tmp_path, monkeypatch, capsys):
    make_files(tmp_path)
    (tmp_path / "failing.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    failed = torchrun("failing.py", *PURIFY.format("two").split(), "--quiet", folder=tmp_path)
    assert failed.returncode != 0 and failed.stdout == ""
    lines = [line for line in failed.stderr.splitlines() if line.startswith("pixeldefend: error:")]
    assert lines == [
        "pixeldefend: error: shard 2/2 failed on images 600..1099 (RuntimeError: the lamp went out); what is finished is "
        "kept; --shard 2/2 computes it alone"
    ]
    assert "pixeldefend/" not in failed.stderr, "no traceback of ours"
    assert len(list((tmp_path / "two-purified.parts").iterdir())) == 1, "rank 0 has finished its shard"
    assert cli.main([*PURIFY.format("two").split(), "--quiet", "--shard", "2/2"]) == 0
    monkeypatch.setattr(chunks._Chunks, "compute", None)  # all is there
    assert cli.main([*PURIFY.format("two").split(), "--quiet"]) == 0
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    command(PURIFY.format("one"))
    assert Path("one-purified.npz").read_bytes() == Path("two-purified.npz").read_bytes()


# -- one process ------------------------------------------------------------------------------------------------------


def test_without_torchrun_there_is_one_process_and_nothing_changes():
    network = nn.Linear(2, 2)
    with distributed.process_group("cuda:3") as device:
        assert device == "cuda:3" and not torch.distributed.is_initialized()
        assert (distributed.rank(), distributed.world_size()) == (0, 1)
        assert distributed.parallel(network) is network
        assert distributed.mean([0.1, 2.0]) == [0.1, 2.0] and distributed.gather("x") == ["x"]
        assert torch.equal(distributed.own_part(torch.arange(5)), torch.arange(5))


@pytest.mark.parametrize(
    ("device", "mention"),
    [("cuda:0", "the device must be cuda, not cuda:0"), ("cuda", "process 3 of this machine has no GPU: there are 2")],
    ids=["a numbered GPU", "fewer GPUs than processes"],
)
def test_gpus_that_several_processes_cannot_have_are_refused(device, mention, monkeypatch):
    for name, value in {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "3", "RANK": "2", "LOCAL_RANK": "2"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match=mention), distributed.process_group(device):
        pass
    assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    "network",
    [ResNet(channels=1, width=2, units=1), VGG(channels=1, side=16, width=1)],
    ids=["ResNet, whose normalisation has a ReLU in it", "VGG"],
)
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluating"])
def test_synchronised_batch_normalisation_changes_nothing_else(network, training):
    """With one process it computes what the plain layers compute; torch knows it for GPUs only."""
    network.reset_parameters(torch.Generator().manual_seed(0))
    pixels = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    plain = {key: value.clone() for key, value in network.state_dict().items()}
    outputs = []
    for change in (lambda net: None, distributed.synchronise_batch_norm):
        network.load_state_dict(plain)
        change(network)
        with loop.own_randomness(0):  # for dropout
            outputs.append([network.train(training)(pixels), *network.buffers()])
        outputs[-1] = [value.detach().clone() for value in outputs[-1]]
    assert_same(*outputs)
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    assert layers and all(isinstance(layer, nn.SyncBatchNorm) for layer in layers)

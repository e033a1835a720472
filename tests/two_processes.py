"""What tests/test_distributed.py lets two processes do. Each leaves what it found in FOLDER/found-RANK.pt.

FOLDER holds begun-by-one/ (a checkpoint), density/ and in.npz.
"""

import os
import shutil
import signal
from pathlib import Path

import torch
from nets import random_images

from pixeldefend import cli, distributed, images, loop
from pixeldefend.classifiers import ResNet
from pixeldefend.classifiers.training import ClassifierJob
from pixeldefend.classifiers.training import Recipe as ClassifierRecipe
from pixeldefend.fingerprint import fingerprint
from pixeldefend.pixelcnn.network import Network, PixelCNNConfig
from pixeldefend.pixelcnn.training import DensityJob, Recipe, train_density

STEPS, BATCH, STOP = 8, 4, 3
SCORE = "score in.npz --density density --output {}-bits.npz"
RAND = "attack in.npz --attack rand --eps 8 --seed 3 --classifiers nets --output {}-noisy.npz"
PURIFY = "purify in.npz --density density --eps 20 --batch-size 300 --output {}-purified.npz"


def density_job() -> DensityJob:
    network = Network(PixelCNNConfig(1, filters=4, blocks=1, mixtures=2, dropout=0.0))
    recipe = Recipe(steps=STEPS, cooldown_steps=3, warmup_steps=4, bfloat16=False)
    return DensityJob(network, random_images(20, 1, 8, 8), recipe)


def classifier_job(training: str = "normal", **changes) -> ClassifierJob:
    recipe = ClassifierRecipe(**{"steps": STEPS, "training": training, "bfloat16": False} | changes)
    return ClassifierJob(ResNet(channels=1, width=2, units=1), random_images(40, 1, 8, 8), torch.arange(40) % 10, recipe)


def train(job, folder: Path, *, steps: int = STEPS, batch: int = BATCH) -> int:
    plan = loop.Plan(len(job.images), batch, steps, seed=1, log_every=2, save_every_seconds=1e9)
    return loop.run(job, plan, folder, progress=False)


def trained(folder: Path, steps: int = STEPS) -> dict:
    job = density_job()
    done = train(job, folder, steps=steps)
    return {"done": done, "weights": [p.detach() for p in job.parameters], "average": job.average}


def stopped_by_a_signal_to_one(folder: Path) -> dict:
    """The steps done, and how many images this process was given in them."""
    job, seen = density_job(), []
    step = job.step

    def step_and_stop(index, number):
        if number == STOP and distributed.rank() == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        seen.append(len(index))
        return step(index, number)

    job.step = step_and_stop
    return {"done": train(job, folder), "seen": sum(seen)}


def noise() -> torch.Tensor:
    with loop.seeded(0, 5):
        return torch.rand(4)


def refused(function, *args, **kwargs) -> str:
    try:
        function(*args, **kwargs)
    except ValueError as error:
        return str(error)
    return "nothing was refused"


def classifier_weights(folder: Path, training: str, **changes) -> list[torch.Tensor]:
    job = classifier_job(training, **changes)
    train(job, folder, steps=2, batch=8)
    return [value.clone() for value in job.model.state_dict().values()]


def saved_density(folder: Path, name: str) -> str:
    images.HELD_OUT = 3
    model = train_density(
        "fashion-mnist", images=24, batch_size=4, filters=4, blocks=1, bfloat16=False, progress=False,
        folder=folder / name, weights=folder / f"{name}-weights",
    )
    return fingerprint(model)


def command(line: str) -> None:
    options = cli.make_parser().parse_args([*line.split(), "--quiet"])
    options.run(options)


def find(folder: Path) -> dict:
    mine = folder / f"alone-{distributed.rank()}"
    if distributed.rank() == 0:  # a checkpoint that the other process does not see
        shutil.copytree(folder / "begun-by-one", mine)
    found = {
        "mean": distributed.mean([distributed.rank(), 5.0]),
        "gathered": distributed.gather(f"rank {distributed.rank()}"),
        "whole": trained(folder / "two"),
        "resumed": trained(folder / "begun-by-one"),
        "begun": trained(folder / "begun-by-two", steps=STOP),
        "stopped": stopped_by_a_signal_to_one(folder / "stopped"),
        "noise": noise(),
        "unequal": refused(train, density_job(), folder / "unequal", batch=5),
        "strangers": refused(train, density_job(), mine),
        "normal": classifier_weights(folder / "normal", "normal", flip=False),
        "adversarial": classifier_weights(folder / "adversarial", "adversarial-bim"),
        "density": saved_density(folder, "saved"),
    }
    for line in (SCORE, RAND, PURIFY):
        command(line.format("two"))
    return found


if __name__ == "__main__":
    torch.set_num_threads(1)
    with distributed.process_group():
        torch.save(find(Path.cwd()), f"found-{distributed.rank()}.pt")

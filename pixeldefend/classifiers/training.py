"""Training the classifiers, with the recipe of the authors' code: the paper gives none for the classifiers.

Momentum SGD (0.9), batches of 128, a learning rate of 0.1 that falls to a tenth at 1/2 and again at 3/4 of the run, an
L2 penalty of 5e-4 sum(w^2) / 2 over all trainable variables, normalisation and biases included, and random horizontal
flips. The authors run 80,000 steps (186 epochs of Fashion-MNIST, 205 of CIFAR-10) and keep the last iterate; the
milestones scale with the length chosen here, and the last iterate is kept here too. All ways of training share this;
what each of them minimises is in `losses`.

Two things are our own, for machines on which 200 epochs take days. The *one-cycle* schedule (Smith & Topin, "Super-
convergence", 2018) raises the learning rate linearly over the first fifth of the run and lets it fall linearly to zero over
the rest. A *warm start* goes on from the weights of a classifier that is already trained, by default with a tenth of the
learning rate, over fewer epochs.
"""

from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import distributed, loop, paths
from ..checks import check_choice, check_count, check_images, check_labels
from ..fingerprint import fingerprint
from ..images import DATA_SETS, load_images
from ..scaling import to_unit
from ..weights import BEFORE, check_replaceable, read_scores
from .inference import accuracy
from .losses import ATTACKS, TRAININGS, loss_of
from .store import NETWORKS, SIZES, build_classifier, classifier_name, load_classifier, rounded, save_classifier

STORED = torch.float16
SCHEDULES = ("steps", "one-cycle")
RISE = 0.2  # fraction of a one-cycle run in which the learning rate rises
WARM_RATE = 0.01  # learning rate of a warm start: the one at which the run that it goes on from was past its first drop


@dataclass(frozen=True)
class Recipe:
    """How a classifier is trained; none of it may change when a run is resumed."""

    steps: int
    training: str = "normal"  # one of losses.TRAININGS
    learning_rate: float = 0.1
    momentum: float = 0.9
    penalty: float = 5e-4  # L2, on every trainable variable
    schedule: str = "steps"  # one of SCHEDULES
    milestones: tuple[float, ...] = (0.5, 0.75)  # of "steps": fractions of the run after which the rate is a tenth
    flip: bool = True
    adversarial_std: float = 8.0  # colour levels; of eps before it is truncated, in adversarial training alone
    bfloat16: bool = True  # autocast; weights, the loss and the normalisation's statistics stay float32
    seed: int = 0
    start: str | None = None  # fingerprint of the weights to start from; without it they are drawn

    def __post_init__(self):
        check_choice(self.training, TRAININGS, name="training")
        check_choice(self.schedule, SCHEDULES, name="schedule")
        if not 0 < self.learning_rate < float("inf"):
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")
        if not 0 < self.adversarial_std < float("inf"):
            raise ValueError(f"adversarial_std must be a positive number of levels, not {self.adversarial_std}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the update that follows ``step`` earlier ones."""
        if self.schedule == "steps":
            return self.learning_rate * 0.1 ** sum(step >= fraction * self.steps for fraction in self.milestones)
        done = (step + 1) / (self.steps + 1)  # never 0 nor 1: every update moves
        return self.learning_rate * min(done / RISE, (1 - done) / (1 - RISE))

    def settings(self) -> dict:
        """What a run depends on, as plain values: so without ``adversarial_std`` where nothing is attacked, and so on."""
        settings = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}
        if self.training not in ATTACKS:
            del settings["adversarial_std"]
        if self.start is None:
            del settings["start"]
        del settings["schedule" if self.schedule == "steps" else "milestones"]
        return settings


class ClassifierJob:
    """A `loop.Job` that trains ``model`` on ``images`` (uint8, (N, C, H, W)) and ``labels`` (int64, (N,)).

    Its weights are drawn anew, unless ``recipe.start`` says that it comes with those to start from. With several
    processes (see `distributed`) each draws its own flips and attacks half of its own part of a batch.
    """

    def __init__(self, model: nn.Module, images: Tensor, labels: Tensor, recipe: Recipe):
        check_images(images)
        check_labels(labels, images)
        self.images, self.labels, self.recipe = images, labels, recipe
        self.device = images.device
        self.settings, self.execution = {**model.size, **recipe.settings()}, {"device": self.device.type}
        self.loss = loss_of(recipe.training, recipe.adversarial_std)
        if recipe.start is None:
            model.cpu().reset_parameters(torch.Generator().manual_seed(recipe.seed))
        self.model = model.to(self.device, memory_format=torch.channels_last).train()
        self.parallel = distributed.parallel(self.model)
        self.optimizer = torch.optim.SGD(
            model.parameters(),
            lr=recipe.learning_rate,
            momentum=recipe.momentum,
            weight_decay=recipe.penalty,  # the gradient of penalty * sum(w^2) / 2
        )

    def step(self, index: Tensor, step: int) -> dict[str, float]:
        pixels, labels = self._batch(index)
        rate = self.recipe.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            loss, numbers = self.loss(self.parallel, pixels, labels)
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        values = {name: value.item() for name, value in numbers.items()}
        return {"loss": loss.item(), **values, "learning_rate": rate}

    def _batch(self, index: Tensor) -> tuple[Tensor, Tensor]:
        index = index.to(self.device)
        images = self.images[index]
        if self.recipe.flip:  # drawn from the global generator, which the loop seeds for each step
            flipped = torch.rand(len(index)).to(self.device) < 0.5
            images = torch.where(flipped.view(-1, 1, 1, 1), images.flip(-1), images)
        return to_unit(images).contiguous(memory_format=torch.channels_last), self.labels[index]

    def state_dict(self) -> dict:
        return {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])


def train_classifier(
    data_set: str,
    network: str = "resnet",
    training: str = "normal",
    *,
    epochs: int = 14,
    schedule: str = Recipe.schedule,
    learning_rate: float | None = None,
    adversarial_std: float = Recipe.adversarial_std,
    start: str | None = None,
    folder: Path | None = None,
    weights: Path | None = None,
    bfloat16: bool = True,
    batch_size: int = 128,
    seed: int = 0,
    device: torch.device | str = "cpu",
    force: bool = False,
    minutes: float | None = None,
    progress: bool = True,
) -> nn.Module:
    """Train the paper's classifier (appendix C) on the "train" split, score it on all test images, save it, return it.

    Fashion-MNIST's split has 55,000 images, which is what the authors' code trains on (the paper says 60,000);
    CIFAR-10's has 45,000. A run that was stopped goes on from the checkpoint in ``folder``. The returned model is
    `load_classifier`'s, in eval mode. Under torchrun call it in a `distributed.process_group`: the processes share each
    batch, and rank 0 saves.

    Args:
        training: "normal"; "label-smoothing" (section 2.2); "adversarial-fgsm" or "adversarial-bim" (appendix B), where
            half of each batch is attacked.
        epochs: passes over the training images; the authors' 80,000 steps are 186 (Fashion-MNIST) and 205 (CIFAR-10).
        schedule: of the learning rate: "steps", as the authors, or "one-cycle", for runs of few epochs.
        learning_rate: its highest value; ``None`` for the authors' 0.1, or 0.01 with ``start``.
        adversarial_std: of the eps of adversarial training, in colour levels. The paper has 8, and 8 or 25 for
            Fashion-MNIST. It is not part of the classifier's name: give another one its own ``folder`` and ``weights``.
        start: go on from the shipped classifier that was trained this way, for example "normal"; our own, not the
            paper's.
        folder: for the checkpoint and the log; ``None`` for a folder in ``runs/classifiers``.
        weights: folder of classifiers to save to; ``None`` for the repository's ``data/weights/classifiers``.
        bfloat16: train in mixed precision; scores are computed in float32 either way.
        force: replace weights that are there.
        minutes: stop after so many, with a checkpoint; ``None``: go on to the end.

    Raises ``ValueError`` for an unknown name, for fewer epochs than one, for a ``start`` that is not shipped, and for a
    ``folder`` whose checkpoint was made with other settings; ``FileExistsError`` where there are weights already;
    ``InterruptedError`` when the run was told to stop, or its ``minutes`` were over (a checkpoint is kept);
    ``FloatingPointError`` when it has diverged.
    """
    check_choice(data_set, DATA_SETS, name="data set")
    check_choice(network, NETWORKS, name="network")
    check_choice(training, TRAININGS, name="training")
    for option, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_count(value, name=option)
    name = classifier_name(data_set, network, training)
    folder = paths.RUNS / "classifiers" / name if folder is None else Path(folder)
    train, test = load_images(data_set, "train"), load_images(data_set, "test")
    steps = epochs * (len(train) // batch_size)
    model, beginning, before = _beginning(data_set, network, start)
    if learning_rate is None:
        learning_rate = WARM_RATE if start else Recipe.learning_rate
    recipe = Recipe(steps=steps, training=training, schedule=schedule, learning_rate=learning_rate,
                    adversarial_std=adversarial_std, bfloat16=bfloat16, seed=seed, start=beginning)  # fmt: skip
    check_replaceable((paths.WEIGHTS / "classifiers" if weights is None else Path(weights)) / name, force=force)
    job = ClassifierJob(model, train.images.to(device), train.labels.to(device), recipe)
    plan = loop.Plan(len(train), batch_size, steps, seed=seed, minutes=minutes)
    loop.run_to_end(job, plan, folder, progress=progress)
    if distributed.rank() == 0:
        settings = {"epochs": epochs, "batch_size": batch_size, "training_images": len(train), **recipe.settings()}
        scores = {
            **_scores(model.eval(), test.images.to(device), test.labels.to(device)),
            "images_seen": steps * batch_size,
            **before,
            "training_seconds": round(loop.load_checkpoint(folder / loop.CHECKPOINT)["seconds"], 1),
        }
        save_classifier(
            model, data_set=data_set, network=network, training=training, scores=scores, settings=settings,
            log=folder / loop.LOG, root=weights, dtype=STORED,
        )
    distributed.wait()
    return load_classifier(data_set, network, training=training, root=weights, device=device)


def _beginning(data_set: str, network: str, start: str | None) -> tuple[nn.Module, str | None, dict]:
    """The network to train; if its weights are not to be drawn, also their fingerprint and, for the scores, the images that
    they had seen."""
    if start is None:
        return build_classifier(network, SIZES[data_set, network]), None, {}
    model = load_classifier(data_set, network, training=start).requires_grad_()
    scores = read_scores(paths.WEIGHTS / "classifiers" / classifier_name(data_set, network, start))
    return model, fingerprint(model), {BEFORE: scores.get("images_seen", 0) + scores.get(BEFORE, 0)}


def _scores(model: nn.Module, images: Tensor, labels: Tensor) -> dict:
    """Accuracy on the test images of the weights as stored, and as trained."""
    return {
        "test_accuracy": accuracy(rounded(model, STORED).to(images.device), images, labels),
        "test_accuracy_before_rounding": accuracy(model, images, labels),
        "test_images": len(images),
        "stored_as": str(STORED).removeprefix("torch."),
    }

"""Training a PixelCNN by maximum likelihood on clean images (the paper, section 2.3; the recipe from the authors' code).

As the authors: Adam with betas (0.95, 0.9995) and a learning rate of 1e-3 times 0.999995 per step, dropout, data-dependent
initialisation on the first 100 training images, and an exponential moving average of the weights (0.9995), which is what
is evaluated and shipped. The paper and its code give neither the number of epochs nor a criterion to stop. Added here,
for runs far shorter than theirs: `Muon` for the directions of the hidden layers, which leaves the authors' Adam their
lengths, the biases, the input and the head; a warm-up of the learning rates and of the average, and a cool-down of the
learning rates to zero over the last part of the run. The checkpoint before the cool-down is kept, so that a longer run can
branch off. Where it is gone, a run can start from the weights of a density that exists.
"""

import copy
import json
import math
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from .. import distributed, loop, paths
from ..checks import check_choice, check_count, check_images
from ..fingerprint import fingerprint
from ..images import DATA_SETS, load_images
from ..weights import BEFORE, CALLS, EARLIER, LOG, SCORES, SECONDS_BEFORE, check_replaceable, read_scores
from .card import describe
from .layers import Elementwise, concat_elu, gate_and_activate
from .logistic import observed_log_probs, scale_levels
from .model import PixelCNN, shipped_folder
from .muon import Muon
from .network import Network, initialise_from_data

OPTIMIZERS = ("muon", "adam")
FILTERS = {"fashion-mnist": 40, "cifar10": 160}  # appendix B: reduced to a quarter for Fashion-MNIST
BLOCKS = 5
OF_A_RUN = ("images_seen", "training_seconds", "test_bits_per_dim", "fingerprint", "settings")  # kept of earlier ones


@dataclass(frozen=True)
class Recipe:
    """How a PixelCNN is trained. Of all this only ``steps`` and ``cooldown_steps`` may change when a run is resumed, and
    these only until a cool-down has begun."""

    steps: int
    cooldown_steps: int = 0
    optimizer: str = "muon"  # "adam": for all parameters, as the authors
    learning_rate: float = 1e-3  # of Adam
    muon_rate: float = 0.02  # of Muon, about the radians by which a step turns the weights of an output map
    decay: float = 0.999995  # of the learning rates, per step
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.95, 0.9995)
    ema: float = 0.9995
    initial_images: int = 100  # for the data-dependent initialisation
    bfloat16: bool = True  # autocast; weights, their average and the likelihood stay float32
    seed: int = 1
    start: str | None = None  # fingerprint of the weights to start from; without it they are drawn and initialised

    def __post_init__(self):
        if not 0 <= self.cooldown_steps <= self.steps:
            raise ValueError(f"cooldown_steps must lie in 0..{self.steps} (steps), not {self.cooldown_steps}")
        check_choice(self.optimizer, OPTIMIZERS, name="optimizer")
        for name in ("learning_rate", "muon_rate"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be positive, not {getattr(self, name)}")

    def schedule(self, step: int) -> float:
        """By how much the learning rates of the update that follows ``step`` earlier ones are reduced, in 0..1."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cooldown = min(1.0, (self.steps - step) / max(1, self.cooldown_steps))
        return self.decay**step * warmup * cooldown

    def settings(self) -> dict:
        """All that decides a run and means something in it."""
        values = {**asdict(self), "betas": list(self.betas)}
        unused = [name for name, used in (("muon_rate", self.optimizer == "muon"), ("start", self.start)) if not used]
        return {name: value for name, value in values.items() if name not in unused}


class DensityJob:
    """A `loop.Job` that trains ``network`` on ``images`` (uint8, (N, C, H, W)); with all processes that torchrun started.

    Its weights are drawn anew, unless ``recipe.start`` says that it comes with those to start from.
    """

    def __init__(self, network: Network, images: Tensor, recipe: Recipe, *, compiled: bool = False,
                 layout: torch.memory_format = torch.channels_last):  # fmt: skip
        check_images(images, channels=network.config.channels)
        self.recipe, self.images, self.layout = recipe, images, layout
        self.device = images.device
        free = ("steps", "cooldown_steps")  # they may change when a run is resumed
        self.settings = {k: v for k, v in {**network.config.as_dict(), **recipe.settings()}.items() if k not in free}
        self.execution = {"device": self.device.type, "compiled": compiled}
        if recipe.start is None:
            network.reset_parameters(torch.Generator().manual_seed(recipe.seed))
        self.network = network.to(self.device, memory_format=layout).train()
        if recipe.start is None:
            with loop.own_randomness(recipe.seed):
                initialise_from_data(network, scale_levels(images[: recipe.initial_images]))
        if compiled:
            compile_network(network)
        self.parallel = distributed.parallel(network)
        self.parameters = list(network.parameters())
        self.optimizers = optimizers(network, recipe)
        self.average = [p.detach().clone() for p in self.parameters]  # after Muon has scaled them

    def step(self, index: Tensor, step: int) -> dict[str, float]:
        images = self.images[index.to(self.device)]
        for rate, optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * self.recipe.schedule(step)
        x = scale_levels(images).contiguous(memory_format=self.layout)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            parameters = self.parallel(x)
        bits_per_dim = -observed_log_probs(parameters, images).mean() / math.log(2)
        self.network.zero_grad()
        bits_per_dim.backward()
        for _, optimizer in self.optimizers:
            optimizer.step()
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        with torch.no_grad():  # or each average would remember all those before it
            torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return {"bits_per_dim": bits_per_dim.item(), "learning_rate": self.recipe.learning_rate * self.recipe.schedule(step)}

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizers": [optimizer.state_dict() for _, optimizer in self.optimizers],
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        for own, saved in zip(self.average, state["average"], strict=True):
            own.copy_(saved)
        for (_, optimizer), saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)

    def averaged_state(self) -> dict[str, Tensor]:
        """The averaged weights under the network's parameter names."""
        return dict(zip((name for name, _ in self.network.named_parameters()), self.average, strict=True))


def optimizers(network: Network, recipe: Recipe) -> list[tuple[float, torch.optim.Optimizer]]:
    """Those that together update a network, each with its highest learning rate."""
    turned = network.hidden_layers() if recipe.optimizer == "muon" else []
    directions = {layer.v for layer in turned}
    others = [p for p in network.parameters() if p not in directions]
    found = [(recipe.learning_rate, torch.optim.Adam(others, lr=recipe.learning_rate, betas=recipe.betas, fused=True))]
    if turned:
        dtype = torch.bfloat16 if recipe.bfloat16 else torch.float32
        found.append((recipe.muon_rate, Muon(turned, lr=recipe.muon_rate, dtype=dtype)))
    return found


def compile_network(network: Network) -> None:
    """Compile what pays: the whole network on a GPU, on a CPU only what lies between the convolutions.

    A CPU needs a C++ compiler for it; on two cores it made a training step 1.25 times as fast.
    """
    if next(network.parameters()).is_cuda:
        network.compile()
    else:
        network.use(Elementwise(*(torch.compile(f, dynamic=False) for f in (concat_elu, gate_and_activate))))


def train_density(
    data_set: str,
    *,
    images: int,
    name: str | None = None,
    filters: int | None = None,
    blocks: int | None = None,
    dropout: float | None = None,
    batch_size: int = 16,
    optimizer: str = "muon",
    learning_rate: float = 1e-3,
    muon_rate: float = 0.02,
    cooldown: float = 0.6,
    start: str | Path | None = None,
    bfloat16: bool = True,
    compiled: bool = False,
    seed: int = 1,
    device: torch.device | str = "cpu",
    folder: Path | None = None,
    weights: Path | None = None,
    force: bool = False,
    minutes: float | None = None,
    progress: bool = True,
) -> PixelCNN:
    """Train a PixelCNN on a data set's "train" split, score it on all test images, save it and return it.

    Under torchrun call it in a `distributed.process_group`: the processes share each batch, and rank 0 saves.

    A run that was stopped, or killed, goes on from the checkpoint in ``folder``; a finished one can be made longer: call
    again with more ``images`` after replacing ``checkpoint.pt`` by ``kept.pt``, the state before the cool-down.

    Args:
        images: how many training images to show it in all, with repetitions (an epoch of Fashion-MNIST is 55,000).
        name: its name among the shipped densities; ``None`` for the data set's.
        filters, blocks: size of the network; ``None`` for the paper's, or that of ``start``.
        dropout: ``None`` for that of ``start``, or 0. The authors train with 0.5 for hundreds of epochs; for a few epochs 0
            is better.
        optimizer: "muon", or the authors' "adam" alone; ``learning_rate`` is Adam's, ``muon_rate`` the other's.
        cooldown: fraction of the run, at its end, over which the learning rates fall to zero.
        start: go on from the weights of this density, a name or folder for `PixelCNN.from_pretrained`, instead of drawing
            them. The images it had seen are noted, but not among ``images``.
        compiled: see `compile_network`.
        folder: for checkpoint and log; ``None`` for one in ``runs``.
        weights: the folder to save to; ``None`` for the one among the repository's weights.
        force: replace weights that are there.
        minutes: stop after so many, with a checkpoint; ``None``: go on to the end.

    Raises:
        ValueError: an unknown data set, a bad size or one that ``start`` does not have, or a checkpoint made with other
            settings.
        FileExistsError: there are weights, or others' files, where these would be saved.
        InterruptedError: the run was told to stop (`loop.TimeIsUp`: its ``minutes`` were over); a checkpoint is kept.
        FloatingPointError: the training has diverged.
    """
    check_choice(data_set, DATA_SETS, name="data set")
    for key, value in (("images", images), ("batch_size", batch_size)):
        check_count(value, name=key)
    if not 0 <= cooldown <= 1:
        raise ValueError(f"cooldown must lie in 0..1, not {cooldown}")
    name = name or data_set
    folder = Path(folder) if folder else paths.RUNS / f"pixelcnn-{name}"
    steps = max(1, images // batch_size)
    weights = Path(weights).resolve() if weights else paths.WEIGHTS / "pixelcnn" / name
    check_replaceable(weights, force=force)
    before = _before(start)
    model = _beginning(data_set, filters, blocks, dropout, start)
    recipe = Recipe(steps=steps, cooldown_steps=round(cooldown * steps), optimizer=optimizer,
                    learning_rate=learning_rate, muon_rate=muon_rate, bfloat16=bfloat16, seed=seed,
                    start=fingerprint(model) if start else None)  # fmt: skip
    train, test = load_images(data_set, "train").images, load_images(data_set, "test").images
    job = DensityJob(model.network, train.to(device), recipe, compiled=compiled)
    plan = loop.Plan(len(train), batch_size, steps, seed=seed, keep_step=steps - recipe.cooldown_steps, minutes=minutes)
    loop.run_to_end(job, plan, folder, progress=progress)
    model.network.load_state_dict(job.averaged_state())
    settings = {"data_set": data_set, "training_images": len(train), "batch_size": batch_size, **recipe.settings(),
                "dropout": model.network.config.dropout}  # fmt: skip
    save_density(model, weights, run=folder, test=test, settings=settings, before=before, progress=progress)
    distributed.wait()
    return PixelCNN.from_pretrained(weights).to(device)


def _beginning(data_set: str, filters: int | None, blocks: int | None, dropout: float | None,
               start: str | Path | None) -> PixelCNN:  # fmt: skip
    """The density to train; that of ``start`` has its own size."""
    channels, height, width = shape = DATA_SETS[data_set].shape
    size = {"channels": channels, "height": height, "width": width, "filters": FILTERS[data_set], "blocks": BLOCKS,
            "dropout": 0.0}  # fmt: skip
    given = {name: value for name, value in (("filters", filters), ("blocks", blocks)) if value is not None}
    dropped = {} if dropout is None else {"dropout": dropout}
    if start is None:
        return PixelCNN(**size | given | dropped)
    begun = PixelCNN.from_pretrained(start)
    if begun.shape != shape:
        raise ValueError(f"the density {start} is for images of shape {begun.shape}, those of {data_set} have {shape}")
    own = begun.network.config.as_dict()
    for name, value in given.items():
        if value != own[name]:
            raise ValueError(f"the density {start} has {own[name]} {name}, not {value}")
    model = PixelCNN(**size | own | dropped)
    model.load_state_dict(begun.state_dict())
    return model


def _before(start: str | Path | None) -> dict:
    """What had gone into the weights that a run starts from, as far as their folder says it."""
    folder = shipped_folder(start) if start is not None else None
    if folder is None or not (folder / SCORES).is_file():
        return {}
    earlier = read_scores(folder)
    return {BEFORE: earlier["images_seen"] + earlier.get(BEFORE, 0),
            SECONDS_BEFORE: earlier["training_seconds"] + earlier.get(SECONDS_BEFORE, 0),
            EARLIER: [*earlier.get(EARLIER, []), {name: earlier[name] for name in OF_A_RUN if name in earlier}]}  # fmt: skip


def save_density(model: PixelCNN, weights: Path, *, run: Path, test: Tensor, settings: dict, before: dict | None = None,
                 progress: bool = False) -> None:
    """Write the density to ``weights`` in float16, with the run's log, its score on the ``test`` images and a model card.

    What is in that folder is replaced at the end, by all of it at once: scoring takes minutes, and may be interrupted.
    Under torchrun every process calls it: each scores a part of the images, and rank 0 writes. ``before``: what the scores
    say, beside this run's, of the runs that its weights had come from.

    Raises:
        ValueError: the weights do not fit into float16.
    """
    half = copy.deepcopy(model).half()
    if not all(value.isfinite().all() for value in half.state_dict().values()):
        raise ValueError("the weights do not fit into float16: the training has diverged")
    first = distributed.rank() == 0
    partial = weights.with_name(weights.name + ".partial")
    stage = partial / weights.name  # the model card is named after the folder
    if first:
        shutil.rmtree(partial, ignore_errors=True)
        stage.mkdir(parents=True)
        half.save_pretrained(stage)
        shutil.copyfile(run / loop.LOG, stage / LOG)
    distributed.wait()
    model = PixelCNN.from_pretrained(stage).to(model.device)
    part = test.tensor_split(distributed.world_size())[distributed.rank()]
    bits = torch.cat(distributed.gather(model.bits_per_dim(part, progress=progress and first).cpu()))
    if not first:
        return
    state = loop.load_checkpoint(run / loop.CHECKPOINT)
    calls = state.get("calls", [])  # checkpoints from before these were noted have none
    scores = {
        "test_images": len(test),
        "test_bits_per_dim": round(bits.mean().item(), 4),
        "test_bits_per_dim_std": round(bits.std().item(), 4),
        "scored_in": "float32",
        "stored_as": "float16",
        "images_seen": state["step"] * settings["batch_size"],
        "training_seconds": round(state["seconds"], 1),
        "fingerprint": fingerprint(model),
        **(before or {}),
        "settings": settings | (calls[-1] if calls else {}),
        **({CALLS: calls} if len(calls) > 1 else {}),
    }
    (stage / SCORES).write_text(json.dumps(scores, indent=2) + "\n")
    describe(stage, device=model.device, progress=progress)
    paths.replace_folder(stage, weights)
    partial.rmdir()

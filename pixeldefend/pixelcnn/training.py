"""Training a PixelCNN by maximum likelihood on clean images (the paper, section 2.3; the recipe from the authors' code).

As the authors: Adam with betas (0.95, 0.9995) and a learning rate of 1e-3 times 0.999995 per step, dropout, data-dependent
initialisation on the first 100 training images, and an exponential moving average of the weights (0.9995), which is what
is evaluated and shipped. The paper and its code give neither the number of epochs nor a criterion to stop. Added here,
for runs far shorter than theirs: a warm-up of the learning rate and of the average, and a cool-down of the learning rate
to zero over the last part of the run; the checkpoint before the cool-down is kept, so that a longer run can branch off.
"""

import math
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from ..checks import check_images
from .layers import Elementwise, concat_elu, gate_and_activate
from .logistic import observed_log_probs, scale_levels
from .network import Network, initialise_from_data


@dataclass(frozen=True)
class Recipe:
    """How a PixelCNN is trained. ``steps`` and ``cooldown_steps`` may change when a run is resumed, nothing else may."""

    steps: int
    cooldown_steps: int = 0
    learning_rate: float = 1e-3
    decay: float = 0.999995  # of the learning rate, per step
    warmup_steps: int = 200
    betas: tuple[float, float] = (0.95, 0.9995)
    ema: float = 0.9995
    initial_images: int = 100  # for the data-dependent initialisation
    bfloat16: bool = True  # autocast; weights, their average and the likelihood stay float32
    seed: int = 1

    def __post_init__(self):
        if not 0 <= self.cooldown_steps <= self.steps:
            raise ValueError(f"cooldown_steps must lie in 0..{self.steps} (steps), not {self.cooldown_steps}")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate must be positive, not {self.learning_rate}")

    def learning_rate_at(self, step: int) -> float:
        """The learning rate of the update that follows ``step`` earlier ones."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        cooldown = min(1.0, (self.steps - step) / max(1, self.cooldown_steps))
        return self.learning_rate * self.decay**step * warmup * cooldown

    def settings(self) -> dict:
        """What must stay the same when a run is resumed."""
        values = asdict(self)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items() if k not in ("steps", "cooldown_steps")}


class DensityJob:
    """A `loop.Job` that trains ``network`` on ``images`` (uint8, (N, C, H, W))."""

    def __init__(self, network: Network, images: Tensor, recipe: Recipe, *, compiled: bool = False):
        check_images(images, channels=network.config.channels)
        self.recipe, self.images = recipe, images
        self.device = images.device
        self.settings = {**network.config.as_dict(), **recipe.settings()}
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        network.reset_parameters(torch.Generator().manual_seed(recipe.seed))
        with torch.random.fork_rng():
            torch.manual_seed(recipe.seed)
            initialise_from_data(network, scale_levels(images[: recipe.initial_images]))
        self.parameters = list(network.parameters())
        self.average = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.Adam(
            self.parameters, lr=recipe.learning_rate, betas=recipe.betas, fused=True
        )
        if compiled:
            compile_network(network)

    def step(self, index: Tensor, step: int) -> dict[str, float]:
        images = self.images[index.to(self.device)]
        rate = self.recipe.learning_rate_at(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        x = scale_levels(images).contiguous(memory_format=torch.channels_last)
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.recipe.bfloat16):
            parameters = self.network(x)
        bits_per_dim = -observed_log_probs(parameters, images).mean() / math.log(2)
        self.optimizer.zero_grad()
        bits_per_dim.backward()
        self.optimizer.step()
        decay = min(self.recipe.ema, (1 + step) / (10 + step))
        torch._foreach_lerp_(self.average, self.parameters, 1 - decay)
        return {"bits_per_dim": bits_per_dim.item(), "learning_rate": rate}

    def state_dict(self) -> dict:
        return {
            "network": self.network.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        for own, saved in zip(self.average, state["average"], strict=True):
            own.copy_(saved)
        self.optimizer.load_state_dict(state["optimizer"])

    def averaged_state(self) -> dict[str, Tensor]:
        """The averaged weights under the network's parameter names."""
        return dict(zip((name for name, _ in self.network.named_parameters()), self.average, strict=True))


def compile_network(network: Network) -> None:
    """Compile what pays: the whole network on a GPU, on a CPU only what lies between the convolutions.

    A CPU needs a C++ compiler for it; on two cores it made a training step 1.25 times as fast.
    """
    if next(network.parameters()).is_cuda:
        network.compile()
    else:
        network.use(Elementwise(torch.compile(concat_elu, dynamic=False), torch.compile(gate_and_activate, dynamic=False)))

"""`PixelCNN`: the trained density as the rest of the package, and its readers, use it."""

import json
import math
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import Tensor, nn
from tqdm import tqdm

from .. import paths
from ..checks import check_count, check_eval_mode, check_generator, check_images
from .incremental import Choose, decode
from .logistic import (
    LEVELS,
    all_log_probs,
    condition_on_channels,
    level_log_probs,
    observed_log_probs,
    scale_levels,
    split_parameters,
)
from .network import Network, PixelCNNConfig

with warnings.catch_warnings():
    # in a notebook it warns that ipywidgets is missing, for progress bars of downloads that do not happen here
    warnings.simplefilter("ignore")
    from huggingface_hub import PyTorchModelHubMixin

WEIGHTS_FILE = "model.safetensors"
PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LogProbs = Callable[[Tensor], Tensor]
Pick = Callable[[LogProbs, slice, int, int, int], Tensor]
SCORING_CHUNK = 32  # images a forward pass; larger chunks fall out of a CPU's caches and are slower


def shipped_densities() -> list[str]:
    """Names of the densities that come with the repository, for `PixelCNN.from_pretrained`."""
    return sorted(folder.parent.name for folder in (paths.WEIGHTS / "pixelcnn").glob("*/config.json"))


class PixelCNN(nn.Module, PyTorchModelHubMixin):
    """A PixelCNN++ with a 256-way distribution per sub-pixel (the paper, section 2.3; see `network` and `logistic`).

    Args:
        channels: 1 or 3.
        height, width: size of the images it was trained on, multiples of 4; samples have this size.
        filters, blocks, mixtures, dropout: see `PixelCNNConfig`.

    Images go in and come out as uint8 (N, C, H, W), on any device; the work is done where the weights are.
    ``precision`` is that of the network's arithmetic, "float32" or "bfloat16"; probabilities are float32 throughout.
    """

    SIZES = ("channels", "height", "width", "filters", "blocks", "mixtures", "dropout")  # what config.json holds

    def __init__(self, *, channels: int, height: int, width: int, filters: int = 160, blocks: int = 5,
                 mixtures: int = 10, dropout: float = 0.5):
        super().__init__()
        for name, value in (("height", height), ("width", width)):
            if value < 4 or value % 4:
                raise ValueError(f"{name} must be a positive multiple of 4, not {value}")
        self.network = Network(PixelCNNConfig(channels, filters, blocks, mixtures, dropout))
        self.network.reset_parameters(torch.Generator().manual_seed(0))
        self.shape = (channels, height, width)
        self.eval()

    @property
    def device(self) -> torch.device:
        return self.network.head.b.device

    def log_likelihood(self, images: Tensor, *, precision: str = "float32", progress: bool = False) -> Tensor:
        """log p(X) of each image in nats, float32 (N,): equation of section 2.3, all positions in parallel.

        Raises:
            TypeError, ValueError: other than uint8 images of the model's channels and sizes that are multiples of 4, an
                unknown precision, or a model in training mode.
        """
        out = torch.empty(len(images) if isinstance(images, Tensor) else 0)
        for start, chunk, parameters in self._forward(images, precision, progress):
            out[start : start + len(chunk)] = observed_log_probs(parameters, chunk).double().sum((1, 2, 3)).float().cpu()
        return out.to(images.device)

    def bits_per_dim(self, images: Tensor, *, precision: str = "float32", progress: bool = False) -> Tensor:
        """Bits per dimension, -log p(X) / (C H W log 2), float32 (N,), section 2.3. Raises as `log_likelihood`."""
        nats = self.log_likelihood(images, precision=precision, progress=progress)
        return -nats / (math.prod(images.shape[1:]) * math.log(2))

    def conditional_log_probs(self, images: Tensor, *, precision: str = "float32") -> Tensor:
        """log p(x_i = z | earlier sub-pixels of the image) for all levels z: float32 (N, C, H, W, 256), nats.

        A thousand Fashion-MNIST images take 0.8 GB. Raises as `log_likelihood`.
        """
        parts = [all_log_probs(p, chunk).to(images.device) for _, chunk, p in self._forward(images, precision, False)]
        return torch.cat(parts) if parts else torch.empty(*images.shape, LEVELS, device=images.device)

    def sample(self, n: int, *, generator: torch.Generator, precision: str = "float32", batch_size: int = 256,
               progress: bool = False) -> Tensor:
        """Draw ``n`` images, uint8 (n, C, H, W), pixel by pixel. The same generator state gives the same images.

        Raises:
            TypeError, ValueError: ``n`` or ``batch_size`` below 1, no generator, or a model in training mode.
        """
        check_count(n, name="n")
        check_generator(generator)

        every = torch.arange(LEVELS, device=self.device)

        def draw(log_probs: LogProbs, *position) -> Tensor:
            cumulative = log_probs(every).exp().cumsum(-1)
            u = torch.rand(len(cumulative), 1, generator=generator, device=generator.device).to(cumulative.device)
            return (cumulative < u).sum(-1).clamp(max=LEVELS - 1)

        canvas = torch.zeros(n, *self.shape, dtype=torch.uint8, device=self.device)
        return self.decode(canvas, draw, precision=precision, batch_size=batch_size, progress=progress)

    def decode(self, canvas: Tensor, pick: Pick, *, precision: str = "float32", batch_size: int = 256,
               progress: bool = False) -> Tensor:
        """Choose every sub-pixel in raster order, channel by channel, each given those chosen before: a new canvas.

        Args:
            canvas: uint8 (N, C, H, W); says how many images are decoded and of what size.
            pick: ``pick(log_probs, rows, k, i, j)`` gives the levels, (B,), of channel k of pixel (i, j) for the images
                ``rows`` (a slice). ``log_probs(levels)`` are the log-probabilities, (B, L), of levels that run upwards
                by one, (L,) or (B, L).

        Raises as `log_likelihood`.
        """
        check_eval_mode(self, name="the PixelCNN")
        check_images(canvas, channels=self.shape[0])
        check_count(batch_size, name="batch_size")
        self._check_size(canvas)
        dtype = _dtype(precision)
        canvas = canvas.to(self.device, copy=True)
        total = len(range(0, len(canvas), batch_size)) * canvas.shape[2]
        with tqdm(total=total, unit="row", disable=None if progress else True) as bar:
            for start in range(0, len(canvas), batch_size):
                rows = slice(start, min(start + batch_size, len(canvas)))
                choose = _pixel_chooser(canvas.shape[1], pick, rows)
                decode(self.network, canvas[rows], choose, dtype=dtype, on_row=bar.update)
        return canvas

    def _forward(self, images: Tensor, precision: str, progress: bool) -> Iterator[tuple[int, Tensor, Tensor]]:
        """The network's numbers, chunk by chunk: (start, images of the chunk, parameters), on the model's device."""
        check_eval_mode(self, name="the PixelCNN")
        check_images(images, channels=self.shape[0])
        self._check_size(images)
        dtype = _dtype(precision)
        with torch.no_grad(), tqdm(total=len(images), unit="image", disable=None if progress else True) as bar:
            for start in range(0, len(images), SCORING_CHUNK):
                chunk = images[start : start + SCORING_CHUNK].to(self.device)
                x = scale_levels(chunk).contiguous(memory_format=torch.channels_last)
                with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                    parameters = self.network(x)
                yield start, chunk, parameters.float()
                bar.update(len(chunk))

    @staticmethod
    def _check_size(images: Tensor) -> None:
        if not images.shape[2] or not images.shape[3] or images.shape[2] % 4 or images.shape[3] % 4:
            raise ValueError(f"height and width must be multiples of 4, not {images.shape[2]} x {images.shape[3]}")

    @classmethod
    def from_pretrained(cls, name: str | Path, **options) -> "PixelCNN":
        """Load a density: a name in ``data/weights/pixelcnn`` such as "fashion-mnist", or a folder; eval mode, float32.

        ``options`` go to huggingface_hub's mixin, for densities on a hub ("owner/name").

        Raises:
            ValueError: an unknown name (the message lists those that exist), or a damaged weights file.
            FileNotFoundError: a folder without its configuration or weights.
        """
        shipped = paths.WEIGHTS / "pixelcnn" / str(name)
        folder = shipped if str(name) in shipped_densities() else Path(name)
        if not folder.is_dir() and (isinstance(name, Path) or "/" not in name):
            known = ", ".join(shipped_densities()) or "none"
            raise ValueError(f"no density {str(name)!r}: give a folder or one of those shipped: {known}")
        if folder.is_dir():
            for file in ("config.json", WEIGHTS_FILE):
                if not (folder / file).is_file():
                    raise FileNotFoundError(f"{folder / file} is missing; restore the whole folder {folder.name}")
        try:
            return super().from_pretrained(str(folder) if folder.is_dir() else name, **options).eval()
        except (SafetensorError, RuntimeError, json.JSONDecodeError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise ValueError(f"{folder / WEIGHTS_FILE} or its config.json is damaged ({reason}); restore it") from error

    @classmethod
    def _from_pretrained(cls, *, model_id: str, map_location: str = "cpu", strict: bool = False, **options) -> "PixelCNN":
        """The mixin's hook, which for a local folder would print a line."""
        if not Path(model_id).is_dir():
            return super()._from_pretrained(model_id=model_id, map_location=map_location, strict=strict, **options)
        sizes = {key: value for key, value in options.items() if key in cls.SIZES}
        model = cls(**sizes).to(map_location)
        load_model(model, Path(model_id) / WEIGHTS_FILE, strict=True)
        return model


def _dtype(precision: str) -> torch.dtype:
    if precision not in PRECISIONS:
        raise ValueError(f"unknown precision {precision!r}; choose one of: {', '.join(PRECISIONS)}")
    return PRECISIONS[precision]


def _pixel_chooser(channels: int, pick: Pick, rows: slice) -> Choose:
    """Decode the channels of one pixel in order R, G, B; the network is not asked again between them."""

    def choose(parameters: Tensor, i: int, j: int) -> Tensor:
        mixture = split_parameters(parameters, channels)
        chosen = torch.zeros(len(parameters), channels, dtype=torch.uint8, device=parameters.device)
        for k in range(channels):
            means = condition_on_channels(mixture, scale_levels(chosen))[:, k]
            log_probs = partial(level_log_probs, mixture.log_weights, means, mixture.log_scales[:, k])
            chosen[:, k] = pick(log_probs, rows, k, i, j).to(torch.uint8)
        return chosen

    return choose

"""`PixelCNN`: the trained density as the rest of the package, and its readers, use it."""

import json
import math
import re
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import paths
from ..checks import check_count, check_eval_mode, check_generator, check_images
from ..hub import PyTorchModelHubMixin, snapshot_download
from ..weights import (
    CONFIG,
    MAX_PIECE_SIZE,
    RESTORE,
    WEIGHT_FILES,
    check_config,
    load_weights,
    one_line,
    save_weights,
    write_checksums,
)
from .incremental import Choose, Decoder, bytes_per_image
from .logistic import (
    LEVELS,
    Room,
    all_log_probs,
    condition_on_channels,
    level_log_probs,
    observed_log_probs,
    scale_levels,
    split_parameters,
)
from .network import Network, PixelCNNConfig
from .pieces import work_through
from .precision import dtype_of, full_products

LogProbs = Callable[[Tensor, int], Tensor]
Pick = Callable[..., Tensor]
# images computed together on each CPU thread, and on a GPU
SCORING_CHUNK = 32, 1024  # larger chunks fall out of a CPU's caches and are slower
LEVELS_CHUNK = 2, 32  # for all levels of every sub-pixel: working on an image of CIFAR-10 takes 95 MB
DECODING_BATCH = 512, 4096
DECODING_MEMORY = 4 * 2**30  # bytes, on all threads of a CPU together: a batch is smaller where they are many
SMALLEST_BATCH = 80  # on several threads; with fewer they spend their time waiting for Python
NOT_TRAINED = {"cifar10": "It takes a GPU to train, as README.md says; until then there is cifar10-small"}
ON_A_HUB = re.compile(r"\w[\w.-]*/\w[\w.-]*")  # "owner/name"; every other name with a slash is a path


def shipped_densities() -> list[str]:
    """Names of the densities that come with the repository, for `PixelCNN.from_pretrained`."""
    return sorted(folder.parent.name for folder in (paths.WEIGHTS / "pixelcnn").glob(f"*/{CONFIG}"))


def shipped_folder(name: str | Path) -> Path:
    """The folder of a density: that of a string if it is a shipped one's name, else the one that is given."""
    return paths.WEIGHTS / "pixelcnn" / name if isinstance(name, str) and name in shipped_densities() else Path(name)


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

        def score(chunk: Tensor, parameters: Tensor) -> Tensor:
            return observed_log_probs(parameters, chunk).double().sum((1, 2, 3)).float()

        return self._in_parallel(images, score, (), precision, progress)

    def bits_per_dim(self, images: Tensor, *, precision: str = "float32", progress: bool = False) -> Tensor:
        """Bits per dimension, -log p(X) / (C H W log 2), float32 (N,), section 2.3. Raises as `log_likelihood`."""
        nats = self.log_likelihood(images, precision=precision, progress=progress)
        return -nats / (math.prod(images.shape[1:]) * math.log(2))

    def conditional_log_probs(self, images: Tensor, *, precision: str = "float32") -> Tensor:
        """log p(x_i = z | earlier sub-pixels of the image) for all levels z: float32 (N, C, H, W, 256), nats.

        A thousand Fashion-MNIST images take 0.8 GB. Raises as `log_likelihood`.
        """

        def all_levels(chunk: Tensor, parameters: Tensor) -> Tensor:
            return all_log_probs(parameters, chunk)

        shape = (*images.shape[1:], LEVELS) if isinstance(images, Tensor) else ()
        return self._in_parallel(images, all_levels, shape, precision, False, LEVELS_CHUNK)

    def sample(self, n: int, *, generator: torch.Generator, precision: str = "float32", batch_size: int | None = None,
               progress: bool = False) -> Tensor:  # fmt: skip
        """Draw ``n`` images, uint8 (n, C, H, W), pixel by pixel. The same generator state gives the same images.

        Raises:
            TypeError, ValueError: ``n`` or ``batch_size`` below 1, no generator, or a model in training mode.
        """
        check_count(n, name="n")
        check_generator(generator)

        def draw(log_probs: LogProbs, uniform: Tensor) -> Tensor:
            cumulative = log_probs(torch.zeros_like(uniform), LEVELS).exp().cumsum(0)
            return (cumulative < uniform).sum(0).clamp(max=LEVELS - 1)

        uniform = torch.rand(n, *self.shape, generator=generator, device=generator.device).to(self.device)
        return self.decode(draw, uniform, precision=precision, batch_size=batch_size, progress=progress)

    @torch.inference_mode(False)  # its threads would not be in the caller's inference mode, but write to its tensors
    def decode(self, pick: Pick, *given: Tensor, precision: str = "float32", batch_size: int | None = None,
               progress: bool = False) -> Tensor:  # fmt: skip
        """Choose every sub-pixel in raster order, channel by channel, each given those chosen before: uint8 (N, C, H, W).

        Args:
            pick: ``pick(log_probs, *values)`` gives the levels, (B,), of one sub-pixel of B images.
                ``log_probs(first, count)`` are the log-probabilities, (count, B), of the levels from ``first``, (B,), on;
                ``values`` are those of ``given`` for the sub-pixel, each (B,). It must only compute: on a GPU it is
                recorded and replayed.
            given: at least one tensor (N, C, H, W), any dtype; says how many images are decoded and of what size.
            batch_size: images decoded together, on each CPU thread; memory grows with it. ``None`` for a good one, on a
                CPU fewer where many threads together would need more than 4 GiB.

        Raises as `log_likelihood`.
        """
        check_eval_mode(self, name="the PixelCNN")
        if not given:
            raise ValueError("decode needs at least one tensor (N, C, H, W), to know how many images and of what size")
        shape = given[0].shape
        if any(value.shape != shape for value in given) or len(shape) != 4 or shape[1] != self.shape[0]:
            shapes = ", ".join(str(tuple(value.shape)) for value in given)
            raise ValueError(f"decode needs tensors of one shape (N, {self.shape[0]}, H, W), not {shapes}")
        self._check_size(given[0])
        dtype = dtype_of(precision)
        if batch_size is None:
            batch_size = self._decoding_batch(shape, dtype)
        check_count(batch_size, name="batch_size")
        out = torch.empty(shape, dtype=torch.uint8, device="cpu")
        decoders = threading.local()  # one per thread; all pieces are of one size, but for those that memory was short for

        def work(rows: slice, step: Callable[[], None]) -> Tensor:
            batch = rows.stop - rows.start
            if getattr(decoders, "batch", None) != batch:
                decoders.decoder = decoders.batch = None  # gives its memory back first
                decoders.decoder = Decoder(self.network, pixel_chooser(shape[1], pick), batch=batch, height=shape[2],
                                           width=shape[3], dtype=dtype)  # fmt: skip
                decoders.batch = batch
            return decoders.decoder.run([value[rows].to(self.device) for value in given], step).cpu()

        work_through(len(out), batch_size, work, device=self.device, out=out, smallest=SMALLEST_BATCH, steps=shape[2],
                     unit="row", progress=progress)  # fmt: skip
        return out.to(given[0].device)

    def _decoding_batch(self, shape: torch.Size, dtype: torch.dtype) -> int:
        """How many images, of N of a shape (N, C, H, W), to decode together, on each CPU thread, unless the caller says."""
        on_cpu, on_gpu = DECODING_BATCH
        if self.device.type == "cuda":
            return on_gpu
        if shape[0] <= on_cpu:  # they need no more on many threads than on one
            return on_cpu
        fitting = DECODING_MEMORY // (torch.get_num_threads() * bytes_per_image(self.network.config, shape[3], dtype))
        return max(1, min(on_cpu, fitting))

    @torch.inference_mode(False)  # as `decode`
    def _in_parallel(self, images: Tensor, function: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, ...],
                     precision: str, progress: bool, chunk_sizes: tuple[int, int] = SCORING_CHUNK) -> Tensor:  # fmt: skip
        """``function(images, parameters)`` of chunks and the network's numbers for them, float32: (N, *shape)."""
        check_eval_mode(self, name="the PixelCNN")
        check_images(images, channels=self.shape[0])
        self._check_size(images)
        dtype = dtype_of(precision)
        out = torch.empty(len(images), *shape, device="cpu")

        @torch.no_grad()
        def work(rows: slice, step: Callable[[], None]) -> Tensor:
            chunk = images[rows].to(self.device)
            x = scale_levels(chunk).contiguous(memory_format=torch.channels_last)
            with full_products(self.device):
                with torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32):
                    parameters = self.network(x)
                found = function(chunk, parameters.float()).cpu()
            step()
            return found

        size = chunk_sizes[self.device.type == "cuda"]
        work_through(len(images), size, work, device=self.device, out=out, unit="chunk", progress=progress)
        return out.to(images.device)

    @staticmethod
    def _check_size(images: Tensor) -> None:
        if not images.shape[2] or not images.shape[3] or images.shape[2] % 4 or images.shape[3] % 4:
            raise ValueError(f"height and width must be multiples of 4, not {images.shape[2]} x {images.shape[3]}")

    def save_pretrained(self, save_directory: str | Path, *, max_piece_size: int = MAX_PIECE_SIZE, **options) -> str | None:
        """Write configuration and weights, in the types that they have, for `from_pretrained`.

        ``max_piece_size``, bytes, limits the files that the weights are in (`pixeldefend.weights` describes the folder);
        ``options`` go to huggingface_hub's mixin.
        """
        save_weights(self.state_dict(), Path(save_directory), max_piece_size=max_piece_size)
        return super().save_pretrained(save_directory, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        """The mixin's hook, which takes no options: `save_pretrained` has written the weights. The configuration, which the
        mixin would write after this, is written here, so that it has its hash beside theirs."""
        sizes = self.network.config.as_dict() | dict(zip(self.SIZES, self.shape, strict=False))
        (save_directory / CONFIG).write_text(json.dumps(sizes, indent=2, sort_keys=True))
        write_checksums(save_directory)

    @classmethod
    def from_pretrained(cls, name: str | Path, *, device: torch.device | str = "cpu", revision: str | None = None,
                        cache_dir: str | Path | None = None, force_download: bool = False, local_files_only: bool = False,
                        token: str | bool | None = None) -> "PixelCNN":  # fmt: skip
        """Load a density: a name in ``data/weights/pixelcnn`` such as "fashion-mnist", or a folder; eval mode, float32.

        Any other string "owner/name" is asked for on a Hugging Face hub, for which the options after ``device`` are: see
        ``huggingface_hub.snapshot_download``. The weights are compared with their SHA-256 hashes.

        Raises:
            ValueError: no such folder or name (the message lists those shipped), nothing of that name on the hub, or no hub
                to be reached, or a damaged or foreign file.
            FileNotFoundError: a folder without its configuration, a piece of its weights, or their hashes.
        """
        folder = shipped_folder(name)
        if folder.is_dir():
            check_config(folder)
        elif not (isinstance(name, str) and ON_A_HUB.fullmatch(name)):
            known = ", ".join(shipped_densities()) or "none"
            known += f". {NOT_TRAINED[name]}" if name in NOT_TRAINED else ""
            raise ValueError(f"no such folder, and no shipped density of that name: {str(name)!r}; shipped are: {known}")
        try:
            model = super().from_pretrained(
                str(folder), revision=revision, cache_dir=cache_dir, force_download=force_download,
                local_files_only=local_files_only, token=token,
            )  # fmt: skip
        except (json.JSONDecodeError, UnicodeDecodeError, AttributeError, TypeError) as error:
            raise ValueError(f"{folder / CONFIG} is damaged ({one_line(error)}); {RESTORE}") from error
        except OSError as error:
            if folder.is_dir():
                raise
            raise ValueError(f"there is no folder {name}, nor can it be had from a hub: {one_line(error)}") from error
        return model.to(device).eval()

    @classmethod
    def _from_pretrained(cls, *, model_id: str, revision: str | None, cache_dir: str | Path | None, force_download: bool,
                         local_files_only: bool, token: str | bool | None, **config) -> "PixelCNN":  # fmt: skip
        """The mixin's hook. Its own reads one file, prints a line, and on a hub would take a pickle."""
        folder = Path(model_id)
        if not folder.is_dir():
            folder = Path(snapshot_download(
                model_id, revision=revision, cache_dir=cache_dir, force_download=force_download, token=token,
                local_files_only=local_files_only, allow_patterns=[*WEIGHT_FILES, CONFIG],
            ))  # fmt: skip
            check_config(folder)
        try:
            with torch.device("cpu"):  # whatever torch's default is
                model = cls(**{key: value for key, value in config.items() if key in cls.SIZES})
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG} is damaged or of another network ({one_line(error)}); {RESTORE}") from error
        load_weights(model, folder)
        return model


def pixel_chooser(channels: int, pick: Pick) -> Choose:
    """Decode the channels of one pixel in order R, G, B; the network is not asked again between them."""

    room = Room()

    def choose(parameters: Tensor, *given: Tensor) -> Tensor:
        mixture = split_parameters(parameters, channels)
        chosen = torch.zeros(len(parameters), channels, dtype=torch.uint8, device=parameters.device)
        for k in range(channels):
            means = condition_on_channels(mixture, scale_levels(chosen))[:, k]
            log_probs = partial(level_log_probs, mixture.log_weights, means, mixture.log_scales[:, k], room=room)
            chosen[:, k] = pick(log_probs, *(value[:, k] for value in given))
        return chosen

    return choose

"""What the density costs: scoring, purifying, sampling and training, measured in one run and written as a record.

The unit is the *forward pass*: the network alone on the same number of images, in the best of the parallel forms that were
tried, at the same precision. Every time is the best of several, as a machine that others share is slower now and then but
never faster.
"""

import copy
import itertools
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from .. import paths
from ..defenses import PixelDefend
from ..defenses.purification import most_likely_within
from ..fingerprint import fingerprint
from ..pixelcnn import PixelCNN
from ..pixelcnn.incremental import Decoder, bytes_per_image
from ..pixelcnn.layers import Elementwise, concat_elu, gate_and_activate
from ..pixelcnn.logistic import scale_levels
from ..pixelcnn.model import pixel_chooser
from ..pixelcnn.network import Network
from ..pixelcnn.pieces import work_through
from ..pixelcnn.precision import PRECISIONS, full_products
from ..pixelcnn.training import DensityJob, Recipe, compile_network
from .store import machine

CHUNKS = {"cpu": (8, 32, 128), "cuda": (128, 512, 1024)}  # images a forward pass
TRAINING_BATCH = {"cpu": 16, "cuda": 128}
FORMATS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}
PRODUCTS = ("aten::addmm", "aten::addmm_", "aten::baddbmm", "aten::baddbmm_", "aten::mm", "aten::bmm")
OVERHEAD = ("aten::as_strided", "aten::select", "aten::slice", "aten::expand", "aten::unbind", "aten::empty",
            "aten::view", "aten::t", "aten::transpose", "aten::permute", "aten::resolve_conj")  # fmt: skip


def speed_path(density: str, device: torch.device) -> Path:
    """Where the record of a density on a kind of device lies."""
    kind = "cpu" if device.type == "cpu" else torch.cuda.get_device_name(device).lower().replace(" ", "-")
    return paths.RECORDS / "speed" / f"{density}-{kind}.json"


def measure(density: PixelCNN, images: Tensor, *, name: str, eps_defend: int, batches: tuple[int, ...],
            naive_images: int = 2, repeats: int = 3, compiled: bool = False, report: Callable[[str], None] = print,
            ) -> dict:  # fmt: skip
    """Measure everything; the content of a record.

    Args:
        images: uint8 (N, C, H, W), N at least the largest of ``batches``.
        eps_defend: of the purifications, in colour levels.
        batches: images purified in one call, one measurement each, at both precisions.
        naive_images: how many images the naive algorithm purifies, for comparison; 0 leaves it out.
        repeats: how often each time is taken.
        compiled: also try the network with its element-wise parts compiled (needs a C++ compiler on a CPU).
        report: called with a line of text for every result.

    Raises ``ValueError`` for too few images.
    """
    if len(images) < max(batches):
        raise ValueError(f"{max(batches)} images are needed for the largest batch, not {len(images)}")
    bench = _Bench(density, images.to(density.device), eps_defend, repeats, report)
    started = time.perf_counter()
    content = {"density": name, "fingerprint": fingerprint(density), "eps_defend": eps_defend, "shape": list(density.shape)}
    content["machine"] = machine(density.device)
    content["flops_per_image"] = flops(density.network, images[:1].to(density.device))
    content["matrix_rate"] = {p: bench.matrix_rate(dtype) for p, dtype in PRECISIONS.items()}
    content["forward"] = bench.forward_forms(compiled)
    content["score"] = [bench.score(p) for p in PRECISIONS]
    content["purify"] = [bench.purify(p, batch) for p, batch in itertools.product(PRECISIONS, batches)]
    content["sample"] = [bench.sample(p, min(256, len(images))) for p in PRECISIONS]
    content["naive"] = bench.naive(naive_images) if naive_images else None
    content["bfloat16"] = bench.change_by_bfloat16()
    content["memory_per_image"] = {p: bench.memory(dtype) for p, dtype in PRECISIONS.items()}
    content["profile"] = {p: bench.profile(dtype) for p, dtype in PRECISIONS.items()}
    content["training"] = bench.training_forms(compiled)
    content["seconds"] = round(time.perf_counter() - started, 1)
    return content


def flops(network: Network, images: Tensor) -> int:
    """Floating-point operations of one forward pass on one image: two for each product and sum of a convolution."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(scale_levels(images))
    return counter.get_total_flops() // len(images)


def best_forward(content: dict, precision: str) -> dict:
    """The fastest of the parallel forms of a record."""
    return max((f for f in content["forward"] if f["precision"] == precision), key=lambda f: f["images_per_second"])


class _Bench:
    def __init__(self, density: PixelCNN, images: Tensor, eps_defend: int, repeats: int, report: Callable):
        self.density, self.images, self.eps_defend = density, images, eps_defend
        self.repeats, self.report, self.device = repeats, report, density.device
        self.pass_seconds: dict[str, float] = {}  # of the best parallel form, per image

    def seconds(self, function: Callable[[], object]) -> float:
        """The best time of several calls; of a single one if it takes ten seconds."""
        times = [self._once(function)]
        while len(times) < self.repeats and times[0] < 10:
            times.append(self._once(function))
        return min(times)

    def _once(self, function: Callable[[], object]) -> float:
        self._wait()
        started = time.perf_counter()
        function()
        self._wait()
        return time.perf_counter() - started

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def result(self, task: str, precision: str, count: int, seconds: float, **more) -> dict:
        entry = {"precision": precision, **more, "images": count, "seconds": round(seconds, 4)}
        entry["images_per_second"] = round(count / seconds, 4)
        if precision in self.pass_seconds:
            entry["forward_passes"] = round(seconds / count / self.pass_seconds[precision], 3)
        described = ", ".join(f"{key} {value}" for key, value in entry.items())
        self.report(f"{task}: {described}")
        return entry

    def matrix_rate(self, dtype: torch.dtype) -> float:
        """Operations a second in large square matrix products."""
        size = 8192 if self.device.type == "cuda" else 1024
        a, b = (torch.randn(size, size, device=self.device).to(dtype) for _ in range(2))
        with full_products(self.device):
            rate = 2 * size**3 / self.seconds(lambda: torch.mm(a, b))
        self.report(f"matrix products, {dtype}: {rate / 1e9:.0f} GFLOP/s")
        return rate

    def forward_forms(self, compiled: bool) -> list[dict]:
        """The network alone, in every parallel form; with ``compiled`` the best ones compiled as well."""
        found = []
        for chunk, layout, precision in itertools.product(CHUNKS[self.device.type], FORMATS, PRECISIONS):
            found.append(self._form(self.density.network, chunk, layout, precision, compiled=False))
        for precision in PRECISIONS if compiled else ():
            best = best_forward({"forward": found}, precision)
            form = best["chunk"], best["layout"], precision
            found.append(self._form(_compiled(self.density), *form, compiled=True))
        for precision in PRECISIONS:
            self.pass_seconds[precision] = 1 / best_forward({"forward": found}, precision)["images_per_second"]
        return found

    def _form(self, network: nn.Module, chunk: int, layout: str, precision: str, *, compiled: bool) -> dict:
        images = self.images[: max(2 * chunk, 64)]
        run = self._forward(network, images, chunk, FORMATS[layout], PRECISIONS[precision])
        if compiled:
            run()
        return self.result("forward pass", precision, len(images), self.seconds(run), chunk=chunk, layout=layout,
                           compiled=compiled)  # fmt: skip

    def _forward(self, network: nn.Module, images: Tensor, chunk: int, layout: torch.memory_format, dtype: torch.dtype):
        @torch.no_grad()
        def work(rows: slice, step: Callable[[], None]) -> None:
            x = scale_levels(images[rows]).contiguous(memory_format=layout)
            autocast = torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32)
            patch = torch._dynamo.config.patch(recompile_limit=64)  # each layout and thread counts as one
            with full_products(self.device), autocast, patch:
                network(x)

        return lambda: work_through(len(images), chunk, work, device=self.device)

    def score(self, precision: str) -> dict:
        images = self.images[:256]
        seconds = self.seconds(lambda: self.density.bits_per_dim(images, precision=precision))
        return self.result("score", precision, len(images), seconds)

    def purify(self, precision: str, batch: int) -> dict:
        purify = PixelDefend(self.density, eps_defend=self.eps_defend, precision=precision)
        seconds = self.seconds(lambda: purify(self.images[:batch]))
        return self.result("purify", precision, batch, seconds)

    def sample(self, precision: str, count: int) -> dict:
        generator = torch.Generator().manual_seed(0)
        seconds = self.seconds(lambda: self.density.sample(count, generator=generator, precision=precision))
        return self.result("sample", precision, count, seconds)

    def naive(self, count: int) -> dict:
        """Algorithm 1 with a forward pass for every pixel, in float32, and how many sub-pixels come out otherwise."""
        images = self.images[:count]
        purified = []
        seconds = self._once(lambda: purified.append(purify_naively(self.density, images, self.eps_defend)))
        differ = (purified[0] != PixelDefend(self.density, eps_defend=self.eps_defend)(images)).sum().item()
        return self.result("naive", "float32", count, seconds, sub_pixels_that_differ=differ)

    def change_by_bfloat16(self) -> dict:
        """What the lower precision changes: scores, choices, and how likely the choices are (all in float32)."""
        images = self.images[:256]
        bits = [self.density.bits_per_dim(images, precision=p) for p in PRECISIONS]
        purified = [PixelDefend(self.density, eps_defend=self.eps_defend, precision=p)(images) for p in PRECISIONS]
        after = [self.density.bits_per_dim(x) for x in purified]
        change, distance = bits[1] - bits[0], (purified[1].int() - purified[0].int()).abs()
        entry = {
            "images": len(images),
            "mean_change_in_bits": change.mean().item(),
            "largest_change_in_bits": change.abs().max().item(),
            "sub_pixels_that_differ": (distance > 0).double().mean().item(),
            "mean_difference_in_levels": distance[distance > 0].double().mean().nan_to_num().item(),
            "bits_after_float32": after[0].mean().item(),
            "bits_after_bfloat16": after[1].mean().item(),
        }
        self.report("bfloat16: " + ", ".join(f"{key} {value:.4g}" for key, value in entry.items()))
        return entry

    def _decoder(self, batch: int, dtype: torch.dtype, height: int | None = None) -> Decoder:
        _, full, width = self.density.shape
        size = {"batch": batch, "height": height or full, "width": width, "dtype": dtype}
        return Decoder(self.density.network, lambda parameters, levels: levels, **size)

    def memory(self, dtype: torch.dtype) -> int:
        """Bytes that the incremental pass keeps for each image."""
        return bytes_per_image(self.density.network.config, self.density.shape[2], dtype)

    def profile(self, dtype: torch.dtype, rows: int = 8) -> dict[str, float]:
        """Shares of the time of the pass, choosing left out, on one CPU thread: products, element-wise, the rest."""
        if self.device.type != "cpu":
            return {}
        images = self.images[:256, :, :rows]
        decoder = self._decoder(len(images), dtype, rows)
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            decoder.run([images])
            with profile(activities=[ProfilerActivity.CPU], acc_events=True) as profiler:
                started = time.perf_counter()
                decoder.run([images])
                total = time.perf_counter() - started
        finally:
            torch.set_num_threads(threads)
        spent = {event.key: event.self_cpu_time_total / 1e6 for event in profiler.key_averages()}
        products = sum(seconds for key, seconds in spent.items() if key in PRODUCTS)
        element_wise = sum(s for key, s in spent.items() if key.startswith("aten::") and key not in PRODUCTS + OVERHEAD)
        shares = {"matrix products": products / total, "element-wise": element_wise / total}
        shares["starting operations"] = 1 - sum(shares.values())
        self.report("profile: " + ", ".join(f"{key} {value:.0%}" for key, value in shares.items()))
        return shares

    def training_forms(self, compiled: bool) -> list[dict]:
        """`training` as it is by default, then with one thing otherwise at a time; with ``compiled`` also that."""
        batch = TRAINING_BATCH[self.device.type]
        changes = [{}, {"precision": "float32"}, {"layout": "contiguous"}, {"optimizer": "adam"}, {"batch": 2 * batch},
                   {"batch": 4 * batch}] + [{"compiled": True}] * compiled  # fmt: skip
        return [self.training(**change) for change in changes]

    def training(self, *, precision: str = "bfloat16", layout: str = "channels last", optimizer: str = "muon",
                 batch: int | None = None, compiled: bool = False, steps: int = 4) -> dict:  # fmt: skip
        """Images a second in training, as it is by default unless told otherwise."""
        batch = batch or TRAINING_BATCH[self.device.type]
        sizes = {key: getattr(self.density.network.config, key) for key in ("filters", "blocks")}
        channels, height, width = self.density.shape
        model = PixelCNN(channels=channels, height=height, width=width, dropout=0.0, **sizes)
        torch.compiler.reset()  # what was compiled for scoring counts towards the limit of variants
        recipe = Recipe(steps=100, optimizer=optimizer, bfloat16=precision == "bfloat16")
        job = DensityJob(model.network, self.images, recipe, compiled=compiled, layout=FORMATS[layout])
        index = torch.arange(batch) % len(self.images)
        job.step(index, 0)  # compiles
        seconds = self.seconds(lambda: [job.step(index, step) for step in range(steps)])
        return self.result("training", precision, steps * batch, seconds, batch=batch, layout=layout, optimizer=optimizer,
                           compiled=compiled)  # fmt: skip


def _compiled(density: PixelCNN) -> nn.Module:
    """A copy of the density's network, compiled as in training, but once for all shapes."""
    network = copy.deepcopy(density.network)
    if density.device.type == "cuda":
        compile_network(network)
    else:
        network.use(Elementwise(*(torch.compile(f, dynamic=True) for f in (concat_elu, gate_and_activate))))
    return network


@torch.no_grad()
def purify_naively(density: PixelCNN, images: Tensor, eps_defend: int) -> Tensor:
    """Algorithm 1 without memory: the whole network on the whole image once for every pixel."""
    choose = pixel_chooser(images.shape[1], most_likely_within(eps_defend, density.device))
    purified = images.clone()
    for i, j in itertools.product(*map(range, images.shape[2:])):
        with full_products(density.device):
            parameters = density.network(scale_levels(purified))[:, :, i, j]
        purified[:, :, i, j] = choose(parameters, images[:, :, i, j])
    return purified


def speed_table(content: dict) -> str:
    """The rows of a record for people, in aligned columns."""
    lines = [f"{'task':10} {'precision':9} {'batch':>6} {'images/s':>10} {'forward passes':>15}"]
    for task in ("score", "purify", "sample", "naive"):
        entries = content[task] if isinstance(content[task], list) else [content[task]]
        for e in filter(None, entries):
            passes = f"{e['forward_passes']:15.2f}" if "forward_passes" in e else ""
            lines.append(f"{task:10} {e['precision']:9} {e['images']:6d} {e['images_per_second']:10.2f} {passes}")
    for precision in PRECISIONS:
        form = best_forward(content, precision)
        how = f"{form['layout']}, {form['chunk']} at a time" + (", compiled" if form["compiled"] else "")
        lines.append(f"one forward pass, {precision}: {1000 / form['images_per_second']:.2f} ms per image ({how})")
    return "\n".join(lines)

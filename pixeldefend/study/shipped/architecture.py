"""The classifiers' architectures, read off the networks as they run, beside the tables of appendix C.

What a network does with an image is recorded operation by operation; nothing here is told what the networks look like.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from ...checks import check_choice
from ...classifiers.store import SIZES, build_classifier
from ...images import DATA_SETS

WIDTHS = ("cifar10", "fashion-mnist")  # in the order of the paper's tables, which have the second in parentheses
SOFTMAX = "softmax"  # the last entry of the paper's tables; here networks give logits, and the loss has the softmax


@dataclass(frozen=True)
class Operation:
    """What was done, in the words of the paper's tables, and the shape of what came out, without the batch."""

    what: str
    shape: tuple[int, ...]


class _Recorder(TorchFunctionMode):
    """Notes the operations that the paper's tables name; the standardisation of the image is none of them."""

    def __init__(self):
        super().__init__()
        self.operations: list[Operation] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        what = _describe(function.__name__, args, kwargs or {})
        if what:
            self.operations.append(Operation(what, tuple(result.shape[1:])))
        return result


def _describe(name: str, args: Sequence, kwargs: dict) -> str | None:
    """An operation of PyTorch in the words of the paper's tables; ``None`` for one that they do not mention."""
    if name == "conv2d":
        weight, stride = args[1], args[3]
        maps, _, height, width = weight.shape
        return f"conv {height} x {width}, {maps} maps, stride {stride[0]}"
    if name == "linear":
        return f"dense, {len(args[1])}"
    if name == "mean":  # over the image, not of it: that is the standardisation
        return "average pooling" if tuple(kwargs.get("dim", ())) == (2, 3) else None
    if name == "max_pool2d":
        return f"max pooling, stride {kwargs.get('stride') or args[1]}"
    words = {"batch_norm": "batch normalisation", "leaky_relu": "leaky ReLU", "relu": "ReLU",
             "avg_pool2d": "average pooling", "pad": "padding", "add": "residual addition", "flatten": "flatten",
             "dropout": "dropout"}  # fmt: skip
    return words.get(name)


@torch.no_grad()
def operations(net: nn.Module, shape: tuple[int, int, int]) -> list[Operation]:
    """What a classifier does with one image (C, H, W), in its order; in eval mode, so the network is not changed.

    Where two branches meet, both come before the addition, the longer one first.
    """
    recorder, training = _Recorder(), net.training
    net.eval()
    with recorder:
        net(torch.zeros(1, *shape))
    net.train(training)
    return recorder.operations


@dataclass(frozen=True)
class Part:
    """A row of the paper's tables: operations that are done ``times`` times, for each of `WIDTHS`."""

    name: str
    what: dict[str, tuple[str, ...]]
    times: int = 1

    def expected(self, data_set: str) -> tuple[str, ...]:
        return self.what[data_set] * self.times


def _part(name: str, *what: str | tuple[str, int, int], times: int = 1) -> Part:
    """``what``: operations, or a text and the number that stands in it for either of `WIDTHS`."""
    either = {data_set: [] for data_set in WIDTHS}
    for operation in what:
        for position, data_set in enumerate(WIDTHS):
            text = operation if isinstance(operation, str) else operation[0].format(operation[1 + position])
            either[data_set].append(text)
    return Part(name, {data_set: tuple(texts) for data_set, texts in either.items()}, times)


def _conv(maps: int, quarter: int, stride: int = 1) -> tuple[str, int, int]:
    return f"conv 3 x 3, {{}} maps, stride {stride}", maps, quarter


LEAKY, RELU = ("batch normalisation", "leaky ReLU"), ("batch normalisation", "ReLU")
POOL = "max pooling, stride 2"
TABLES = {  # appendix C, row by row
    "resnet": (
        _part("initial layer", _conv(16, 4)),
        _part("residual block 1", *LEAKY, _conv(16, 4), *LEAKY, _conv(16, 4), "residual addition", times=10),
        _part("residual block 2, first", *LEAKY, _conv(32, 8, 2), *LEAKY, _conv(32, 8), "average pooling", "padding",
              "residual addition"),
        _part("residual block 2, others", *LEAKY, _conv(32, 8), *LEAKY, _conv(32, 8), "residual addition", times=9),
        _part("residual block 3, first", *LEAKY, _conv(64, 16, 2), *LEAKY, _conv(64, 16), "average pooling", "padding",
              "residual addition"),
        _part("residual block 3, others", *LEAKY, _conv(64, 16), *LEAKY, _conv(64, 16), "residual addition", times=9),
        _part("pooling layer", *LEAKY, "average pooling"),
        _part("output layer", "dense, 10", SOFTMAX),
    ),
    "vgg": (
        _part("feature block 1", _conv(16, 4), *RELU, times=2),
        _part("pooling", POOL),
        _part("feature block 2", _conv(128, 32), *RELU, times=2),
        _part("pooling", POOL),
        _part("feature block 3", _conv(512, 128), *RELU, times=3),
        _part("pooling", POOL),
        _part("feature block 4", _conv(512, 128), *RELU, times=3),
        _part("pooling", POOL, "flatten"),
        _part("classifier block", "dropout", ("dense, {}", 512, 128), "ReLU"),
        _part("output", "dropout", "dense, 10", SOFTMAX),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """A row of the paper's table and what the network does in its place; ``part`` is ``None`` for what it does after."""

    part: Part | None
    found: tuple[Operation, ...]
    agrees: bool


def compare(found: Sequence[Operation], parts: Sequence[Part], data_set: str) -> list[Comparison]:
    """Lay the operations of a network along the rows of the paper's table, each as many as the row has.

    The softmax is left out. From the first difference in number on, rows no longer agree; what is left of the network
    after the last row is a row of its own.
    """
    rows, position = [], 0
    for part in parts:
        expected = [what for what in part.expected(data_set) if what != SOFTMAX]
        here = tuple(found[position : position + len(expected)])
        rows.append(Comparison(part, here, [operation.what for operation in here] == expected))
        position += len(expected)
    if position < len(found):
        rows.append(Comparison(None, tuple(found[position:]), False))
    return rows


def compare_network(network: str, data_set: str) -> list[Comparison]:
    """`compare` for a classifier of the size that this package trains, with untrained weights.

    Args:
        network: "resnet" or "vgg".
        data_set: "cifar10" or "fashion-mnist".
    """
    check_choice(network, TABLES, name="network")
    check_choice(data_set, WIDTHS, name="data set")
    net = build_classifier(network, SIZES[data_set, network])
    return compare(operations(net, DATA_SETS[data_set].shape), TABLES[network], data_set)


def architecture_table(network: str) -> str:
    """Appendix C's table of "resnet" or "vgg", as printed and as found in both networks, in Markdown.

    What differs for Fashion-MNIST stands in parentheses, as in the paper, and repeated operations are written once. In
    italics the shape after the row: maps x height x width, or the number of units.
    """
    either = [compare_network(network, data_set) for data_set in WIDTHS]
    lines = ["| part | the paper | this package | agree |", "|---|---|---|:-:|"]
    for rows in zip(*either, strict=True):
        part = rows[0].part
        printed = _listed(_merged(*part.what.values()), part.times) if part else "(nothing)"
        verdict = "yes" if all(row.agrees for row in rows) else "**no**"
        lines.append(f"| {part.name if part else 'after that'} | {printed} | {_found(*rows)} | {verdict} |")
    return "\n".join(lines)


def _found(row: Comparison, quarter: Comparison) -> str:
    """What the two networks do, the shortest repeating sequence once."""
    if not row.found or not quarter.found:
        return "(nothing)"
    (once, times), (other, _) = (_repeating([operation.what for operation in r.found]) for r in (row, quarter))
    shapes = (" x ".join(map(str, r.found[-1].shape)) for r in (row, quarter))
    whole, smaller = shapes
    return f"{_listed(_merged(once, other), times)}<br>*{whole}{f' ({smaller})' if smaller != whole else ''}*"


def _merged(first: Sequence[str], second: Sequence[str]) -> list[str]:
    """Both at once, with what differs in the second in parentheses."""
    if len(first) != len(second) or any(len(a.split()) != len(b.split()) for a, b in zip(first, second, strict=True)):
        return [*first, *(f"({text})" for text in second)]
    return [" ".join(x if x == y else f"{x} ({y})" for x, y in zip(a.split(), b.split(), strict=True))
            for a, b in zip(first, second, strict=True)]  # fmt: skip


def _repeating(what: list[str]) -> tuple[list[str], int]:
    lengths = (n for n in range(1, len(what) + 1) if len(what) % n == 0)
    once = next(what[:n] for n in lengths if what[:n] * (len(what) // n) == what)
    return once, len(what) // len(once)


def _listed(what: Sequence[str], times: int) -> str:
    return "<br>".join([*_joined(what), *([f"**x {times}**"] if times > 1 else [])])


def _joined(what: Sequence[str]) -> Iterator[str]:
    """Normalisation and the activation after it on one line, as in the paper."""
    waiting = ""
    for text in what:
        if text == "batch normalisation":
            waiting = f"{text} & "
            continue
        yield waiting + text
        waiting = ""
    if waiting:
        yield waiting.removesuffix(" & ")

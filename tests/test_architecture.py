"""The classifiers' layers, read off the running networks, and the paper's appendix C beside them."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from pixeldefend.classifiers import ResNet
from pixeldefend.study.shipped import architecture
from pixeldefend.study.shipped.architecture import (
    TABLES,
    WIDTHS,
    Part,
    architecture_table,
    compare,
    compare_network,
    operations,
)


class Odd(nn.Module):
    """One of each operation, and some that no table mentions."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(1, 3, (5, 1), stride=2)
        self.normalise = nn.BatchNorm2d(3)
        self.dense = nn.Linear(3, 4)

    def forward(self, x):
        x = (x - x.mean(dim=(1, 2, 3), keepdim=True)) * 2
        h = F.max_pool2d(F.relu(self.normalise(self.convolution(x))), 2)
        h = F.pad(F.avg_pool2d(h, 1), (0, 0)) + F.leaky_relu(h)
        return F.dropout(self.dense(h.mean(dim=(2, 3)).flatten(1)), 0.5, self.training)


def test_operations_are_those_of_the_forward_pass_in_its_order():
    net = Odd().train()
    found = operations(net, (1, 16, 16))
    assert [operation.what for operation in found] == [
        "conv 5 x 1, 3 maps, stride 2", "batch normalisation", "ReLU", "max pooling, stride 2", "average pooling", "padding",
        "leaky ReLU", "residual addition", "average pooling", "flatten", "dense, 4", "dropout",
    ]  # fmt: skip
    assert [operation.shape for operation in found][:4] == [(3, 6, 8), (3, 6, 8), (3, 6, 8), (3, 3, 4)]
    assert net.training and net.normalise.num_batches_tracked == 0


@pytest.mark.parametrize("network", TABLES)
@pytest.mark.parametrize("data_set", WIDTHS)
def test_the_networks_are_those_of_the_papers_tables(network, data_set):
    rows = compare_network(network, data_set)
    assert [row.part for row in rows] == list(TABLES[network]) and all(row.agrees for row in rows)
    layers = sum(operation.what.startswith(("conv", "dense")) for row in rows for operation in row.found)
    assert layers == {"resnet": 62, "vgg": 12}[network]


def test_a_network_of_half_the_units_does_not_agree():
    found = operations(ResNet(channels=3, width=16, units=5), (3, 32, 32))
    agree = [row.agrees for row in compare(found, TABLES["resnet"], "cifar10")]
    assert agree[0] and not any(agree[1:])
    assert compare(found, TABLES["resnet"], "cifar10")[-1].found == ()


def test_what_a_network_does_after_the_tables_end_is_a_row():
    parts = (Part("only", {"cifar10": ("conv 5 x 1, 3 maps, stride 2",)}),)
    first, rest = compare(operations(Odd(), (1, 16, 16)), parts, "cifar10")
    assert first.agrees and not rest.agrees and rest.part is None and len(rest.found) == 11


def test_the_table_shows_both_widths_and_what_does_not_agree(monkeypatch):
    lines = [line.split(" | ") for line in architecture_table("vgg").splitlines()[2:]]
    assert [line[-1] for line in lines] == ["yes |"] * 10
    assert lines[2][1] == "conv 3 x 3, 128 (32) maps, stride 1<br>batch normalisation & ReLU<br>**x 2**"
    assert lines[2][2] == lines[2][1] + "<br>*128 x 16 x 16 (32 x 14 x 14)*"
    first, *others = TABLES["vgg"]
    monkeypatch.setitem(architecture.TABLES, "vgg", (replace(first, times=3), *others))
    broken = [line.split(" | ") for line in architecture_table("vgg").splitlines()[2:]]
    assert {line[-1] for line in broken} == {"**no** |"}
    assert broken[0][1].endswith("**x 3**")


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="network"):
        compare_network("lenet", "cifar10")
    with pytest.raises(ValueError, match="data set"):
        compare_network("vgg", "mnist")


def test_recording_leaves_pytorch_as_it_was():
    operations(Odd(), (1, 16, 16))
    assert F.relu(torch.tensor([-1.0, 1.0])).tolist() == [0.0, 1.0]

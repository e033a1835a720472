"""Classifiers on disk: weights as safetensors; configuration, scores and training log as text beside them."""

import json
import shutil
from pathlib import Path

import torch
from torch import Tensor, nn

from .. import paths
from ..weights import CONFIG, LOG, RESTORE, SCORES, check_config, load_weights, one_line, save_weights
from .resnet import ResNet
from .vgg import VGG

NETWORKS = {"resnet": ResNet, "vgg": VGG}
SIZES = {  # the paper's (appendix C): a quarter of the feature maps for Fashion-MNIST
    ("cifar10", "resnet"): {"channels": 3, "width": 16, "units": 10},
    ("cifar10", "vgg"): {"channels": 3, "width": 16, "side": 32},
    ("fashion-mnist", "resnet"): {"channels": 1, "width": 4, "units": 10},
    ("fashion-mnist", "vgg"): {"channels": 1, "width": 4, "side": 28},
}


def classifier_name(data_set: str, network: str, training: str) -> str:
    """The name of a trained classifier, which is also its folder's: for example "fashion-mnist-resnet-normal"."""
    return f"{data_set}-{network}-{training}"


def saved_classifiers(root: Path | None = None) -> list[str]:
    """Names of the classifiers in ``root``, by default the repository's ``data/weights/classifiers``."""
    root = _root(root)
    return sorted(folder.name for folder in root.iterdir() if folder.is_dir()) if root.is_dir() else []


def load_classifier(
    data_set: str,
    network: str,
    *,
    training: str = "normal",
    root: Path | None = None,
    device: torch.device | str = "cpu",
) -> nn.Module:
    """A trained classifier in eval mode, its parameters frozen: float32 (N, C, H, W) in [0, 1] to logits (N, 10).

    Args:
        data_set: "fashion-mnist" or "cifar10".
        network: "resnet" (appendix C.1) or "vgg" (appendix C.2).
        training: how it was trained (section 2.2, appendix B); "normal" is plain cross-entropy.
        root: a folder of classifiers, each in a folder named ``<data set>-<network>-<training>``; ``None`` for those
            that come with the package.

    The weights are compared with their SHA-256 hashes in ``SHA256SUMS`` beside them.

    Raises ``ValueError`` for a classifier that does not exist (the message lists those that do) and for a damaged file;
    ``FileNotFoundError`` for a file that is missing. Messages name the file.
    """
    name, existing = classifier_name(data_set, network, training), saved_classifiers(root)
    if name not in existing:
        listed = ", ".join(existing) or f"none in {_root(root)}"
        raise ValueError(f"there is no classifier {name!r} (data set-network-training); those that exist: {listed}")
    folder = _root(root) / name
    check_config(folder)
    model = _build(folder / CONFIG)
    load_weights(model, folder)
    return model.to(device, memory_format=torch.channels_last).requires_grad_(False).eval()


def save_classifier(
    model: nn.Module,
    *,
    data_set: str,
    network: str,
    training: str,
    scores: dict,
    settings: dict | None = None,
    log: Path | None = None,
    root: Path | None = None,
    dtype: torch.dtype = torch.float16,
) -> Path:
    """Write a classifier where `load_classifier` finds it and return its folder.

    Parameters are stored as ``dtype`` (`rounded` gives the network that comes back), running statistics as they are.
    ``scores`` and ``settings`` (of the training) are numbers and names for people and records; ``log`` is copied.

    Raises ``ValueError`` for an unknown network and for weights that ``dtype`` cannot hold.
    """
    if network not in NETWORKS:
        raise ValueError(f"unknown network {network!r}; choose one of: {', '.join(sorted(NETWORKS))}")
    weights = _stored(model, dtype)
    for key, value in weights.items():
        if not value.isfinite().all():
            raise ValueError(f"{key} is not finite as {dtype}")
    folder = _root(root) / classifier_name(data_set, network, training)
    config = {"data_set": data_set, "network": network, "training": training, "size": model.size}
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / CONFIG, {**config, "settings": settings or {}})
    save_weights(weights, folder)
    _write_json(folder / SCORES, scores)
    if log is not None:
        shutil.copyfile(log, folder / LOG)
    return folder


def build_classifier(network: str, size: dict) -> nn.Module:
    """A network of the given size, its weights not yet set."""
    return NETWORKS[network](**size)


@torch.no_grad()
def rounded(model: nn.Module, dtype: torch.dtype = torch.float16) -> nn.Module:
    """A copy of ``model``, in eval mode, with the weights that a file with parameters of type ``dtype`` gives back."""
    copy = build_classifier(next(name for name, kind in NETWORKS.items() if isinstance(model, kind)), model.size)
    copy.load_state_dict(_stored(model, dtype))
    return copy.to(memory_format=torch.channels_last).requires_grad_(False).eval()


def _root(root: Path | None) -> Path:
    return paths.WEIGHTS / "classifiers" if root is None else Path(root)


def _stored(model: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    parameters = dict(model.named_parameters())
    return {
        key: value.detach().to("cpu", dtype if key in parameters else value.dtype).contiguous().clone()
        for key, value in model.state_dict().items()
    }


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")


def _build(path: Path) -> nn.Module:
    try:
        config = json.loads(path.read_text())
        return build_classifier(config["network"], config["size"])
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({type(error).__name__}: {one_line(error)}); {RESTORE}") from error

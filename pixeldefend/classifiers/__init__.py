"""The image classifiers that are attacked and defended (the paper, section 2.3 and appendix C)."""

from .inference import accuracy, predict
from .resnet import ResNet
from .store import load_classifier, save_classifier, saved_classifiers
from .training import train_classifier
from .vgg import VGG

__all__ = [
    "VGG",
    "ResNet",
    "accuracy",
    "load_classifier",
    "predict",
    "save_classifier",
    "saved_classifiers",
    "train_classifier",
]

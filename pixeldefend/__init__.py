"""PixelDefend (Song et al., ICLR 2018): detect and purify adversarial images with a PixelCNN.

    import pixeldefend as pxd

    data = pxd.load_images("fashion-mnist", "test", limit=100)
    density = pxd.PixelCNN.from_pretrained("fashion-mnist")
    net = pxd.load_classifier("fashion-mnist", "resnet")
    attacked = pxd.attacks.fgsm(net, data.images, data.labels, eps=8)
    purified = pxd.PixelDefend(density, eps_defend=32)(attacked)
"""

from . import attacks
from .classifiers import accuracy, load_classifier, predict
from .defenses import DefendedClassifier, PixelDefend, lbfgs_purify, squeeze
from .detection import LikelihoodDetector, p_values, roc
from .images import load_images
from .pixelcnn import PixelCNN

__version__ = "0.1.0"

__all__ = [
    "DefendedClassifier",
    "LikelihoodDetector",
    "PixelCNN",
    "PixelDefend",
    "accuracy",
    "attacks",
    "lbfgs_purify",
    "load_classifier",
    "load_images",
    "p_values",
    "predict",
    "roc",
    "squeeze",
]

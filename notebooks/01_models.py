# %% [markdown]
# # The models
#
# What is shipped with this book: one density and five classifiers, all trained on the first 55,000 training images of
# Fashion-MNIST, as in the authors' code. The last 5,000 training images were kept back for calibration, and the test
# images were used for nothing but the numbers in this book.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
import json

import matplotlib.pyplot as plt
import torch
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend.classifiers.store import classifier_name
from pixeldefend.paths import WEIGHTS
from pixeldefend.study import Lab, figures, tables
from pixeldefend.study.conditions import EPS_ATTACK, UPPER_ROWS, paper_accuracy

figures.use_style()
lab = Lab("fashion-mnist", profile)
folder = WEIGHTS / "pixelcnn" / "fashion-mnist"
scores = json.loads((folder / "scores.json").read_text())
log = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
classifier = json.loads((WEIGHTS / "classifiers" / "fashion-mnist-resnet-normal" / "scores.json").read_text())
glue("density_parameters", sum(p.numel() for p in lab.density.parameters()) / 1e6, display=False)
glue("density_bits", scores["test_bits_per_dim"], display=False)
glue("density_std", scores["test_bits_per_dim_std"], display=False)
glue("density_test_images", scores["test_images"], display=False)
glue("density_seen", scores["images_seen"] / 1000, display=False)
glue("density_epochs", scores["images_seen"] / scores["settings"]["training_images"], display=False)
glue("density_hours", scores["training_seconds"] / 3600, display=False)
glue("classifier_accuracy", 100 * classifier["test_accuracy"], display=False)
glue("classifier_images", classifier["test_images"], display=False)
glue("classifier_epochs", classifier["images_seen"] / scores["settings"]["training_images"], display=False)

# %% [markdown]
# ## The density
#
# A PixelCNN++ of the paper's size for Fashion-MNIST: 40 filters, five gated blocks per level and stream,
# {glue:text}`density_parameters:.2f` million parameters. It has seen {glue:text}`density_seen:.0f` thousand images
# ({glue:text}`density_epochs:.1f` epochs, {glue:text}`density_hours:.1f` hours on a shared two-core machine; the authors'
# code trains on GPUs and is prepared to do so for thousands of epochs). Its mean over all {glue:text}`density_test_images:d` test images is
# {glue:text}`density_bits:.3f` bits per dimension (standard deviation between images {glue:text}`density_std:.2f`); the
# paper's is 2.7. Everything that rests on the density should improve as it does.

# %% mystnb={"figure": {"name": "fig-curve", "caption": "Training curve of the density: bits per dimension of the training images as they were first met, each dot the mean of 800 images."}, "image": {"alt": "A falling curve of bits per dimension against training images seen.", "width": "520px"}} tags=["hide-input"]
fig, ax = plt.subplots(figsize=(6, 3.2))
ax.plot([e["images"] / 1000 for e in log], [e["bits_per_dim"] for e in log], ".", color="#0072B2", markersize=4)
ax.axhline(scores["test_bits_per_dim"], color="#D55E00", linestyle="--", label="test images, averaged weights")
ax.axhline(2.7, color="#555555", linestyle=":", label="paper, test images")
ax.set(xlabel="training images seen (thousands)", ylabel="bits per dimension", ylim=(2.5, 4.0))
ax.legend();

# %% [markdown]
# ## Samples
#
# A density can be asked for images. {numref}`fig-samples` is the counterpart of the paper's Figure 8; no classes are given to
# the model, and nothing is selected.

# %% mystnb={"figure": {"name": "fig-samples", "caption": "True test images above, samples from the density below."}, "image": {"alt": "A row of real clothing images and two rows of generated ones.", "width": "720px"}} tags=["hide-input"]
n = lab.profile.gallery
samples = lab.density.sample(2 * n, generator=torch.Generator().manual_seed(0), precision="float32")
figures.gallery({"true": lab.test.images[:n], "sampled": samples[:n], "": samples[n:]})

# %% tags=["remove-output", "hide-input"]
lines = ["| network | training | parameters | epochs | accuracy on all test images | paper |", "|---|---|--:|--:|:-:|--:|"]
for row in [row for row in UPPER_ROWS if row.defence == "none"]:
    of = WEIGHTS / "classifiers" / classifier_name(lab.data_set, row.network, row.training)
    found, settings = json.loads((of / "scores.json").read_text()), json.loads((of / "config.json").read_text())["settings"]
    right = round(found["test_accuracy"] * found["test_images"])
    net = lab.classifier(row.network, row.training)
    started = " more" if "start" in settings else ""
    lines.append(
        f"| {row.network.replace('resnet', 'ResNet').replace('vgg', 'VGG')} | {row.training.replace('-', ' ')} "
        f"| {sum(p.numel() for p in net.parameters()):,} | {settings['epochs']}{started} "
        f"| **{100 * found['test_accuracy']:.1f}**&nbsp;% {tables.percent_interval(right, found['test_images'])} "
        f"| {paper_accuracy(row.condition(lab.data_set), eps=EPS_ATTACK[lab.data_set][0]):.0f}&nbsp;% |"
    )
glue("classifiers", Markdown("\n".join(lines)), display=False)

# %% [markdown]
# ## The classifiers
#
# The ResNet-62 of appendix C.1 and the VGG of appendix C.2, at the widths for Fashion-MNIST. The normally trained ResNet
# learnt for {glue:text}`classifier_epochs:.0f` epochs (the authors: 186) and classifies
# {glue:text}`classifier_accuracy:.1f` % of all {glue:text}`classifier_images:d` test images correctly.
# {numref}`tbl-classifiers` lists all.
#
# :::{table} The classifiers, with 95 % Wilson intervals. "More" epochs: of a warm start, at a tenth of the learning rate, from weights that had been trained before.
# :name: tbl-classifiers
#
# ```{glue:md} classifiers
# :format: myst
# ```
# :::
#
# The warm start is our own and saves time: an epoch on BIM examples costs as much as four without. The adversarially trained
# networks start from the normally trained one, the one with smoothed labels from a shorter run of its own kind. Their
# $\epsilon$ in training is that for CIFAR-10, a standard deviation of 8 levels; for Fashion-MNIST the paper names 8 and 25,
# without saying which column of its table belongs to which.

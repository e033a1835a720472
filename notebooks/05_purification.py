# %% [markdown]
# # Purifying images
#
# If an attacked image is an unlikely neighbour of a likely image, then perhaps one can walk back. PixelDefend looks, within
# a small distance of the image it is given, for an image that the density finds more likely, and hands that one to the
# classifier. Neither the classifier nor the attack is known to it.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from myst_nb import glue

from pixeldefend import PixelDefend, predict
from pixeldefend.study import Condition, Lab, figures
from pixeldefend.study.conditions import EPS_ATTACK, EPS_DEFEND

figures.use_style()
lab = Lab("fashion-mnist", profile)
small, large = EPS_ATTACK[lab.data_set]
eps_defend = EPS_DEFEND[lab.data_set]

# %% [markdown]
# ## The greedy algorithm
#
# The most likely image within $\epsilon_\text{defend}$ of $X$,
#
# $$ \max_{X^*} \; p(X^*) \quad \text{such that} \quad \lVert X^* - X \rVert_\infty \le \epsilon_\text{defend}, $$ (eq-purify)
#
# cannot be computed: there are $(2 \epsilon_\text{defend} + 1)^{784}$ candidates. Algorithm 1 is greedy instead. It visits
# the sub-pixels in the order of {eq}`eq-product` and sets each to the most probable level in its feasible range, *given the
# sub-pixels it has already purified*. On Fashion-MNIST the paper uses $\epsilon_\text{defend} = 32$, more than any attack
# it expects.
#
# Run naively this needs the network once per pixel, 784 times per image. Only the newest pixel is new, though, so every
# intermediate result can be computed once and kept; then purifying costs about as much arithmetic as a single pass.

# %% [markdown]
# ## What it does to images
#
# {numref}`fig-gallery` is the paper's Figure 10: FGSM with $\epsilon = 25$, purified with $\epsilon_\text{defend} = 32$. Below
# each image stands what the ResNet takes it for.

# %% mystnb={"figure": {"name": "fig-gallery", "caption": "The first test images, attacked by FGSM with {math}`\\epsilon = 25` and purified with {math}`\\epsilon_\\text{defend} = 32`. Below each image: the class that the ResNet sees."}, "image": {"alt": "Three rows of ten clothing images: clean, attacked with visible noise, purified with the noise largely gone.", "width": "720px"}} tags=["hide-input"]
n = lab.profile.gallery
attack = Condition(lab.data_set, "fgsm", large)
rows = {
    "clean": lab.test.images[:n],
    "FGSM": lab.attacked(attack, limit=n),
    "purified": lab.defended(lab.pixeldefend("fgsm", large), limit=n),
}
net = lab.classifier()
names = {title: [lab.test.classes[c] for c in predict(net, images)] for title, images in rows.items()}
figures.gallery(rows, captions=names)

# %% [markdown]
# The noise is largely gone from the background, where the density is sure of itself. Inside the garment the result is
# smoother than the original: greedy decoding prefers the most probable level to a typical one.
#
# {numref}`fig-gallery-bim` shows the same for BIM, whose changes are smaller and better aimed.

# %% mystnb={"figure": {"name": "fig-gallery-bim", "caption": "The same images, attacked by BIM with {math}`\\epsilon = 8`."}, "image": {"alt": "Three rows of ten clothing images: clean, attacked by BIM, purified.", "width": "720px"}} tags=["hide-input"]
rows = {
    "clean": lab.test.images[:n],
    "BIM": lab.attacked(Condition(lab.data_set, "bim", small), limit=n),
    "purified": lab.defended(lab.pixeldefend("bim", small), limit=n),
}
names = {title: [lab.test.classes[c] for c in predict(net, images)] for title, images in rows.items()}
figures.gallery(rows, captions=names)

# %% [markdown]
# ## What it does to likelihoods

# %% tags=["hide-input"]
clean = lab.record(Condition(lab.data_set))
attacked = lab.record(attack)
purified = lab.record(lab.pixeldefend("fgsm", large))
purified_clean = lab.record(lab.pixeldefend())
glue("n_images", len(clean), display=False)
for name, record in {"clean": clean, "fgsm": attacked, "purified": purified, "purified_clean": purified_clean}.items():
    glue(f"bpd_{name}", record.bits.mean().item(), display=False)

# %% mystnb={"figure": {"name": "fig-purified-bits", "caption": "Bits per dimension before and after purification."}, "image": {"alt": "Histograms of bits per dimension: FGSM images far right, purified ones left of the clean ones.", "width": "620px"}} tags=["hide-input"]
figures.bits_histogram(
    {"clean": clean.bits, "fgsm": attacked.bits, "FGSM, purified": purified.bits}, title="FGSM, eps 25; eps_defend 32"
)

# %% [markdown]
# Over {glue:text}`n_images:d` test images, FGSM raised the mean from {glue:text}`bpd_clean:.2f` to
# {glue:text}`bpd_fgsm:.2f` bits per dimension, and purification brought it to {glue:text}`bpd_purified:.2f`. Purified *clean*
# images come out at {glue:text}`bpd_purified_clean:.2f`, below the clean images themselves: they have become more
# likely than real ones. That is no contradiction. Every step takes the most probable level, whereas a real image is a
# *sample*, whose levels are often the second or tenth most probable.

# %% tags=["hide-input"]
sample = lab.attacked(attack, limit=n)
half = PixelDefend(lab.density, eps_defend=eps_defend, precision="bfloat16")(sample)
full = PixelDefend(lab.density, eps_defend=eps_defend, precision="float32")(sample)
gain = {p: lab.density.bits_per_dim(x, precision="float32").mean().item() for p, x in (("half", half), ("full", full))}
glue("n_sample", len(sample), display=False)
glue("share_different", 100 * (half != full).double().mean().item(), display=False)
glue("bits_different", abs(gain["half"] - gain["full"]), display=False)
glue("same_prediction", int((predict(net, half) == predict(net, full)).sum()), display=False)

# %% [markdown]
# ## A note on precision
#
# The network's arithmetic in this chapter is bfloat16, which is faster than float32 on recent processors; probabilities are
# float32 throughout. On the {glue:text}`n_sample:d` images of the gallery the two choose different levels for
# {glue:text}`share_different:.1f` % of the sub-pixels (one different choice changes what follows), the mean bits per dimension
# differ by {glue:text}`bits_different:.4f`, and the ResNet sees the same class in {glue:text}`same_prediction:d` of
# {glue:text}`n_sample:d` images.

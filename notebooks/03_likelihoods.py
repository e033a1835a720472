# %% [markdown]
# # Adversarial images are unlikely images
#
# The paper's first observation {cite:p}`song2018pixeldefend`: change an image by a few colour levels, in a way that fools
# a classifier and that a person does not notice, and a density model trained on clean images notices at once. The
# classifier is a ResNet, the density a PixelCNN {cite:p}`salimans2017pixelcnn`; neither knows of the other.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend.study import Condition, Lab, figures, tables
from pixeldefend.study.conditions import EPS_ATTACK, NAMES

figures.use_style()
lab = Lab("fashion-mnist", profile)
data_set = lab.data_set
attacks = ("clean", "rand", "fgsm", "bim")
small, large = EPS_ATTACK[data_set]

# %% [markdown]
# ## What is measured
#
# A PixelCNN writes the probability of an image $X$ as a product over its sub-pixels in raster order,
#
# $$ p(X) = \prod_i p(x_i \mid x_1, \dots, x_{i-1}), $$ (eq-product)
#
# and each factor is a distribution over the 256 colour levels. Likelihoods of images are absurdly small numbers, so they
# are quoted in *bits per dimension*: the number of bits that an ideal code based on $p$ spends on one sub-pixel,
#
# $$ \mathrm{BPD}(X) = \frac{-\log p(X)}{I \times J \times K \times \log 2} $$ (eq-bpd)
#
# for an image of $I \times J$ pixels and $K$ channels. Eight bits are what an uncompressed image takes; a good density
# needs far fewer for the images it knows, and *more* for images it does not expect.
#
# The attacks are those of section 2.1, with $\epsilon$ counted in colour levels out of 255: **RAND** adds uniform noise,
# **FGSM** moves every pixel by $\epsilon$ along the sign of the loss gradient, **BIM** repeats small such steps and stays
# inside the $\epsilon$ ball.

# %% tags=["hide-input"]
def condition(attack, eps):
    return Condition(data_set, attack, eps if attack != "clean" else 0)


records = {(a, e): lab.record(condition(a, e)) for e in (small, large) for a in attacks}
clean = records["clean", small]
glue("n_images", len(clean), display=False)
glue("bpd_clean", clean.bits.mean().item(), display=False)
for (attack, eps), record in records.items():
    glue(f"bpd_{attack}_{eps}", record.bits.mean().item(), display=False)
    glue(f"error_{attack}_{eps}", 100 * (1 - record.accuracy), display=False)

sample = min(10 * lab.profile.gallery, len(lab.test))
black = lab.test.images[:sample] == 0
glue("n_black", sample, display=False)
glue("black", 100 * black.double().mean().item(), display=False)
for attack in attacks[1:]:
    still = lab.attacked(condition(attack, small), limit=sample)[black] == 0
    glue(f"still_{attack}", 100 * still.double().mean().item(), display=False)

# %% [markdown]
# ## The likelihood sees what the eye does not
#
# {numref}`fig-likelihoods` is this book's version of the paper's Figure 2a, for Fashion-MNIST instead of CIFAR-10: the
# first {glue:text}`n_images:d` test images, clean and attacked with $\epsilon = 8$, about 3 % of the colour range.

# %% mystnb={"figure": {"name": "fig-likelihoods", "caption": "Bits per dimension of clean test images and of the same images attacked with {math}`\\epsilon = 8`. Further right is less likely."}, "image": {"alt": "Four histograms of bits per dimension: clean images lie left of, and narrower than, the attacked ones.", "width": "620px"}} tags=["hide-input"]
figures.bits_histogram({a: records[a, small].bits for a in attacks})

# %% [markdown]
# Clean images cost {glue:text}`bpd_clean:.2f` bits per dimension on average. The same images cost
# {glue:text}`bpd_rand_8:.2f` after random noise, {glue:text}`bpd_fgsm_8:.2f` after FGSM and {glue:text}`bpd_bim_8:.2f`
# after BIM. A likely reason is the
# background: {glue:text}`black:.0f` % of the pixels are perfectly black, which the density predicts with near certainty, and
# turning a 0 into a 3 there is invisible but very improbable.
#
# The order of the attacks differs from the paper's Figure 2a, where, on CIFAR-10, BIM is the least conspicuous of the three.
# What happens to the black pixels goes along with the order seen here: of the pixels that are black in the clean images,
# {glue:text}`still_rand:.0f` % are still black after RAND and {glue:text}`still_fgsm:.0f` % after FGSM (half of the noise, and of
# FGSM's steps, would lead below 0 and is clipped), but only {glue:text}`still_bim:.0f` % after BIM, which takes
# many steps, each from where the last one ended. That is an observation on these {glue:text}`n_black:d` images, not a test: no experiment here separates the
# background from the rest.

# %% mystnb={"figure": {"name": "fig-likelihoods-large", "caption": "The same at {math}`\\epsilon = 25`, the larger of the two radii in the paper's Table 1."}, "image": {"alt": "Histograms of bits per dimension for epsilon 25.", "width": "620px"}} tags=["hide-input"]
figures.bits_histogram({a: records[a, large].bits for a in attacks})

# %% [markdown]
# ## Unlikely is not the same as misclassified
#
# {numref}`tbl-errors` puts the error of the ResNet beside the likelihood of what it sees (the content of Figure 2b).
# Random noise is as unlikely as an attack but does little harm: the density says that an image is *unusual*, not that it
# is *dangerous*. That is what makes the method independent of the attack, and it is also its weakness: everything
# unusual raises the alarm.

# %% tags=["remove-output", "hide-input"]
lines = ["| images | bits per dimension, eps 8 | error, eps 8 | bits per dimension, eps 25 | error, eps 25 |", "|---|--:|--:|--:|--:|"]
for a in attacks:
    cells = [NAMES[a]]
    for e in (small, large):
        record = records[a, e]
        wrong = len(record) - int(record.correct.sum())
        interval = tables.percent_interval(wrong, len(record))
        cells += [f"{record.bits.mean():.2f}", f"{100 * wrong / len(record):.1f}&nbsp;%<br>{interval}"]
    lines.append("| " + " | ".join(cells) + " |")
glue("errors", Markdown("\n".join(lines)), display=False)

# %% [markdown]
# :::{table} Mean bits per dimension and test error of the ResNet, with 95 % Wilson intervals.
# :name: tbl-errors
#
# ```{glue:md} errors
# :format: myst
# ```
# :::

# %% [markdown]
# # Purifying images
#
# If an attacked image is an unlikely neighbour of a likely image, then perhaps one can walk back. PixelDefend looks, within
# a small distance of the image it is given, for an image that the density finds more likely, and hands that one to the
# classifier. Neither the classifier nor the attack is known to it.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend import roc
from pixeldefend.study import figures
from pixeldefend.study.available import FIGURE_EPS, PREFIXES, TITLES, scored_labs, shown
from pixeldefend.study.conditions import ATTACKS, EPS_ATTACK, EPS_DEFEND
from pixeldefend.study.detection import figures as detection_figures
from pixeldefend.study.detection.tables import p_value_table, stacked
from pixeldefend.study.purification import figures as purification_figures
from pixeldefend.study.purification import optimisation, purified

GALLERY_EPS = {"fashion-mnist": 25, "cifar10": 8}  # figures 10 and 11 of the paper

figures.use_style()
labs = scored_labs(profile)
glue("shown", Markdown(shown(labs)), display=False)

# %% [markdown]
# ## The greedy algorithm
#
# The most likely image within $\epsilon_\text{defend}$ of $X$,
#
# $$ \max_{X^*} \; p(X^*) \quad \text{such that} \quad \lVert X^* - X \rVert_\infty \le \epsilon_\text{defend}, $$ (eq-purify)
#
# is out of reach: an image of Fashion-MNIST has up to $(2 \epsilon_\text{defend} + 1)^{784}$ candidates, and nothing rules most
# of them out unseen. Algorithm 1 is greedy instead. It visits the sub-pixels in the order of {eq}`eq-product` and sets each to the most probable level in its
# feasible range, *given the sub-pixels it has already purified*,
#
# $$ x^*_i = \operatorname*{arg\,max}_z \; p(x_i = z \mid x^*_1, \dots, x^*_{i-1}), \qquad
# \max(x_i - \epsilon_\text{defend}, 0) \le z \le \min(x_i + \epsilon_\text{defend}, 255). $$ (eq-greedy)
#
# The attacked image enters {eq}`eq-greedy` only through the range: what is left of it is a window around each sub-pixel. The paper uses $\epsilon_\text{defend} = 32$ on
# Fashion-MNIST and 16 on CIFAR-10, no less than the largest $\epsilon$ of the attacks in its tables.
#
# Run naively this needs the network once per pixel, 784 times per image. Only the newest pixel is new, though, so every
# intermediate result can be computed once and kept; then purifying costs about as much arithmetic as one pass over the
# whole image ({doc}`09_cost`).
#
# ```{glue:md} shown
# :format: myst
# ```

# %% [markdown]
# ## One image
#
# {numref}`fig-one-purified` is the paper's Figure 4. The image is the first that the ResNet gets right and that BIM with
# $\epsilon = 8$ makes it get wrong.

# %% mystnb={"figure": {"name": "fig-one-purified", "caption": "A test image, and what each attack makes of it with {math}`\\epsilon = 8`; below, the same images purified with the paper's {math}`\\epsilon_\\text{defend}` (32 on Fashion-MNIST, 16 on CIFAR-10). Below each image: the class that the ResNet sees, with a cross if it is wrong."}, "image": {"alt": "For each data set two rows of six images: clean and after five attacks, above as the classifier meets them, below smoother after purification.", "width": "700px"}} tags=["hide-input"]
examples = {name: purified.one_image(lab, FIGURE_EPS) for name, lab in labs.items()}
purification_figures.galleries(examples, width=1.25)

# %% tags=["remove-output", "hide-input"]
galleries = {name: purified.gallery(lab, "fgsm", GALLERY_EPS[name]) for name, lab in labs.items()}
lines = [
    f"- {TITLES[name]}: {panel.right('before')} of these {len(panel.captions['before'])} images before purification, "
    f"{panel.right('purified')} after it."
    for name, panel in examples.items()
]
glue("right_in_example", Markdown("\n".join(lines)), display=False)
lines = [
    f"- {TITLES[name]}, $\\epsilon = {GALLERY_EPS[name]}$: {panel.right('clean')} of the "
    f"{len(panel.captions['clean'])} images when clean, {panel.right('FGSM')} after FGSM, and {panel.right('purified')} after "
    f"purification with $\\epsilon_\\text{{defend}} = {EPS_DEFEND[name]}$."
    for name, panel in galleries.items()
]
glue("right_in_galleries", Markdown("\n".join(lines)), display=False)

# %% [markdown]
# The ResNet classifies correctly:
#
# ```{glue:md} right_in_example
# :format: myst
# ```
#
# On Fashion-MNIST the purified images look alike, whatever the attack was. The clean one, in the first column, has changed
# like the others: the texture of its surface is gone. On CIFAR-10 they look alike, too, and smoother than they were. One image is an illustration, not a result. How often the ResNet is
# right is counted in {doc}`06_tables`.

# %% [markdown]
# ## More images
#
# {numref}`fig-gallery` corresponds to the paper's Figures 10 and 11: FGSM images, and the same purified.

# %% mystnb={"figure": {"name": "fig-gallery", "caption": "The first test images, clean, attacked by FGSM (Fashion-MNIST {math}`\\epsilon = 25`, CIFAR-10 {math}`\\epsilon = 8`), and purified from the attacked ones ({math}`\\epsilon_\\text{defend} = 32` and 16). Below each image: the class that the ResNet sees, with a cross if it is wrong."}, "image": {"alt": "For each data set three rows of images: clean, attacked with visible noise, purified with the noise largely gone.", "width": "760px"}} tags=["hide-input"]
purification_figures.galleries(galleries)

# %% [markdown]
# The ResNet classifies correctly:
#
# ```{glue:md} right_in_galleries
# :format: myst
# ```
#
# On Fashion-MNIST the noise is largely gone from the background, where the density is sure of itself. Inside the garment the
# result is smoother than the original: greedy decoding prefers the most probable level to a typical one. A print or a seam
# whose contrast is below $\epsilon_\text{defend}$ can be smoothed away with the noise. On CIFAR-10 the noise goes, too,
# and some sharpness with it, and here and there a tint appears that was not there. A person still knows what is shown, more
# often than the ResNet.

# %% [markdown]
# ## Is greedy decoding a good climb?
#
# Nothing guarantees that the greedy choice leads to a likely image: a level that is probable now can make everything after
# it improbable. The paper compares it with a general optimiser, L-BFGS-B {cite:p}`byrd1995limited,zhu1997algorithm`, which
# follows the gradient of $\log p$ from a random start inside the box and respects its bounds. It reports that most runs ended
# at images *less* likely than the attacked ones they were to purify, and puts that down to the rugged landscape of the
# PixelCNN. (It says that the search "decreases" $p(X)$; than at its random starts the likelihood is hardly meant to be lower, as
# L-BFGS-B never accepts a step that is worse.)
#
# One thing is left open there. A PixelCNN gives probabilities to *integers*, while an optimiser moves through real
# numbers; what is the probability of a pixel of 17.3? The paper does not say, and the authors' code does not contain this
# purifier. We try two answers.
#
# - The *integer objective* is what comes of differentiating the authors' scoring of an image that is not made of integers: each pixel's
#   own probability is that of its value truncated to an integer, and only the pixels after it see the real number. A pixel's
#   own probability then has no slope, and jumps.
# - The *continuous objective* lets the bin of width one, whose probability the density gives, slide with the pixel. It
#   agrees with the density at the integers and has a gradient everywhere else.
#
# Both begin at the same starts, take scipy's settings {cite:p}`virtanen2020scipy` apart from a limit on iterations, and are rounded to colour levels
# at the end. {numref}`fig-optimisers` is the paper's Figure 5.

# %% tags=["hide-input"]
search = optimisation.SEARCHES[profile]
comparisons = {name: optimisation.measured(lab, search) for name, lab in labs.items()}
for key, value in vars(search).items():
    glue(f"search_{key}", value, display=False)
for name, found in comparisons.items():
    prefix = PREFIXES[name]
    for objective, runs in found.runs.items():
        glue(f"{prefix}failed_{objective}", runs.less_likely_than(found.bits["attacked"]), display=False)
        glue(f"{prefix}ended_{objective}", runs.rounded.mean().item(), display=False)
        glue(f"{prefix}rounding_{objective}", runs.rounding.abs().max().item(), display=False)
        glue(f"{prefix}iterations_{objective}", runs.iterations.double().mean().item(), display=False)
        glue(f"{prefix}evaluations_{objective}", runs.evaluations.double().mean().item(), display=False)
        glue(f"{prefix}at_limit_{objective}", int((runs.iterations == search.max_iterations).sum()), display=False)
        glue(f"{prefix}better_{objective}", int((runs.best < found.bits["greedy"]).sum()), display=False)
        right = (runs.predictions == found.labels[:, None]).double().mean().item()
        glue(f"{prefix}right_{objective}", 100 * right, display=False)
    right = (found.predictions["greedy"] == found.labels).double().mean().item()
    glue(f"{prefix}right_greedy", 100 * right, display=False)
    for kind, values in found.bits.items():
        glue(f"{prefix}before_{kind}", values.mean().item(), display=False)
glue("n_runs", search.images * search.starts, display=False)
glue("comparisons", Markdown(stacked({TITLES[n]: optimisation.comparison_table(c) for n, c in comparisons.items()})), display=False)
glue("optimisers", Markdown("\n".join(f"- {TITLES[n]}: {optimisation.in_words(c)}" for n, c in comparisons.items())), display=False)

# %% mystnb={"figure": {"name": "fig-optimisers", "caption": "Bits per dimension of the first {glue:text}`search_images:,d` test images, of the same after FGSM with {math}`\\epsilon = 8`, and purified from those: greedily, and by L-BFGS-B with {glue:text}`search_starts:,d` random starts for each image and at most {glue:text}`search_max_iterations:,d` iterations. A point is an image or a run, a bar their mean; dotted: the mean of the clean images. Further left is more likely."}, "image": {"alt": "Strips of points for each data set: clean, FGSM, greedy decoding, random starts, and the results of L-BFGS-B with both objectives, before and after rounding.", "width": "680px"}} tags=["hide-input"]
purification_figures.purifier_strips(comparisons)

# %% [markdown]
# :::{table} {numref}`fig-optimisers` in numbers, results of L-BFGS-B rounded. Bits per dimension: mean over the images of their runs' means, with a 95 % interval from Student's t. Shares with 95 % Wilson intervals, which take runs that share an image as independent and are too narrow for that.
# :name: tbl-optimisers
#
# ```{glue:md} comparisons
# :format: myst
# ```
# :::
#
# ```{glue:md} optimisers
# :format: myst
# ```
#
# Whether L-BFGS-B fails depends on what it is given to climb. On Fashion-MNIST the integer objective leaves
# {glue:text}`failed_context:,d` of {glue:text}`n_runs:,d` runs less likely than the attacked image (mean
# {glue:text}`ended_context:.2f` bits, FGSM {glue:text}`before_attacked:.2f`). They come to rest after
# {glue:text}`iterations_context:.0f` iterations and {glue:text}`evaluations_context:.0f` evaluations on average; the continuous
# objective takes {glue:text}`evaluations_continuous:.0f` for {glue:text}`iterations_continuous:.0f` iterations. With that one,
# {glue:text}`failed_continuous:,d` of {glue:text}`n_runs:,d` runs fail. Their mean of
# {glue:text}`ended_continuous:.2f` bits may be compared with {glue:text}`before_greedy:.2f` for greedy decoding, and for
# {glue:text}`better_continuous:,d` of {glue:text}`search_images:,d` images the best of the runs is more likely than what greedy
# decoding found. {glue:text}`at_limit_continuous:,d` of the {glue:text}`n_runs:,d` runs were stopped by the limit on iterations, so
# that more could be had. The density is the same both times. Rounding is not what decides it: it moves a
# result by at most {glue:text}`rounding_continuous:.4f` bits with the continuous objective and
# {glue:text}`rounding_context:.4f` with the other.
#
# On CIFAR-10, the paper's data set, {glue:text}`cifar10_failed_continuous:,d` of {glue:text}`n_runs:,d` runs fail with the continuous
# objective, and their mean of {glue:text}`cifar10_ended_continuous:.2f` bits is
# below that of greedy decoding, {glue:text}`cifar10_before_greedy:.2f`, and of the clean images,
# {glue:text}`cifar10_before_clean:.2f`. With the integer objective it is {glue:text}`cifar10_failed_context:,d`, although they do not get
# far: to {glue:text}`cifar10_ended_context:.2f` bits, where FGSM had left {glue:text}`cifar10_before_attacked:.2f`. The limit stopped
# {glue:text}`cifar10_at_limit_continuous:,d` of the first and {glue:text}`cifar10_at_limit_context:,d` of the second. Rounding counts for more
# here, up to {glue:text}`cifar10_rounding_continuous:.2f` bits. Being likelier did not help the ResNet, which is right about
# {glue:text}`cifar10_right_continuous:.0f` % of the results of the continuous search and {glue:text}`cifar10_right_greedy:.0f` % of
# those of greedy decoding; so few images do not rank the two. An image more likely than the clean one is not for that reason the
# clean one.
#
# So whether the paper's observation comes out depends on the objective and on the data. What the authors climbed, with which tolerances and in which units, is not known, and these runs cannot tell why theirs failed. In likelihood, greedy
# decoding has no clear advantage over a search with a useful gradient on Fashion-MNIST, and on CIFAR-10 rather the reverse. It has one in cost: about as much arithmetic as one pass of the network, where a run of
# L-BFGS-B took {glue:text}`evaluations_continuous:.0f` passes forward and back on average. And one conclusion of the paper loses its
# support: section 4.4 takes the failure as evidence that gradient-based attacks on the whole system must be hard.

# %% [markdown]
# ## What it does to likelihoods

# %% tags=["hide-input"]
bits = {name: purified.bits_before_and_after(lab) for name, lab in labs.items()}
groups = {
    name: {"clean": before["clean", 0], "fgsm": before["fgsm", FIGURE_EPS], "clean, purified": after["clean", 0],
           "FGSM, purified": after["fgsm", FIGURE_EPS]}
    for name, (before, after) in bits.items()
}  # fmt: skip
for name, (_, after) in bits.items():
    for kind, values in groups[name].items():
        glue(f"{PREFIXES[name]}bits_{kind.lower().replace(', ', '_')}", values.mean().item(), display=False)
    glue(f"{PREFIXES[name]}n_images", len(after["fgsm", FIGURE_EPS]), display=False)
    glue(f"{PREFIXES[name]}n_dear", len(after["deepfool", FIGURE_EPS]), display=False)

# %% mystnb={"figure": {"name": "fig-purified-bits", "caption": "Bits per dimension of clean test images and of FGSM images ({math}`\\epsilon = 8`), before and after purification."}, "image": {"alt": "Histograms of bits per dimension for each data set: FGSM images furthest right; purified clean ones left of the clean ones, purified FGSM ones left of them, too, or among them.", "width": "640px"}} tags=["hide-input"]
purification_figures.purified_bits(groups)

# %% [markdown]
# On the first {glue:text}`n_images:,d` test images of Fashion-MNIST, FGSM with $\epsilon = 8$ raised the mean from
# {glue:text}`bits_clean:.2f` to {glue:text}`bits_fgsm:.2f` bits per dimension, and purification brought it to
# {glue:text}`bits_fgsm_purified:.2f`. Purified *clean* images come out at {glue:text}`bits_clean_purified:.2f`, against
# {glue:text}`bits_clean:.2f` before: on average they have become more likely than real images. That is no contradiction. Every step takes the most
# probable level, whereas a real image is a *sample*, whose levels are often the second or tenth most probable.
#
# The paper reports the opposite of its ten CIFAR-10 images: purified, they stay less likely than clean ones. On CIFAR-10 it is so here,
# by a little. On the first {glue:text}`cifar10_n_images:,d` test images FGSM goes from {glue:text}`cifar10_bits_clean:.2f` to
# {glue:text}`cifar10_bits_fgsm:.2f` bits, and purification back to {glue:text}`cifar10_bits_fgsm_purified:.2f`. That is not where it takes
# *clean* images, though: those come out at {glue:text}`cifar10_bits_clean_purified:.2f`. The
# distance between the two is what is left of the perturbation. A smaller $\epsilon_\text{defend}$, in proportion to the attack, is one
# thing that sets CIFAR-10 apart from Fashion-MNIST, and the density is another; neither was tested.

# %% [markdown]
# ## What it does to p-values
#
# {numref}`fig-purified-p-values` is the paper's Figure 7: the p-values of {doc}`04_detection`, of images that were purified
# first. Panel (a) shows purified clean images.

# %% mystnb={"figure": {"name": "fig-purified-p-values", "caption": "p-values of test images after purification, clean and attacked with {math}`\\epsilon = 8`, against held-out images that are not purified (the paper's Figure 7). The dashed line is the uniform distribution; the vertical scales differ."}, "image": {"alt": "Six histograms of p-values for each data set.", "width": "680px"}} tags=["hide-input"]
p_values = {name: purified.p_values_before_and_after(lab) for name, lab in labs.items()}
kinds = [("clean", 0), *((attack, FIGURE_EPS) for attack in ATTACKS)]
panels = {name: {kind: after[kind, eps] for kind, eps in kinds} for name, (_, after) in p_values.items()}
detection_figures.p_value_panels(panels)

# %% tags=["remove-output", "hide-input"]
glue("panels", Markdown(stacked({TITLES[name]: p_value_table(of) for name, of in panels.items()})), display=False)
words = {TITLES[name]: purified.in_words(*of, FIGURE_EPS) for name, of in p_values.items()}
glue("words", Markdown("\n".join(f"- {title}: {text}" for title, text in words.items())), display=False)
glue("table", Markdown(stacked({TITLES[n]: purified.purified_detection_table(*of) for n, of in p_values.items()})), display=False)
curves = {name: purified.roc_after(*of, FIGURE_EPS) for name, of in p_values.items()}
for name, (before, after) in p_values.items():
    prefix, large = PREFIXES[name], EPS_ATTACK[name][-1]
    for kind, curve in curves[name].items():
        glue(f"{prefix}auc_{kind}", curve.auc, display=False)
    glue(f"{prefix}auc_fgsm_large", purified.roc_after(before, after, large)["fgsm"].auc, display=False)
    for kind in ATTACKS:
        glue(f"{prefix}behind_{kind}", roc(*purified.behind(after, kind, FIGURE_EPS)).auc, display=False)
    glue(f"{prefix}behind_fgsm_large", roc(*purified.behind(after, "fgsm", large)).auc, display=False)
    for kind in ("clean", "fgsm", "carlini_wagner"):
        scores = after[kind, FIGURE_EPS if kind != "clean" else 0]
        glue(f"{prefix}likely_{kind}", 100 * (scores > purified.TOO_LIKELY).double().mean().item(), display=False)

# %% [markdown]
# ```{glue:md} words
# :format: myst
# ```
#
# With $\epsilon = 8$ the spike at zero is gone. The paper finds its distributions "closer to uniform" and takes that for a return to the training
# distribution. A uniform distribution would be a flat histogram, though, and a shift to the *right* is as far from it as a
# shift to the left: purified images are then too good. {numref}`tbl-purified-panels` measures the distance (the KS
# statistic).
#
# On CIFAR-10 the distributions of RAND, FGSM and BIM have come closer to uniform, though not as close as clean images that nobody
# purified. But the purified *clean* images are shifted to the right, like those of Fashion-MNIST. What looks like a return is a
# balance, between a purification that makes images too likely and a perturbation that it has not undone.
#
# :::{table} {numref}`fig-purified-p-values` in numbers; columns as in {numref}`tbl-panels`.
# :name: tbl-purified-panels
#
# ```{glue:md} panels
# :format: myst
# ```
# :::

# %% [markdown]
# ## Can purified images be detected?
#
# {numref}`fig-purified-roc` is the paper's Figure 6b: the detector of {numref}`fig-roc`, which flags small p-values, on
# purified images. The negatives are clean test images that were *not* purified. One curve is for purified clean images.

# %% mystnb={"figure": {"name": "fig-purified-roc", "caption": "ROC curves of the p-value as a detector of purified images, clean and attacked with {math}`\\epsilon = 8` (the paper's Figure 6b). The negatives are clean test images as they are, the reference is held-out images."}, "image": {"alt": "ROC curves of purified images, clean and after five attacks, with the diagonal for comparison.", "width": "680px"}} tags=["hide-input"]
detection_figures.roc_panels(curves, legend="upper left")

# %% [markdown]
# :::{table} Detection of purified images by their p-value: area under the ROC curve before and after purification, and the share of purified images with a p-value of at most 0.01 and 0.05 (below: of the clean images). Then the share that is *more* likely than 95 % of the held-out images, and the AUC if the negatives are the same images, not attacked but purified, too. 95 % intervals as in {numref}`tbl-auc`.
# :name: tbl-purified-auc
#
# ```{glue:md} table
# :format: myst
# ```
# :::
#
# As in the paper, small p-values no longer give images away that were attacked with $\epsilon = 8$. On Fashion-MNIST the AUC of purified FGSM images
# with $\epsilon = 8$ is {glue:text}`auc_fgsm:.3f`, that of CW {glue:text}`auc_carlini_wagner:.3f`, on
# {glue:text}`n_images:,d` and {glue:text}`n_dear:,d` images; with the largest $\epsilon$ FGSM has {glue:text}`auc_fgsm_large:.3f`.
# But "barely distinguishable from normal samples", which the paper says of DeepFool and CW, would be an AUC of 0.5. Below
# it, a purified image is typically *more* likely than a clean one, and who expects that can turn the test round. At a level of 5 % that
# finds {glue:text}`likely_fgsm:.1f` % of the purified FGSM images,
# {glue:text}`likely_carlini_wagner:.1f` % of those after CW, and {glue:text}`likely_clean:.1f` % of the purified clean
# images. Purification leaves its mark on images whether they were attacked or not.
#
# On CIFAR-10 an AUC near 0.5 can be had: that of FGSM with $\epsilon = 8$ is {glue:text}`cifar10_auc_fgsm:.3f` after purification. But
# for DeepFool and CW, of which the paper says it, it is {glue:text}`cifar10_auc_deepfool:.3f` and
# {glue:text}`cifar10_auc_carlini_wagner:.3f`. With $\epsilon = 16$, as much as purification may move a pixel, FGSM stays visible:
# {glue:text}`cifar10_auc_fgsm_large:.3f`.
#
# Is anything left of the attack itself? The last column compares like with like, attacked and clean images that were both
# purified. On Fashion-MNIST it gives {glue:text}`behind_fgsm:.3f` for FGSM with $\epsilon = 8$ and
# {glue:text}`behind_fgsm_large:.3f` with the largest $\epsilon$, {glue:text}`behind_bim:.3f` for BIM and
# {glue:text}`behind_carlini_wagner:.3f` for CW. In this sense the paper's claim holds better than in its own: the nearer to
# 0.5, the less the density sees of the attack once it has purified the image. On CIFAR-10 it sees more:
# {glue:text}`cifar10_behind_fgsm:.3f` for FGSM and {glue:text}`cifar10_behind_fgsm_large:.3f` with the largest $\epsilon$,
# {glue:text}`cifar10_behind_bim:.3f` for BIM. Of DeepFool and CW it sees next to nothing any more
# ({glue:text}`cifar10_behind_deepfool:.3f` and {glue:text}`cifar10_behind_carlini_wagner:.3f`).
#
# ## One density in two roles
#
# The p-values of this section come from the density that did the purifying. That higher likelihoods give higher p-values is
# arithmetic: whatever climbs $p$ passes a test that asks whether $p$ is large. {numref}`fig-purified-p-values` and
# {numref}`fig-purified-roc` therefore show that the climb succeeds, not that the result is like a photograph; a black square passes
# the same test. To judge the images themselves one would need a second density, trained independently, that took no part in
# purification, or people. The book uses one density for each data set, so that was not done. An independent judge of a kind is the
# classifier, and {doc}`06_tables` asks it.
#
# One practical conclusion does hold: a detector of this kind belongs *before* the purifier, not behind it.

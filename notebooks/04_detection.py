# %% [markdown]
# # Detecting adversarial images
#
# Bits per dimension become a test by comparison: is this image less likely than the images that the density knows?

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
import math

import torch
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend import p_values, roc
from pixeldefend.detection import auc_interval
from pixeldefend.study import Condition, figures
from pixeldefend.study.available import FIGURE_EPS, PREFIXES, TITLES, kinds_of_image, scored_labs, shown
from pixeldefend.study.conditions import ALL_ATTACKS, ATTACKS, EPS_ATTACK, NAMES, TUNED
from pixeldefend.study.detection import figures as detection_figures
from pixeldefend.study.detection.perturbations import bits_rounded_to_nearest, changes, changes_table
from pixeldefend.study.detection.tables import (
    calibration,
    calibration_table,
    claims_summary,
    claims_table,
    detection_table,
    figure_3_claims,
    fooled,
    p_value_table,
    paired,
    stacked,
)
from pixeldefend.study.shipped.trained import densities

figures.use_style()
labs = scored_labs(profile)
glue("shown", Markdown(shown(labs)), display=False)

# %% [markdown]
# ## The permutation test
#
# Take $N$ reference images $X_1, \dots, X_N$ and a new image $X'$. If all come from the same distribution, the rank of
# $p(X')$ among the reference likelihoods is uniform. The p-value of section 3 is
#
# $$ P = \frac{1}{N+1} \left( 1 + \sum_{i=1}^{N} \mathbb{1}\left[ p(X_i) \le p(X') \right] \right), $$ (eq-p-value)
#
# small when hardly any reference image is as unlikely as $X'$: a permutation test {cite:p}`efron1994introduction`, and what conformal
# prediction builds on {cite:p}`vovk2005algorithmic`. It is exact, whatever the density, on one condition: that
# the reference images and $X'$ are exchangeable. The paper compares with the images that the density was *trained* on.
# Training raises exactly those likelihoods. As far as the density overfits, a fresh clean image looks less likely than it
# should, and the test raises more false alarms than it promises. The cure is to compare with images kept out of training. Here these
# are the last 5,000 training images, which no density in this book has seen. They are the reference in everything below,
# and the paper's choice stands beside it.
#
# ```{glue:md} shown
# :format: myst
# ```

# %% tags=["hide-input"]
reference = {name: {split: lab.reference(split).bits for split in ("held-out", "train")} for name, lab in labs.items()}
records = {
    (name, eps): kinds_of_image(lab, eps, ALL_ATTACKS if eps == FIGURE_EPS else ATTACKS)
    for name, lab in labs.items()
    for eps in EPS_ATTACK[name]
}
tests = {
    (name, eps, split): {kind: p_values(-record.bits, -reference[name][split]) for kind, record in found.items()}
    for (name, eps), found in records.items()
    for split in ("held-out", "train")
}
papers = ("clean", *ATTACKS)
figure_3 = {name: {kind: tests[name, FIGURE_EPS, "held-out"][kind] for kind in papers} for name in labs}
calibrations = {
    (name, split): calibration(records[name, FIGURE_EPS]["clean"].bits, reference[name][split])
    for name in labs
    for split in ("held-out", "train")
}
for (name, split), found in calibrations.items():
    of = PREFIXES[name], split.replace("-", "_")
    glue("{}ks_{}".format(*of), found.distance, display=False)
    glue("{}n_{}".format(*of), found.reference_images, display=False)
    glue("{}chance_{}".format(*of), found.chance, display=False)
    glue("{}alarms_{}".format(*of), 100 * found.flagged / found.images, display=False)
    glue("{}bpd_{}".format(*of), found.reference_mean, display=False)
epochs = {of.name: of.epochs for of in densities()}
for name, lab in labs.items():
    glue(f"{PREFIXES[name]}epochs", epochs[lab.density_name], display=False)
    glue(f"{PREFIXES[name]}n_images", len(records[name, FIGURE_EPS]["clean"]), display=False)
    n_dear = len(records[name, FIGURE_EPS]["deepfool"])
    glue(f"{PREFIXES[name]}n_dear", n_dear, display=False)
    same = figure_3[name]["clean"][:n_dear]  # the images that the searches were given
    glue(f"{PREFIXES[name]}few_same_images", 100 * (same <= 0.05).double().mean().item(), display=False)
    glue(f"{PREFIXES[name]}tuned_fooled", int(fooled(records[name, FIGURE_EPS], TUNED).sum()), display=False)
    glue(f"{PREFIXES[name]}cw_fooled", int(fooled(records[name, FIGURE_EPS], "carlini_wagner").sum()), display=False)
    before = records[name, FIGURE_EPS]["clean"].correct[:n_dear]
    glue(f"{PREFIXES[name]}n_dear_right", int(before.sum()), display=False)
    for eps in EPS_ATTACK[name]:
        right = 100 * records[name, eps]["carlini_wagner"].accuracy
        glue(f"{PREFIXES[name]}right_carlini_wagner_{eps}", right, display=False)
    smallest = EPS_ATTACK[name][0]
    glue(f"{PREFIXES[name]}right_bim_{smallest}", 100 * records[name, smallest]["bim"].accuracy, display=False)
    for kind, values in figure_3[name].items():
        glue(f"{PREFIXES[name]}few_{kind}", 100 * (values <= 0.05).double().mean().item(), display=False)
        error = 100 * (1 - records[name, FIGURE_EPS][kind].accuracy)
        glue(f"{PREFIXES[name]}error_{kind}", error, display=False)

# %% tags=["remove-output", "hide-input"]
tables = {
    TITLES[name]: calibration_table({"held out": calibrations[name, "held-out"], "training": calibrations[name, "train"]})
    for name in labs
}
glue("calibration", Markdown(stacked(tables)), display=False)
claims = {TITLES[name]: figure_3_claims(figure_3[name], calibrations[name, "held-out"]) for name in labs}
glue("claims", Markdown(claims_table(claims)), display=False)
glue("claims_summary", Markdown("\n".join(f"- {title}: {claims_summary(found)}" for title, found in claims.items())), display=False)
tables = {TITLES[name]: p_value_table(of, paper=tests[name, FIGURE_EPS, "train"]) for name, of in figure_3.items()}
glue("panels", Markdown(stacked(tables)), display=False)

# %% [markdown]
# ## Are the p-values of clean images uniform?
#
# If the test keeps its promise, clean test images have uniform p-values. {numref}`tbl-calibration` measures how far from
# uniform they are: the Kolmogorov-Smirnov (KS) statistic is the largest distance between their distribution function and
# the diagonal, and "chance" is the probability of a distance at least as large if the clean images and the reference images
# were alike.
#
# :::{table} Clean test images tested against two kinds of reference images, whose mean bits per dimension is given. Last column: the share with a p-value of at most 0.05, with its 95 % Wilson interval; the test promises 5 %.
# :name: tbl-calibration
#
# ```{glue:md} calibration
# :format: myst
# ```
# :::
#
# On Fashion-MNIST the distance is {glue:text}`ks_held_out:.3f` against the {glue:text}`n_held_out:,d` held-out images and
# {glue:text}`ks_train:.3f` against the {glue:text}`n_train:,d` training images, and
# {glue:text}`alarms_held_out:.1f` % and {glue:text}`alarms_train:.1f` % of {glue:text}`n_images:,d` clean images are flagged
# where 5 % are promised. How far the two calibrations
# differ depends on how far the density has overfitted: training images cost {glue:text}`bpd_train:.3f` bits, held-out ones
# {glue:text}`bpd_held_out:.3f`. In {glue:text}`epochs:.1f` epochs there was little
# opportunity; the authors' code is prepared to train for thousands.
#
# On CIFAR-10 the distance is {glue:text}`cifar10_ks_held_out:.3f` against held-out images and {glue:text}`cifar10_ks_train:.3f`
# against the {glue:text}`cifar10_n_train:,d` training images, and {glue:text}`cifar10_alarms_held_out:.1f` % and
# {glue:text}`cifar10_alarms_train:.1f` % of {glue:text}`cifar10_n_images:,d` clean images are flagged. Its density saw {glue:text}`cifar10_epochs:.1f` epochs, and its training images
# cost {glue:text}`cifar10_bpd_train:.3f` bits, its held-out ones {glue:text}`cifar10_bpd_held_out:.3f`.

# %% [markdown]
# ## The distribution of p-values
#
# {numref}`fig-p-values` is the paper's Figure 3. A flat histogram at the dashed line means: these images look like clean
# ones. A spike at zero means: hardly any reference image is as unlikely.

# %% mystnb={"figure": {"name": "fig-p-values", "caption": "p-values of test images against held-out images, clean and attacked with {math}`\\epsilon = 8` (the paper's Figure 3). The dashed line is the uniform distribution; the vertical scales differ."}, "image": {"alt": "Six histograms of p-values for each data set: nearly flat for clean images, a spike at zero for RAND, FGSM and BIM.", "width": "680px"}} tags=["hide-input"]
detection_figures.p_value_panels(figure_3)

# %% [markdown]
# :::{table} {numref}`fig-p-values` in numbers. Intervals: 95 %; of the mean, normal approximation; of the share, Wilson. The KS statistic is the distance from the uniform distribution. Last column: the mean against training images, the paper's choice.
# :name: tbl-panels
#
# ```{glue:md} panels
# :format: myst
# ```
# :::
#
# What the paper reads off its Figure 3, on CIFAR-10: clean test images are almost uniform; the method "works especially well"
# for RAND, FGSM and BIM; DeepFool and CW deviate from uniform, too, but less. {numref}`tbl-claims` asks whether that holds here.
#
# :::{table} What Figure 3 claims, and whether it holds. "Below" compares p-values image by image: "yes" if the 95 % interval of the mean difference lies below zero for each pair, "no" if it lies above zero for some pair, else "undecided". The distance from uniform is that of {numref}`tbl-calibration`.
# :name: tbl-claims
#
# ```{glue:md} claims
# :format: myst
# ```
# :::
#
# ```{glue:md} claims_summary
# :format: myst
# ```
#
# On CIFAR-10 {glue:text}`cifar10_few_rand:.0f` % of the images after RAND, {glue:text}`cifar10_few_fgsm:.0f` % after FGSM and
# {glue:text}`cifar10_few_bim:.0f` % after BIM have a p-value of at most 0.05. The two attacks that search for small changes lie
# between those and the clean images ({glue:text}`cifar10_few_clean:.0f` %), as they do in the paper: DeepFool with
# {glue:text}`cifar10_few_deepfool:.0f` %, CW with {glue:text}`cifar10_few_carlini_wagner:.0f` %. They were given the first
# {glue:text}`cifar10_n_dear:,d` images only, of which {glue:text}`cifar10_few_same_images:.0f` % are flagged when clean. A density that is well behind
# the paper's in bits ({doc}`01_models`) is enough for that.
#
# On Fashion-MNIST it is {glue:text}`few_rand:.0f` %, {glue:text}`few_fgsm:.0f` % and {glue:text}`few_bim:.0f` % after RAND, FGSM and
# BIM. There the two lie far apart: with {glue:text}`few_deepfool:.0f` % DeepFool is nearly as conspicuous as the large
# perturbations, and with {glue:text}`few_carlini_wagner:.0f` % CW is hardly more so than clean images.

# %% tags=["remove-output", "hide-input"]
nearest = {
    name: {
        kind: p_values(-torch.tensor(bits, dtype=torch.float64), -reference[name]["held-out"])
        for kind, bits in bits_rounded_to_nearest(lab).items()
    }
    for name, lab in labs.items()
}
tables = {}
for name, groups in nearest.items():
    rounded = {kind: labs[name].record(Condition(name, kind, FIGURE_EPS, rounding="nearest")) for kind in groups}
    clean = records[name, FIGURE_EPS]["clean"]
    wrong = {kind: groups[kind][fooled({"clean": clean, **rounded}, kind)] for kind in groups}
    harmful = {f"{NAMES[kind]}, now misclassified": values for kind, values in wrong.items() if len(values) > 1}
    tables[f"{TITLES[name]}, outward"] = p_value_table({kind: figure_3[name][kind] for kind in groups})
    tables[f"{TITLES[name]}, nearest"] = p_value_table(groups | harmful)
    for kind, values in groups.items():
        glue(f"{PREFIXES[name]}nearest_few_{kind}", 100 * (values <= 0.05).double().mean().item(), display=False)
        glue(f"{PREFIXES[name]}nearest_error_{kind}", 100 * (1 - rounded[kind].accuracy), display=False)
        glue(f"{PREFIXES[name]}nearest_wrong_{kind}", len(wrong[kind]), display=False)
        glue(f"{PREFIXES[name]}nearest_caught_{kind}", int((wrong[kind] <= 0.05).sum()), display=False)
glue("nearest", Markdown(stacked(tables)), display=False)
changed = {name: changes(lab) for name, lab in labs.items()}
glue("changes", Markdown(stacked({TITLES[name]: changes_table(found) for name, found in changed.items()})), display=False)
for name, found in changed.items():
    for kind in ATTACKS:
        mean = torch.tensor(found[kind]["mean"], dtype=torch.float64).mean().item()
        glue(f"{PREFIXES[name]}change_{kind}", mean, display=False)

# %% [markdown]
# ### Is it the rounding?
#
# DeepFool and CW find real numbers, and this book rounds them *outward*, to the next level away from the original image:
# a change of a tenth of a level becomes a whole one. That keeps more of the attack ({doc}`02_attacks`), but it might also
# decide what the density notices. {numref}`tbl-nearest` tests it: the same finds, rounded to the *nearest* level instead.
#
# :::{table} p-values of what DeepFool and CW find with eps 8, rounded to integers in two ways; columns as in {numref}`tbl-panels`. "Now misclassified": only the images that the ResNet gets wrong, and right without the attack.
# :name: tbl-nearest
#
# ```{glue:md} nearest
# :format: myst
# ```
# :::
#
# On Fashion-MNIST it is not that alone. **DeepFool** stays conspicuous: {glue:text}`nearest_few_deepfool:.1f` % of its images have a
# p-value of at most 0.05, instead of {glue:text}`few_deepfool:.1f` %. (Rounded to nearest it is a weaker attack, too, which the ResNet
# gets wrong on {glue:text}`nearest_error_deepfool:.1f` % of the images instead of {glue:text}`error_deepfool:.1f` %; of those that it
# makes wrong {glue:text}`nearest_caught_deepfool:,d` of {glue:text}`nearest_wrong_deepfool:,d` have such a p-value.) Its changes are simply not small ({numref}`tbl-changes`):
# {glue:text}`change_deepfool:.2f` levels per pixel on average, where RAND changes {glue:text}`change_rand:.2f`.
#
# **CW** stays hidden: {glue:text}`nearest_few_carlini_wagner:.1f` % rounded to nearest, {glue:text}`few_carlini_wagner:.1f` %
# rounded outward, about as many as of clean images. Yet it does harm: rounded outward, the ResNet misclassifies
# {glue:text}`error_carlini_wagner:.1f` % of the images. The size of its changes can hardly be what hides it, which is
# {glue:text}`change_carlini_wagner:.2f` levels per pixel on average; more likely it is where they are. It leaves the black background
# alone ({doc}`03_likelihoods`), where the density is surest of itself. The tuned version, which is not confined to $\tanh$ space, is
# found far more often ({numref}`tbl-auc`).
#
# On CIFAR-10 the rounding is a good part of what the density sees. The changes of both attacks are small there, little more than one
# level where they are rounded outward ({glue:text}`cifar10_change_deepfool:.2f` and
# {glue:text}`cifar10_change_carlini_wagner:.2f` levels per sub-pixel on average). Rounded to nearest,
# {glue:text}`cifar10_nearest_few_deepfool:.0f` % of DeepFool's images and {glue:text}`cifar10_nearest_few_carlini_wagner:.0f` % of CW's
# have a p-value of at most 0.05, instead of {glue:text}`cifar10_few_deepfool:.0f` % and
# {glue:text}`cifar10_few_carlini_wagner:.0f` %; of the same {glue:text}`cifar10_n_dear:,d` images, clean, it is
# {glue:text}`cifar10_few_same_images:.0f` %.
#
# One choice stands behind what is said of CW on Fashion-MNIST. CW's search returns black pixels that are off by what $\tanh$ loses in 32 bits, a fraction of a
# thousandth of a level. Rounding outward disregards changes below a thousandth; it would make whole levels of them otherwise.
#
# :::{table} What the attacks with eps 8 change: absolute change of a sub-pixel, mean over an image and the largest, in colour levels; means over the images with 95 % intervals.
# :name: tbl-changes
#
# ```{glue:md} changes
# :format: myst
# ```
# :::

# %% [markdown]
# ## How well attacks are detected
#
# As a detector the p-value of {eq}`eq-p-value` is judged by its receiver operating characteristic, or ROC curve
# ({numref}`fig-roc`, the paper's Figure 6a): of the attacked images, how many are recognised at a given rate of false alarms? The
# area under it, AUC, is the probability that an attacked image has a smaller p-value than a clean one. Clean *test* images are the negatives, which is what a detector
# meets; of each attack those that it was given, because the first images need not be as likely as all of them.

# %% mystnb={"figure": {"name": "fig-roc", "caption": "ROC curves of the p-value as a detector of attacks with {math}`\\epsilon = 8` (the paper's Figure 6a). The same test images, clean, are the negatives, held-out images the reference."}, "image": {"alt": "ROC curves for five attacks; RAND, FGSM and BIM rise steeply to the upper left corner, CW stays far below.", "width": "680px"}} tags=["hide-input"]
curves = {
    name: {kind: roc(paired(groups["clean"], groups[kind]), groups[kind]) for kind in ATTACKS}
    for name, groups in figure_3.items()
}
detection_figures.roc_panels(curves)

# %% [markdown]
# {numref}`fig-roc-paper` is the same figure with the paper's negatives, the training images: their p-values are uniform by
# construction. It has one curve more, for clean test images as if they were attacks, which should be the diagonal.

# %% mystnb={"figure": {"name": "fig-roc-paper", "caption": "The same as the paper makes it: training images are the negatives and the reference."}, "image": {"alt": "ROC curves as before, and one for clean test images that follows the diagonal.", "width": "680px"}} tags=["hide-input"]
training = {name: p_values(-reference[name]["train"], -reference[name]["train"]) for name in labs}
paper_curves = {
    name: {kind: roc(training[name], tests[name, FIGURE_EPS, "train"][kind]) for kind in papers} for name in labs
}
detection_figures.roc_panels(paper_curves)

# %% tags=["remove-output", "hide-input"]
for name in labs:
    negatives, positives = training[name], tests[name, FIGURE_EPS, "train"]["clean"]
    for text, value in zip(("low", "high"), auc_interval(negatives, positives), strict=True):
        glue(f"{PREFIXES[name]}paper_auc_{text}", value, display=False)
    glue(f"{PREFIXES[name]}paper_auc_clean", paper_curves[name]["clean"].auc, display=False)
for short, chosen in (("small", [(n, FIGURE_EPS) for n in labs]), ("others", [k for k in records if k[1] != FIGURE_EPS])):
    tables = {}
    for name, eps in chosen:
        kinds = ALL_ATTACKS if short == "small" else ATTACKS
        ours, theirs = tests[name, eps, "held-out"], tests[name, eps, "train"]
        found = {kind: ours[kind] for kind in kinds}
        negatives = {kind: paired(ours["clean"], values) for kind, values in found.items()}
        tables[f"{TITLES[name]}, eps {eps}"] = detection_table(found, negatives, paper=(theirs, training[name]))
    glue(f"auc_{short}", Markdown(stacked(tables)), display=False)
tables = {}
for name in labs:
    found, values = records[name, FIGURE_EPS], tests[name, FIGURE_EPS, "held-out"]
    wrong = {kind: values[kind][fooled(found, kind)] for kind in ALL_ATTACKS}
    every = {kind: paired(values["clean"], values[kind]) for kind in ALL_ATTACKS}
    same = {kind: every[kind][fooled(found, kind)] for kind in ALL_ATTACKS}  # the images that become wrong, before they do
    tables[f"{TITLES[name]}, eps {FIGURE_EPS}"] = detection_table(wrong, same)
    kind = "carlini_wagner"
    for short, compared in (("wrong", (same, wrong)), ("unusual", (every, same))):
        area = roc(*(of[kind] for of in compared)).auc if len(same[kind]) else math.nan
        glue(f"{PREFIXES[name]}{short}_auc_{kind}", area, display=False)
glue("auc_wrong", Markdown(stacked(tables)), display=False)
for name, eps in records:
    values = tests[name, eps, "held-out"]
    for kind in [kind for kind in values if kind != "clean"]:
        clean = paired(values["clean"], values[kind])
        glue(f"{PREFIXES[name]}auc_{kind}_{eps}", roc(clean, values[kind]).auc, display=False)
        if eps == FIGURE_EPS:
            for short, some in (("found", values[kind]), ("wrong", values[kind][fooled(records[name, eps], kind)])):
                share = int((some <= 0.01).sum()) / max(1, len(some))
                glue(f"{PREFIXES[name]}{short}_1_{kind}", 100 * share, display=False)

# %% [markdown]
# On Fashion-MNIST the area under the curve of the clean images is {glue:text}`paper_auc_clean:.3f` (95 % interval
# {glue:text}`paper_auc_low:.3f` to {glue:text}`paper_auc_high:.3f`); 0.5 would be the diagonal.
#
# :::{table} Detection of attacks with eps 8: area under the ROC curve with 95 % DeLong intervals, and the share of images with a p-value of at most 0.01 and 0.05, with Wilson intervals; below it, the share of the negatives, which the test means to keep at 1 % and 5 %. Last column: the AUC with the paper's negatives, the {glue:text}`n_train:,d` and {glue:text}`cifar10_n_train:,d` training images.
# :name: tbl-auc
#
# ```{glue:md} auc_small
# :format: myst
# ```
# :::
#
# The intervals are after {cite:t}`delong1988comparing`, on the logit scale. They take the images to be independent; each
# attacked image comes from a clean one that is among the negatives, which makes the intervals wide rather than narrow.
#
# On Fashion-MNIST, BIM is detected with an AUC of {glue:text}`auc_bim_8:.3f`, RAND with
# {glue:text}`auc_rand_8:.3f` and CW with {glue:text}`auc_carlini_wagner_8:.3f`. An AUC close to 1 is less than it seems:
# the few clean images that cost most are less likely than most attacked ones, and a test at 1 %
# finds {glue:text}`found_1_bim:.0f` % of BIM's, {glue:text}`found_1_rand:.0f` % of RAND's and
# {glue:text}`found_1_carlini_wagner:.0f` % of CW's. *CW, tuned* is an attack of our own that the paper does not have. Of {glue:text}`n_dear_right:,d` images
# that the network gets right it fools it on {glue:text}`tuned_fooled:,d`, the authors' CW on {glue:text}`cw_fooled:,d`, and its AUC is
# {glue:text}`auc_carlini_wagner_tuned_8:.3f`.
#
# On CIFAR-10 RAND and FGSM stand out more, with {glue:text}`cifar10_auc_rand_8:.3f` and {glue:text}`cifar10_auc_fgsm_8:.3f`, BIM
# about as much, with {glue:text}`cifar10_auc_bim_8:.3f`: at the level of 1 % {glue:text}`cifar10_found_1_fgsm:.0f` % of FGSM's images are found
# and {glue:text}`cifar10_found_1_bim:.0f` % of BIM's. DeepFool ({glue:text}`cifar10_auc_deepfool_8:.3f`) and CW
# ({glue:text}`cifar10_auc_carlini_wagner_8:.3f`) do not look like clean images on average, but at 1 % only
# {glue:text}`cifar10_found_1_deepfool:.0f` % and {glue:text}`cifar10_found_1_carlini_wagner:.0f` % are found. The tuned CW
# fools the ResNet on {glue:text}`cifar10_tuned_fooled:,d` of {glue:text}`cifar10_n_dear_right:,d` images and has an AUC of
# {glue:text}`cifar10_auc_carlini_wagner_tuned_8:.3f`; at the same rate {glue:text}`cifar10_found_1_carlini_wagner_tuned:.0f` % of its images
# are found. BIM fools it about as often and is found far more easily: what matters is not how often an attack succeeds, but how far it
# has to go.
#
# :::{table} The same at the other sizes of the paper's tables.
# :name: tbl-auc-others
#
# ```{glue:md} auc_others
# :format: myst
# ```
# :::
#
# With more room RAND, FGSM and BIM give themselves away ({numref}`tbl-auc-others`): on Fashion-MNIST the AUC of BIM is
# {glue:text}`auc_bim_25:.3f` at $\epsilon = 25$. CW has an AUC of {glue:text}`auc_carlini_wagner_25:.3f`, while the
# accuracy that it leaves goes from {glue:text}`right_carlini_wagner_8:.0f` to {glue:text}`right_carlini_wagner_25:.0f` %: it puts the
# room to use where the density does not look.
# On CIFAR-10 the AUC of BIM is {glue:text}`cifar10_auc_bim_16:.3f` at $\epsilon = 16$. With less room they are harder to see: at
# $\epsilon = 2$ BIM has an AUC of {glue:text}`cifar10_auc_bim_2:.3f`, and the ResNet is right about no more than
# {glue:text}`cifar10_right_bim_2:.0f` % of its images.
#
# ### Only the attacks that succeed
#
# An attack that leaves the prediction right does no harm, and a detector need not find it. {numref}`tbl-auc-wrong` counts
# only images that the ResNet gets right without the attack and wrong with it.
#
# :::{table} Detection of those attacked images that the ResNet misclassifies because of the attack, eps 8. The negatives are the same images, clean.
# :name: tbl-auc-wrong
#
# ```{glue:md} auc_wrong
# :format: myst
# ```
# :::
#
# On Fashion-MNIST that changes little for the attacks that are found. At the level of 1 % {glue:text}`wrong_1_fgsm:.0f` % of FGSM's misclassified
# images are found, and {glue:text}`found_1_fgsm:.0f` % of all of them; for DeepFool it is {glue:text}`wrong_1_deepfool:.0f` % and
# {glue:text}`found_1_deepfool:.0f` %, for CW {glue:text}`wrong_1_carlini_wagner:.0f` % and {glue:text}`found_1_carlini_wagner:.0f` %. Are the
# images on which CW succeeds unusual ones? Clean, they have an AUC of {glue:text}`unusual_auc_carlini_wagner:.3f` against all clean ones. What
# it makes of them has {glue:text}`wrong_auc_carlini_wagner:.3f` against the same images, clean; of all of its images it is
# {glue:text}`auc_carlini_wagner_8:.3f`. On CIFAR-10, where the authors' CW fools the ResNet on {glue:text}`cifar10_cw_fooled:,d` of
# {glue:text}`cifar10_n_dear_right:,d` images, the two can hardly differ: {glue:text}`cifar10_auc_carlini_wagner_8:.3f` and
# {glue:text}`cifar10_wrong_auc_carlini_wagner:.3f`.
#
# ## Limits
#
# The test is one-sided, although the alternative that the paper states has two sides, as its conclusion concedes: an image that is *more* likely than any
# clean one passes, as a black one does ({doc}`../models`, known failures). Densities of images are known to find simple pictures of
# another kind likelier than those that they were trained on {cite:p}`nalisnick2019deep`. A small p-value
# says that an image is unlike the reference images, not that it was attacked: after RAND, which does the ResNet little harm,
# it is as small as after FGSM. And these attacks did not try to evade the detector; one that does is a different matter
# {cite:p}`carlini2017adversarial`.

# %% [markdown]
# # Detecting adversarial images
#
# Bits per dimension become a test by comparison: is this image less likely than the images that the density knows?

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
import json

from IPython.display import Markdown
from myst_nb import glue
from scipy.stats import kstest

from pixeldefend import p_values, roc
from pixeldefend.paths import WEIGHTS
from pixeldefend.study import Condition, Lab, figures
from pixeldefend.study.conditions import ATTACKS, EPS_ATTACK, NAMES

figures.use_style()
lab = Lab("fashion-mnist", profile)
small, large = EPS_ATTACK[lab.data_set]

# %% [markdown]
# ## The permutation test
#
# Take $N$ reference images $X_1, \dots, X_N$ and a new image $X'$. If all come from the same distribution, the rank of
# $p(X')$ among the reference likelihoods is uniform. The p-value of section 3 is
#
# $$ P = \frac{1}{N+1} \left( 1 + \sum_{i=1}^{N} \mathbb{1}\left[ p(X_i) \le p(X') \right] \right), $$ (eq-p-value)
#
# small when hardly any reference image is as unlikely as $X'$. It is exact, whatever the density, on one condition: that
# the reference images and $X'$ are exchangeable. The paper compares with the images that the density was *trained* on.
# Training raises exactly those likelihoods, so a fresh clean image looks a little less likely than it should, and the test
# raises more false alarms than it promises. The cure costs nothing: compare with images kept out of training. Here these
# are the last 5,000 training images, which no density in this book has seen.

# %% tags=["hide-input"]
clean = lab.record(Condition(lab.data_set))
attacked = {(a, e): lab.record(Condition(lab.data_set, a, e)) for a in ATTACKS for e in (small, large)}
reference = {split: lab.reference(split) for split in ("held-out", "train")}


def test(record, split="held-out"):
    return p_values(-record.bits, -reference[split].bits)


glue("n_images", len(clean), display=False)
glue("n_dear", len(attacked["deepfool", small]), display=False)
for split, record in reference.items():
    name = split.replace("-", "_")
    glue(f"n_{name}", len(record), display=False)
    glue(f"bpd_{name}", record.bits.mean().item(), display=False)
    glue(f"ks_{name}", float(kstest(test(clean, split).numpy(), "uniform").statistic), display=False)
    glue(f"alarms_{name}", 100 * (test(clean, split) <= 0.05).double().mean().item(), display=False)
scores = json.loads((WEIGHTS / "pixelcnn" / lab.density_name / "scores.json").read_text())
glue("epochs", scores["images_seen"] / scores["settings"]["training_images"], display=False)
glue("bpd_test", clean.bits.mean().item(), display=False)

# %% [markdown]
# ## The distribution of p-values
#
# {numref}`fig-p-values` corresponds to the paper's Figure 3. A flat histogram at the dashed line means: these images look
# like clean ones. A spike at zero means: none of the reference images is as unlikely.

# %% mystnb={"figure": {"name": "fig-p-values", "caption": "p-values of test images against held-out training images, clean and attacked with {math}`\\epsilon = 8`. The dashed line is the uniform distribution."}, "image": {"alt": "Six histograms of p-values: nearly flat for clean images, a spike at zero for attacked ones.", "width": "640px"}} tags=["hide-input"]
figures.p_value_histograms({"clean": test(clean)} | {NAMES[a]: test(attacked[a, small]) for a in ATTACKS})

# %% [markdown]
# For the clean images the largest distance between their p-values and the uniform distribution (the Kolmogorov-Smirnov
# statistic) is {glue:text}`ks_held_out:.3f` against the {glue:text}`n_held_out:d` held-out images and
# {glue:text}`ks_train:.3f` against the first {glue:text}`n_train:d` training images. A detector that promises 5 % false alarms
# raised {glue:text}`alarms_held_out:.1f` % with the held-out images and {glue:text}`alarms_train:.1f` % with the training
# images, on {glue:text}`n_images:d` clean test images. Mean bits per dimension: {glue:text}`bpd_train:.3f` (training),
# {glue:text}`bpd_held_out:.3f` (held out), {glue:text}`bpd_test:.3f` (these test images). How far the two calibrations
# differ depends on how far the density has overfitted; after {glue:text}`epochs:.1f` epochs of training there has been
# little opportunity.

# %% [markdown]
# ## How well attacks are detected
#
# As a detector the p-value is judged by its ROC curve ({numref}`fig-roc`, the paper's Figure 6a): of the attacked images,
# how many are recognised at a given rate of false alarms? The paper takes training images as the negatives; here they are
# clean *test* images, which is what a detector meets.

# %% mystnb={"figure": {"name": "fig-roc", "caption": "ROC curves of the p-value as a detector; clean test images are the negatives. Thin lines {math}`\\epsilon = 8`, thick lines {math}`\\epsilon = 25`."}, "image": {"alt": "ROC curves for five attacks at two radii.", "width": "620px"}} tags=["hide-input"]
curves = {f"{NAMES[a]}, eps {e}": roc(test(clean), test(attacked[a, e])) for a in ATTACKS for e in (small, large)}
figures.roc_curves(curves)

# %% tags=["remove-output", "hide-input"]
lines = ["| attack | AUC, eps 8 | found at 5 % false alarms | AUC, eps 25 | found at 5 % false alarms |", "|---|--:|--:|--:|--:|"]
for a in ATTACKS:
    cells = [NAMES[a]]
    for e in (small, large):
        curve = curves[f"{NAMES[a]}, eps {e}"]
        found = curve.true_positive_rate[curve.false_positive_rate <= 0.05].max().item()
        cells += [f"{curve.auc:.3f}", f"{100 * found:.0f} %"]
        glue(f"auc_{a}_{e}", curve.auc, display=False)
    lines.append("| " + " | ".join(cells) + " |")
glue("auc_table", Markdown("\n".join(lines)), display=False)

# %% [markdown]
# :::{table} Area under the ROC curve, and the share of attacked images found when 5 % of the clean ones are flagged. DeepFool and CW: {glue:text}`n_dear:d` images.
# :name: tbl-auc
#
# ```{glue:md} auc_table
# :format: myst
# ```
# :::
#
# Two limits should be kept in mind. The test is one-sided: an image that is *more* likely than any photograph (a constant
# one, say) passes. And these attacks did not try to evade the detector; one that does is a different matter
# {cite:p}`carlini2017adversarial`.

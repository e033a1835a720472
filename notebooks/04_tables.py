# %% [markdown]
# # Does it help? Accuracy before and after
#
# The question of the paper's Table 1: how often is the classifier right about an attacked image, without PixelDefend and
# with it?

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend.study import Condition, Lab, figures, tables
from pixeldefend.study.conditions import ATTACKS, EPS_ATTACK, NAMES

figures.use_style()
lab = Lab("fashion-mnist", profile)
small, large = EPS_ATTACK[lab.data_set]

# %% [markdown]
# ## How the table is made
#
# Every attack is computed on the *undefended* ResNet, with full knowledge of it, and all defences then meet the same
# attacked images. For the row with PixelDefend that is a transfer attack: the attacker does not know that the image will
# be purified. It says nothing about an attacker who does. {cite:t}`athalye2018obfuscated` attacked the defended system as
# a whole and were left with an accuracy of 9 % on CIFAR-10; a table such as this one must not be read as a claim of
# white-box robustness.
#
# Attacks and purified images are integers from 0 to 255 throughout. In brackets stands the 95 % Wilson interval,
# rounded outward; the paper gives none.

# %% tags=["remove-output", "hide-input"]
def normal(attack, eps):
    return Condition(lab.data_set, attack, eps)


grid = [("ResNet, normal", normal), ("ResNet, normal + PixelDefend", lab.pixeldefend)]
table = tables.accuracy_table(grid, lab.record, lab.data_set)
glue("table_1", Markdown(table), display=False)
records = {(title, a, e): lab.record(row(a, e)) for title, row in grid for a in ATTACKS for e in (small, large)}
clean, clean_purified = lab.record(normal("clean", 0)), lab.record(lab.pixeldefend())
glue("n_images", len(clean), display=False)
glue("clean", 100 * clean.accuracy, display=False)
glue("clean_purified", 100 * clean_purified.accuracy, display=False)
for (title, attack, eps), record in records.items():
    row = "purified" if "Pixel" in title else "normal"
    glue(f"{row}_{attack}_{eps}", 100 * record.accuracy, display=False)

# %% [markdown]
# ## Table 1, the rows that exist so far
#
# :::{table} Accuracy in percent on the first test images of Fashion-MNIST, after attacks on the undefended ResNet; purification with eps_defend = 32. Below each number, the paper's.
# :name: tbl-table-1
#
# ```{glue:md} table_1
# :format: myst
# ```
# :::
#
# All cells rest on the same {glue:text}`n_images:d` test images. Without a defence, BIM with $\epsilon = 8$ leaves
# {glue:text}`normal_bim_8:.1f` % of them correctly classified; after purification it is {glue:text}`purified_bim_8:.1f` %. At
# $\epsilon = 25$ the figures are {glue:text}`normal_bim_25:.1f` % and {glue:text}`purified_bim_25:.1f` %. Purification has its
# price: on images that nobody attacked, accuracy goes from {glue:text}`clean:.1f` % to {glue:text}`clean_purified:.1f` %,
# perhaps because fine texture, which helps to tell a shirt from a coat, is smoothed away; that was not tested.

# %% tags=["remove-output", "hide-input"]
lines = ["| | strongest attack, eps 8 | worst attack per image, eps 8 | strongest attack, eps 25 | worst attack per image, eps 25 |",
         "|---|:-:|:-:|:-:|:-:|"]
for title, _ in grid:
    cells = [title]
    for e in (small, large):
        each = {a: records[title, a, e] for a in ATTACKS}
        worst, value = tables.strongest(each)
        cells += [f"{100 * value:.1f} ({NAMES[worst]})", f"{100 * tables.worst_case(each):.1f}"]
    lines.append("| " + " | ".join(cells) + " |")
glue("strongest", Markdown("\n".join(lines)), display=False)

# %% [markdown]
# ## The strongest attack, two ways
#
# The paper's last column is the worst of its attacks on average. An attacker who may choose the attack *for each image*
# does better; {numref}`tbl-strongest` gives both.
#
# :::{table} Accuracy in percent under the strongest of RAND, FGSM and BIM.
# :name: tbl-strongest
#
# ```{glue:md} strongest
# :format: myst
# ```
# :::

# %% [markdown]
# ## Where the numbers come from
#
# Every cell is a record: a small text file with the label, the prediction and the bits per dimension of each image, the
# fingerprints of both sets of weights, and the configuration that produced it. They lie in `data/records`; a record that
# does not match the weights at hand is computed again, and one that was edited is refused.

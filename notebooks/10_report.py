# %% [markdown]
# # The reproduction report
#
# Every headline claim of {cite:t}`song2018pixeldefend` on one page: what the paper says, what came out here, and whether the
# two agree. The page reads what the chapters before it left on disk; only {numref}`tbl-differences` has measurements of its own.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend.study import Lab
from pixeldefend.study.available import PREFIXES
from pixeldefend.study.claims import choices, differences, judging, report

labs = report.reading_labs(profile)
for data_set in report.scored(labs):
    choices.measured(Lab(data_set, profile))  # the one measurement that is this chapter's own
judged = {data_set: report.judge_all(lab) for data_set, lab in labs.items()}
every = [found for of in judged.values() for found in of]

glue("claims", len(report.CLAIMS), display=False)
glue("glance", Markdown(judging.glance_table(every, report.CLAIMS)), display=False)
glue("counts", Markdown(judging.verdicts_table(every)), display=False)
for data_set, of in judged.items():
    glue(f"claims_{data_set}", Markdown(judging.claims_table(of, report.CLAIMS)), display=False)
    glue(f"failed_{data_set}", Markdown(report.listed(of, report.CLAIMS)), display=False)
for data_set, counts in judging.verdict_counts(every).items():
    for verdict, count in counts.items():
        glue(PREFIXES[data_set] + verdict.replace(" ", "_"), count, display=False)
glue("rules", Markdown(report.rules_table()), display=False)
glue("differences", Markdown(differences.differences_table(labs)), display=False)
glue("not_run_table", Markdown(report.not_run_table(labs.values())), display=False)
glue("choice_images", choices.IMAGES, display=False)

# %% [markdown]
# ## At a glance
#
# :::{table} The paper's claims, and whether they hold here. Claims on figures and tables of one data set are judged on both where that is possible.
# :name: tbl-glance
# :class: records
#
# ```{glue:md} glance
# :format: myst
# ```
# :::
#
# One claim carries the others: that adversarial images for purification and classifier together are hard to find (section 4.4).
# Such a claim can be refuted by a single attack, and is confirmed by none. What sections 4.1 to 4.3 say of accuracy behind
# purification is measured with attacks that do not know of it, and says nothing about an attack that does.
#
# ## How a verdict comes about
#
# The {glue:text}`claims:,d` claims are taken from the abstract, sections 1, 3, 4 and the appendices. Each is broken into comparisons
# of numbers, and for each comparison a rule says when it agrees with the paper
# ({numref}`tbl-rules`). The verdict follows from the comparisons alone:
#
# - **holds**: all of them agree with the paper;
# - **holds in part**: some do; or all do that could be made, but some could not;
# - **undecided**: none does, but all lie so close that more images might decide otherwise;
# - **does not hold**: none does;
# - **not run**: none could be made. What is lacking is named: a classifier, a density, or the record of a measurement.
#
# A comparison that does not pass counts against the claim even where its interval would allow a pass, and one that passes by its
# estimate counts for it, whatever its interval, unless the rule asks for the whole interval.
#
# Two accuracies are compared on the images that both conditions have, one by one. "By more than chance" means that McNemar's
# exact test, which counts the images that are right under one of them only, gives $p < 0.05$ {cite:p}`mcnemar1947note`. Where the
# paper's columns are for several $\epsilon$, its numbers stand as it prints them: "38/24" is 38 % at the smallest $\epsilon$ and 24 % at the largest
# (Fashion-MNIST: 8 and 25; CIFAR-10: 2, 8 and 16). In brackets stand 95 % intervals.
#
# :::{table} The verdicts, counted.
# :name: tbl-verdicts
#
# ```{glue:md} counts
# :format: myst
# ```
# :::
#
# A verdict is about the claim *as measured here*: smaller numbers of images, networks trained for less time
# ({doc}`01_models`), and for CIFAR-10 a density much smaller than the paper's. A claim that does not hold here is not thereby
# refuted, and one that holds is not thereby safe: the attacks in claims on accuracy do not know of the purification, and
# {doc}`08_end_to_end` shows what one does that knows.

# %% [markdown]
# ## Fashion-MNIST
#
# On Fashion-MNIST {glue:text}`holds:,d` claims hold, {glue:text}`holds_in_part:,d` hold in part, {glue:text}`undecided:,d` are undecided,
# {glue:text}`does_not_hold:,d` do not hold, and {glue:text}`not_run:,d` were not run. For each of those that do not hold as a whole, the list says what fails and, where it
# is known or can be suspected, why; the numbers are in {numref}`tbl-claims-fashion-mnist`.
#
# ```{glue:md} failed_fashion-mnist
# :format: myst
# ```
#
# :::{table} Claims and verdicts, Fashion-MNIST.
# :name: tbl-claims-fashion-mnist
# :class: records
#
# ```{glue:md} claims_fashion-mnist
# :format: myst
# ```
# :::

# %% [markdown]
# ## CIFAR-10
#
# On CIFAR-10 {glue:text}`cifar10_holds:,d` claims hold, {glue:text}`cifar10_holds_in_part:,d` hold in part,
# {glue:text}`cifar10_undecided:,d` are undecided, {glue:text}`cifar10_does_not_hold:,d` do not hold, and {glue:text}`cifar10_not_run:,d`
# were not run; the numbers are in
# {numref}`tbl-claims-cifar10`.
#
# ```{glue:md} failed_cifar10
# :format: myst
# ```
#
# :::{table} Claims and verdicts, CIFAR-10.
# :name: tbl-claims-cifar10
# :class: records
#
# ```{glue:md} claims_cifar10
# :format: myst
# ```
# :::

# %% [markdown]
# ## The rules
#
# A rule should not ask for more than the paper shows. The last column applies the rules for claims on accuracy to the numbers
# that the paper prints in its Tables 1 and 2, as if measured on all 10,000 test images, and as if chance had decided for each
# cell on its own which of them are right (real cells have more images in common, and their differences are found more easily).
# Where that is not "holds", the claim goes further than the paper's own table. Nor do all numbers in those tables fit together: accuracy on clean images does not
# depend on the $\epsilon$ of an attack, yet that of the ResNet with PixelDefend stands as 85/85/88, and a "strongest attack" leaves
# 69 % where the FGSM column of the same row has 68 %. A few points either way mean little.
#
# :::{table} When a comparison agrees with the paper.
# :name: tbl-rules
# :class: records
#
# ```{glue:md} rules
# :format: myst
# ```
# :::

# %% [markdown]
# ## Where paper and code differ
#
# The authors released their code, without weights. In a number of places it does something else than the paper says, and in
# others the paper says nothing. {numref}`tbl-differences` lists the places that can change a number, and which side is
# followed here. Where both sides were run, the last column says what the choice changes; those that belong to no other
# chapter were measured for this one, on the first {glue:text}`choice_images:,d` test images (or fewer, in a shorter run), at $\epsilon = 8$.
#
# :::{table} The paper, the authors' code, and this book.
# :name: tbl-differences
# :class: records
#
# ```{glue:md} differences
# :format: myst
# ```
# :::

# %% [markdown]
# ## What was not run
#
# The list is made from what is in `data/weights` at the time of the build: a classifier or a density that is trained later takes its
# lines off the list, and its rows appear in {doc}`06_tables`.
#
# :::{table} What the paper has and this book has not.
# :name: tbl-not-run
# :class: records
#
# ```{glue:md} not_run_table
# :format: myst
# ```
# :::

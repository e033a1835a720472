# %% [markdown]
# # What purification costs
#
# Algorithm 1 asks the network for the distribution of every pixel, after the pixels before it have been chosen. Taken
# literally that is one evaluation of the whole network per pixel, and one port of the method, that of the Adversarial
# Robustness Toolbox, gave up the sequence altogether. The paper's own code does better: section 4.1 reports 3.6 CIFAR-10 images a second on a TITAN Xp. This chapter says what it costs here.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
import torch
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend.study import Lab, figures, speed
from pixeldefend.study.records import read_signed

figures.use_style()


def measured(data_set):
    lab = Lab(data_set, profile)
    found = read_signed(speed.speed_path(lab.density_name, torch.device("cpu")))
    if found["fingerprint"] != lab.density_fingerprint:
        raise ValueError(f"the record of the speed is of other weights; make it again with: pixeldefend bench {data_set}")
    return found


record, colour = measured("fashion-mnist"), measured("cifar10")


def last(task, precision, of=record):
    return [entry for entry in of[task] if entry["precision"] == precision][-1]


for precision, short in (("float32", "single"), ("bfloat16", "half")):
    best = speed.best_forward(record, precision)
    glue(f"{short}_forward_ms", 1000 / best["images_per_second"], display=False)
    glue(f"{short}_passes", last("purify", precision)["forward_passes"], display=False)
    glue(f"{short}_rate", last("purify", precision)["images_per_second"], display=False)
    glue(f"{short}_memory", record["memory_per_image"][precision] / 1e6, display=False)
    glue(f"{short}_products", 100 * record["profile"][precision]["matrix products"], display=False)
    glue(f"{short}_element", 100 * record["profile"][precision]["element-wise"], display=False)
    glue(f"{short}_start", 100 * record["profile"][precision]["starting operations"], display=False)
    glue(f"{short}_first", record["purify"][[e["precision"] for e in record["purify"]].index(precision)]["forward_passes"],
         display=False)
    reached = last("purify", precision)["images_per_second"] * record["flops_per_image"]
    glue(f"{short}_reached", reached / 1e9, display=False)
    glue(f"{short}_rate_measured", record["matrix_rate"][precision] / 1e9, display=False)

glue("largest_batch", last("purify", "float32")["images"], display=False)
glue("threads", record["machine"]["threads"], display=False)
glue("naive_rate", record["naive"]["images_per_second"], display=False)
glue("naive_images", record["naive"]["images"], display=False)
glue("naive_differ", record["naive"]["sub_pixels_that_differ"], display=False)
at_256 = next(e for e in record["purify"] if e["precision"] == "float32" and e["images"] == 256)
glue("naive_ratio", at_256["images_per_second"] / record["naive"]["images_per_second"], display=False)
glue("gflop", record["flops_per_image"] / 1e9, display=False)
for prefix, change in (("", record["bfloat16"]), ("cifar10_", colour["bfloat16"])):
    glue(f"{prefix}half_sub_pixels", 100 * change["sub_pixels_that_differ"], display=False)
    glue(f"{prefix}half_levels", change["mean_difference_in_levels"], display=False)
    glue(f"{prefix}half_bits", change["mean_change_in_bits"], display=False)
    glue(f"{prefix}half_bits_largest", change["largest_change_in_bits"], display=False)
    glue(f"{prefix}half_after", change["bits_after_bfloat16"], display=False)
    glue(f"{prefix}single_after", change["bits_after_float32"], display=False)
glue("half_images", record["bfloat16"]["images"], display=False)
usual = record["training"][0]
rows = ["| images a step | precision | layout | optimiser | compiled | images per second | as fast as the first |",
        "|--:|---|---|---|---|--:|--:|"]  # fmt: skip
for e in record["training"]:
    how = [e["precision"], e["layout"], {"muon": "Muon", "adam": "Adam alone"}[e["optimizer"]], "yes" if e["compiled"] else "no"]
    ratio = e["images_per_second"] / usual["images_per_second"]
    rows.append(f"| {e['batch']} | {' | '.join(how)} | {e['images_per_second']:.1f} | {ratio:.2f} |")
glue("training_table", Markdown("\n".join(rows)), display=False)
for precision, short in (("float32", "single"), ("bfloat16", "half")):
    for name in ("images", "images_per_second", "forward_passes"):
        glue(f"cifar10_{short}_{name}", last("purify", precision, colour)[name], display=False)
glue("cifar10_gflop", colour["flops_per_image"] / 1e9, display=False)
glue("cifar10_threads", colour["machine"]["threads"], display=False)
glue("cifar10_naive_rate", colour["naive"]["images_per_second"], display=False)
glue("cifar10_naive_differ", colour["naive"]["sub_pixels_that_differ"], display=False)
glue("cifar10_naive_images", colour["naive"]["images"], display=False)

# %% [markdown]
# ## Every activation once
#
# Most of what the network computes for one pixel it has computed for the pixels before {cite}`ramachandran2017fast`. The
# incremental pass of this package computes every activation once in all, so that its arithmetic is that of a *single*
# forward pass, {glue:text}`gflop:.2f` GFLOP for an image of Fashion-MNIST:
#
# - the vertical stream at row $i$ depends on earlier rows only, and is computed a row at a time;
# - the horizontal stream goes pixel by pixel; all that a convolution needs lies in one piece of memory, so that each is
#   one matrix product for the whole batch;
# - the half and quarter resolutions run on every second and fourth row and column.
#
# The answer is that of the slow algorithm: on {glue:text}`naive_images:,d` images, one forward pass per pixel and the incremental pass
# in float32 chose differently in {glue:text}`naive_differ:,d` sub-pixels.
#
# ## Measured
#
# This section and the next two are about Fashion-MNIST. The unit in what follows is the *forward pass*: the network alone, all positions in parallel, on as many images, in the best of the
# forms that were tried on the same machine in the same run ({numref}`tab-forms`). A forward pass takes {glue:text}`single_forward_ms:.1f` ms per
# image in float32 and {glue:text}`half_forward_ms:.1f` ms in bfloat16.
#
# Purifying {glue:text}`largest_batch:,d` images costs {glue:text}`single_passes:.2f` forward passes in float32 and
# {glue:text}`half_passes:.2f` in bfloat16: {glue:text}`single_rate:.0f` and {glue:text}`half_rate:.0f` images a second, on a CPU with
# {glue:text}`threads:,d` threads. With one forward pass per pixel it is {glue:text}`naive_rate:.3f` images a second; the incremental pass at batch 256 is
# {glue:text}`naive_ratio:.0f` times as fast. A single image costs {glue:text}`single_first:.0f` forward passes; the larger
# the batch, the smaller the share of each image ({numref}`fig-cost`).

# %% mystnb={"figure": {"name": "fig-cost", "caption": "Purification of Fashion-MNIST images against the number of images in one call: images per second (left) and cost in forward passes of the same network (right). The authors' number is for a network with sixteen times the arithmetic for each pixel, on larger images, on a GPU of 2017: it is there for scale, not for comparison."}, "image": {"alt": "Two panels: images per second rise with the batch size and flatten; the cost in forward passes falls towards one.", "width": "720px"}} tags=["hide-input"]
figures.cost_of_purifying(record)

# %% tags=["hide-input"]
rows = ["| task | precision | images | images per second | forward passes |", "|---|---|--:|--:|--:|"]
for task in ("score", "purify", "sample"):
    for e in record[task]:
        rows.append(f"| {task} | {e['precision']} | {e['images']} | {e['images_per_second']:.1f} | {e['forward_passes']:.2f} |")
glue("cost_table", Markdown("\n".join(rows)), display=False)
rows = ["| images at a time | layout | compiled | float32 | bfloat16 |", "|--:|---|---|--:|--:|"]
forms = {}
for e in record["forward"]:
    forms.setdefault((e["chunk"], e["layout"], e["compiled"]), {})[e["precision"]] = e["images_per_second"]
for (chunk, layout, compiled), found in forms.items():
    cells = " | ".join(f"{found[precision]:.1f}" if precision in found else "-" for precision in ("float32", "bfloat16"))
    rows.append(f"| {chunk} | {layout} | {'yes' if compiled else 'no'} | {cells} |")
glue("forms_table", Markdown("\n".join(rows)), display=False)

# %% [markdown]
# :::{table} What scoring, purifying and sampling cost. Scoring includes the likelihood, not only the network.
# :name: tab-cost
# ```{glue:md} cost_table
# :format: myst
# ```
# :::
#
# :::{table} The parallel forms of a forward pass, images per second: how many images at a time on each thread, the memory layout, and whether what lies between the convolutions is compiled (tried for the best of the others only).
# :name: tab-forms
# ```{glue:md} forms_table
# :format: myst
# ```
# :::
#
# ## Where the time goes
#
# On one thread and a batch of 256, choosing left out, matrix products take {glue:text}`single_products:.0f` % of the time in float32, what lies between them
# {glue:text}`single_element:.0f` %, and starting the operations {glue:text}`single_start:.0f` %; in bfloat16 it is
# {glue:text}`half_products:.0f`, {glue:text}`half_element:.0f` and {glue:text}`half_start:.0f` %. At its fastest the pass does {glue:text}`single_reached:.0f` GFLOP/s in float32 and
# {glue:text}`half_reached:.0f` in bfloat16, where large square matrix products reached {glue:text}`single_rate_measured:.0f` and {glue:text}`half_rate_measured:.0f`
# in the same run.
#
# The pass keeps two rows of every layer: {glue:text}`single_memory:.1f` MB for each image of the batch in float32, {glue:text}`half_memory:.1f` MB in
# bfloat16.
#
# ## What bfloat16 changes
#
# Over {glue:text}`half_images:,d` test images, scoring in bfloat16 changes the mean by {glue:text}`half_bits:.4f` bits per dimension, and no image by more than
# {glue:text}`half_bits_largest:.3f`. Purification makes {glue:text}`half_sub_pixels:.1f` % of its choices differently, on
# average by {glue:text}`half_levels:.1f` levels: one choice differs, and all that follow are made from another past. The mean likelihood after purification is
# {glue:text}`single_after:.4f` bits per dimension after float32, {glue:text}`half_after:.4f` after bfloat16, both scored in float32. On CIFAR-10 it
# makes {glue:text}`cifar10_half_sub_pixels:.1f` % of the choices differently, by {glue:text}`cifar10_half_levels:.1f` levels, and the
# purified images have {glue:text}`cifar10_single_after:.3f` and {glue:text}`cifar10_half_after:.3f` bits. Nor is it faster for every
# batch ({numref}`tab-cost`). A record of this book says in which of the two its
# images were scored and purified.
#
# ## Training
#
# {numref}`tab-training` says what makes a step of training fast on this CPU, one thing at a time. It is one process with two threads;
# the shipped networks were trained in the end by two processes of one thread each. What a faster step is worth is another matter: Muon's steps cost more than those of Adam, and lead further by more than that (the docstring of
# `pixeldefend.pixelcnn.muon`); batches of 32 were taken because they cost less for each image, and their worth was not measured
# against that of 16. The shipped networks have no dropout, as they see each image a few times only.
#
# :::{table} Training of the Fashion-MNIST network with two threads: images per second, forwards and backwards, with the optimiser's step.
# :name: tab-training
# ```{glue:md} training_table
# :format: myst
# ```
# :::
#
# ## On a GPU
#
# There each operation is shorter still than the time that Python needs to start it. The package records the work of a row once, as
# CUDA graphs, and replays it; the rest is the same code. No GPU was at hand for this book, so no number is given: `pixeldefend bench
# fashion-mnist --device cuda` measures all of the above there, and writes the record that this page would show.
#
# ## CIFAR-10
#
# The paper's 3.6 images a second are of CIFAR-10, with a network of 160 filters (so the authors' code) on a GPU. The small network of this book
# takes {glue:text}`cifar10_gflop:.2f` GFLOP for an image, and purifies {glue:text}`cifar10_single_images:,d` at a time at
# {glue:text}`cifar10_single_images_per_second:.1f` images a second in float32 and {glue:text}`cifar10_half_images_per_second:.1f` in
# bfloat16, on a CPU with {glue:text}`cifar10_threads:,d` threads. That is {glue:text}`cifar10_single_forward_passes:.2f` and
# {glue:text}`cifar10_half_forward_passes:.2f` forward passes for each image. With one forward pass per pixel it is
# {glue:text}`cifar10_naive_rate:.3f` images a second; on {glue:text}`cifar10_naive_images:,d` images the two ways chose differently in
# {glue:text}`cifar10_naive_differ:,d` sub-pixels. In float32, too, a choice between two levels of nearly the same probability can go
# either way with the order of a sum, and all that follow are then made from another past. These numbers come from
# `pixeldefend bench cifar10 --batches 1 16 64 256 --repeats 2`.
#
# All others on this page come from `pixeldefend bench fashion-mnist --compile`; those of {numref}`tab-training` were taken again right
# after it, by the same code, because what had been compiled before kept the compiled training from being so. All ran with nothing
# else; each time is the best of up to three.

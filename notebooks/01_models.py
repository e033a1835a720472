# %% [markdown]
# # Data and models
#
# Three things are needed before anything can be attacked: images, a density that knows what such images look like, and
# classifiers to attack. This chapter shows what of them exists, how good it is, and what was done differently from
# {cite:t}`song2018pixeldefend`. {doc}`../models` has the details of every set of weights.

# %% tags=["parameters"]
profile = "laptop"

# %% tags=["hide-input"]
from IPython.display import Markdown
from myst_nb import glue

from pixeldefend import load_images
from pixeldefend.study import Lab, figures
from pixeldefend.study.available import TITLES
from pixeldefend.study.conditions import EPS_ATTACK
from pixeldefend.study.shipped import architecture, curves, trained

figures.use_style()
labs = {data_set: Lab(data_set, profile) for data_set in EPS_ATTACK}
first = {data_set: load_images(data_set, "test", limit=200) for data_set in EPS_ATTACK}
densities = trained.densities()
absent = [TITLES[data_set] for data_set, lab in labs.items() if not lab.has_density]
glue("data", Markdown(trained.data_table(first)), display=False)
glue("densities", Markdown(trained.density_table(densities)), display=False)
missing = f"For {' and '.join(absent)} there is none yet."
glue("absent", Markdown(missing if absent else "Each data set has its own."), display=False)
copy = next(of.scores for of in densities if of.data_set == "cifar10")
glue("cifar10_training", copy["settings"]["training_images"], display=False)
glue("cifar10_test", copy["test_images"], display=False)
glue("classifiers", Markdown(trained.classifier_table()), display=False)
for network in architecture.TABLES:
    glue(network, Markdown(architecture.architecture_table(network)), display=False)
for of in (of for of in densities if of.name == labs[of.data_set].density_name):
    prefix = "density" if of.data_set == "fashion-mnist" else of.data_set
    glue(f"{prefix}_epochs", of.epochs, display=False)
    glue(f"{prefix}_hours", of.hours, display=False)
    glue(f"{prefix}_history", of.history, display=False)
    glue(f"{prefix}_images", of.images, display=False)
    glue(f"{prefix}_bits", of.scores["test_bits_per_dim"], display=False)
    glue(f"{prefix}_std", of.scores["test_bits_per_dim_std"], display=False)
    glue(f"{prefix}_test_images", of.scores["test_images"], display=False)
    glue(f"{prefix}_filters", of.filters, display=False)
    glue(f"{prefix}_millions", of.parameters / 1e6, display=False)
    glue(f"{prefix}_third_quarter", of.quarters[2], display=False)
    glue(f"{prefix}_last_quarter", of.quarters[3], display=False)

# %% [markdown]
# ## The data
#
# Fashion-MNIST {cite:p}`xiao2017fashion` has small grey pictures of clothes, CIFAR-10 {cite:p}`krizhevsky2009learning` small
# colour photographs of animals and vehicles; both have ten classes ({numref}`fig-classes`). A *sub-pixel* is one number of an
# image, from 0 to 255: one per pixel if it is grey, three if it has colours.
#
# :::{table} The data sets and how they are used here. Numbers of images are those of the published files.
# :name: tbl-data
#
# ```{glue:md} data
# :format: myst
# ```
# :::
#
# Densities and classifiers learn from all but the last 5,000 training images; the authors' code sets aside as many of
# Fashion-MNIST, though perhaps not these. Those 5,000 are *held out*: they calibrate p-values and choose thresholds. The copy of CIFAR-10 that the networks were trained and scored on lacks
# a few images: it has {glue:text}`cifar10_training:,d` to train on and {glue:text}`cifar10_test:,d` to test on. Test images are used for nothing but the numbers in this
# book. All test images of Fashion-MNIST and the first thousand of this copy of CIFAR-10 come with the repository, so that the book
# can be built without a download; of the thousand, the first 500 are those of the official archive.

# %% mystnb={"figure": {"name": "fig-classes", "caption": "The first test image of each class. Above: Fashion-MNIST, from T-shirt to ankle boot. Below: CIFAR-10, from airplane to truck."}, "image": {"alt": "Two rows of ten small images: grey clothes above, colour photographs of animals and vehicles below.", "width": "720px"}} tags=["hide-input"]
figures.gallery(
    {TITLES[name]: trained.one_of_each_class(images) for name, images in first.items()},
    captions={TITLES[name]: images.classes for name, images in first.items()},
)

# %% [markdown]
# ## The density
#
# The density is a PixelCNN++ {cite:p}`salimans2017pixelcnn`, the third of a line of networks that predict pixels one after the other
# {cite:p}`oord2016pixel,oord2016conditional`, trained on clean images alone: it never sees an attack. (Strictly it
# is a probability mass function, as pixels have 256 levels; the paper's word is kept.) It predicts
# each pixel from those above it and to the left of it. How well it does so is measured in *bits per dimension*, the number of bits
# that it needs for a sub-pixel on average ({doc}`03_likelihoods`); fewer are better, and eight are what it takes without any
# knowledge.
#
# ```{glue:md} absent
# :format: myst
# ```
#
# :::{table} The densities: size, training, and bits per dimension on test images with a 95 % interval for the mean. The paper gives one decimal and no number of images.
# :name: tbl-trained-densities
#
# ```{glue:md} densities
# :format: myst
# ```
# :::
#
# The density of Fashion-MNIST has the size that the paper and the authors' code give it. It has seen {glue:text}`density_images:,d`
# training images, {glue:text}`density_history`: {glue:text}`density_epochs:.1f` epochs, which
# took {glue:text}`density_hours:.1f` hours on two processor cores. The authors train with Adam {cite:p}`kingma2015adam`, and their code is prepared for thousands of epochs
# on GPUs; Muon {cite:p}`jordan2024muon` is meant to need fewer. Over {glue:text}`density_test_images:,d` test images its mean is {glue:text}`density_bits:.3f` bits per dimension, where
# the paper has 2.7, and images differ a good deal (standard deviation {glue:text}`density_std:.2f`).
# {numref}`fig-curve` shows its training: {glue:text}`density_third_quarter:.2f` bits per dimension on average in the third quarter of the
# last run, {glue:text}`density_last_quarter:.2f` in the last, over which the learning rate falls to zero.
# {numref}`fig-earlier` shows what purification gained from the runs before and from this one.
#
# The density of CIFAR-10 is a small one: {glue:text}`cifar10_filters:,d` filters where the authors' code has 160, and
# {glue:text}`cifar10_millions:.1f` million parameters instead of 53.7. It has seen {glue:text}`cifar10_images:,d` training images,
# {glue:text}`cifar10_history`: {glue:text}`cifar10_epochs:.1f` epochs, which took {glue:text}`cifar10_hours:.1f` hours on the same
# two cores. It reaches {glue:text}`cifar10_bits:.3f` bits per dimension on {glue:text}`cifar10_test_images:,d` test images; the
# paper's has 3.0. Its curve fell to the end of the last run, and so did the learning rate: {glue:text}`cifar10_third_quarter:.2f`
# bits in the third quarter, {glue:text}`cifar10_last_quarter:.2f` in the last.
# Whatever the chapters find in detecting and purifying CIFAR-10, they find it with this density.

# %% mystnb={"figure": {"name": "fig-curve", "caption": "Training curves of the shipped densities: bits per dimension of the training images of the last run, before each was learnt from. Each dot is the mean over the images since the one before. The learning rate falls to zero over the last part of a run."}, "image": {"alt": "Falling curves of bits per dimension against training images seen, with lines for the test images here and in the paper.", "width": "720px"}} tags=["hide-input"]
curves.of_densities(densities)

# %% [markdown]
# ## Samples
#
# A density can be asked for images: draw the first pixel from its distribution, then the second given the first, and so on. {numref}`fig-samples`
# is the counterpart of the paper's Figures 8 and 9, in which the true images are above and the samples below. No class is
# given to the density, and nothing was selected: these are the first images of the test set and the first samples drawn.

# %% mystnb={"figure": {"name": "fig-samples", "caption": "For each data set that has a density: true test images in the upper row, samples from the density in the two rows below."}, "image": {"alt": "A row of real images above two rows of generated ones, for each data set.", "width": "720px"}} tags=["hide-input"]
figures.gallery(trained.rows_of_samples(labs.values()))

# %% [markdown]
# Look for two things. Nearby pixels should go together: closed outlines, plausible shading. And the whole should be a thing:
# sleeves in pairs, shoes with one heel. In the samples of Fashion-MNIST the first is mostly there. The second is where they
# fall short of the true images, and a density that is better at predicting pixels may be better at it too. In those of CIFAR-10
# colours go together and edges are sharp, but there is nothing that one could name: its density knows how the pixels of a
# photograph are related, and not what photographs show.

# %% [markdown]
# ## The classifiers
#
# The paper attacks a ResNet {cite:p}`he2016deep` and a VGG {cite:p}`simonyan2015very`, and trains the ResNet in three more ways: on adversarial images from FGSM, on those from
# BIM, and with smoothed labels. {numref}`tbl-trained` says which of them exist.
#
# :::{table} The classifiers: accuracy on all test images, with 95 % Wilson intervals. "More" epochs: of a warm start, from weights that had been trained before; "in all": with those, where their number is known.
# :name: tbl-trained
#
# ```{glue:md} classifiers
# :format: myst
# ```
# :::
#
# The authors train each classifier for about 200 epochs. The warm start is our own and saves time: an epoch on BIM examples costs
# several times as much as one without. A warm start went on from weights that were trained before: those of a
# network trained in another way, at first, and later those of a shorter run of its own kind; the weights in between are not shipped.
# The $\epsilon$ of adversarial
# training is that for CIFAR-10, a standard deviation of 8 levels; for Fashion-MNIST the paper names 8 and 25, without saying which column of its table belongs to which.
#
# {numref}`fig-classifier-curves` shows the last run of each. A network that goes on from earlier weights begins high, falls while the
# learning rate is high, and recovers as it goes to zero. The distance between a solid line and the dashed one of its colour is what an
# attack costs a network that learns from it.

# %% mystnb={"figure": {"name": "fig-classifier-curves", "caption": "Training curves of the shipped classifiers: accuracy on the training images of the last run, each before it was learnt from. Dashed: the half of each batch that was attacked in adversarial training, where the solid line is for the other half."}, "image": {"alt": "For each data set, curves of accuracy against passes over the training images, one for each classifier, with lower dashed ones for attacked images.", "width": "720px"}} tags=["hide-input"]
curves.of_classifiers()

# %% [markdown]
# ### Layer by layer
#
# {numref}`tbl-resnet` and {numref}`tbl-vgg` put the tables of the paper's appendix C beside the networks of this package. The column
# "this package" is not written by hand: an image goes through each network, untrained and of the size that is trained here, and every
# operation on its way is noted. In parentheses stand the numbers for Fashion-MNIST, whose networks have a quarter of the feature
# maps. The last column says whether operations, sizes and order agree in both widths. The softmax at the end of the paper's
# tables is left out of the comparison: here a network gives logits, and the loss contains the softmax.
#
# :::{table} Appendix C.1, the ResNet. In italics: the shape after the row.
# :name: tbl-resnet
# :class: records
#
# ```{glue:md} resnet
# :format: myst
# ```
# :::
#
# :::{table} Appendix C.2, the VGG.
# :name: tbl-vgg
# :class: records
#
# ```{glue:md} vgg
# :format: myst
# ```
# :::
#
# Every image is standardised before the first layer, to mean 0 and standard deviation 1; the paper does not mention it, the authors'
# code does it. In two places the code builds other networks than the appendix describes: it has half as many residual blocks, and a
# VGG with five feature blocks instead of four and other widths. Here the appendix is followed. Its VGG has 12 layers with weights, although appendix B speaks of 16.

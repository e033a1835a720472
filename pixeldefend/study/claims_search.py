"""What the paper claims of two searches: for likely images by L-BFGS-B (section 4.1), and for adversarial images of the
classifier and PixelDefend together (section 4.4)."""

from functools import partial

import torch

from ..defenses.lbfgs import OBJECTIVES
from .claims import Claim, Comparisons, Outcome, cifar10_only, most, scored, share
from .conditions import EPS_ATTACK, UPPER_ROWS
from .endtoend import around_purification, sizes_of, through_purification
from .lab import Lab
from .optimisation import SEARCHES, Comparison, measured
from .tables import percent_interval, wilson_interval

NORMAL = UPPER_ROWS[0]


def _optimisers(lab: Lab) -> Comparisons:
    def found() -> Comparison:
        scored(lab, NORMAL)  # the density and the classifier exist
        return measured(lab, SEARCHES[lab.profile_name])

    def runs(objective: str) -> Outcome:
        comparison = found()
        return most((comparison.runs[objective].rounded > comparison.bits["attacked"][:, None]).flatten())

    def greedy() -> Outcome:
        comparison = found()
        return most(comparison.bits["greedy"] < comparison.bits["attacked"])

    less = {f"L-BFGS-B ({objective}), runs that end less likely": partial(runs, objective) for objective in OBJECTIVES}
    return less | {"greedy, images that become more likely": greedy}


def _unrolled(lab: Lab) -> Comparisons:
    def found() -> dict:
        scored(lab, NORMAL)
        return through_purification(lab, sizes_of(lab))

    def unchanged() -> Outcome:
        return most(torch.tensor(found()["bim"]["largest_change"]) == 0)

    def not_fooled() -> Outcome:
        result = found()
        count = len(result["bim"]["predictions"])
        labels, attacked = torch.tensor(result["labels"][:count]), torch.tensor(result["bim"]["predictions"])
        fooled = (torch.tensor(result["clean"]["predictions"][:count]) == labels) & (attacked != labels)
        return Outcome(not fooled.any(), f"{share(int(fooled.sum()), count)} fooled", count)

    return {"images left unchanged": unchanged, "newly misclassified": not_fooled}


def _hard_to_find(lab: Lab) -> Comparisons:
    def compare(eps: int) -> Outcome:
        scored(lab, NORMAL)
        result = around_purification(lab, sizes_of(lab))
        labels, of = torch.tensor(result["labels"]), result["attacks"][str(eps)]
        right = {name: int((torch.tensor(of[name]["predictions"]) == labels).sum()) for name in ("bim", "bpda")}
        count = len(labels)
        meet = wilson_interval(right["bpda"], count)[1] >= wilson_interval(right["bim"], count)[0]
        unaware = f"{100 * right['bim'] / count:.1f} {percent_interval(right['bim'], count)}"
        return Outcome(meet, f"{unaware} to {share(right['bpda'], count)}", count)

    return {f"eps {eps}": partial(compare, eps) for eps in EPS_ATTACK[lab.data_set]}


CLAIMS = (
    Claim("4.1", "L-BFGS-B makes images less likely, where greedy decoding makes them more likely (FGSM, eps 8).",
          "more than half of the runs from random starts end, rounded, less likely than the attacked image; more than half "
          "of the greedily purified images are more likely than it; with the whole interval.",
          cifar10_only("figure 5: 10 images, 100 starts, \"most\""), _optimisers),
    Claim("4.4", "BIM through the unrolled purification fails (eps 8).",
          "it leaves more than half of the images unchanged, with the whole interval; it fools the classifier on none that "
          "was right after purification.",
          lambda data_set: "100 images, none fooled, all unchanged", _unrolled),
    Claim("4.4", "Adversarial images for purification and classifier together are hard to find.",
          "an attack that takes purification for the identity (BPDA) leaves no less accuracy than BIM that does not know of "
          "it, by more than chance: their intervals meet.",
          lambda data_set: "no number", _hard_to_find),
)  # fmt: skip

"""What the paper claims of two searches: for likely images by L-BFGS-B (section 4.1), and for adversarial images of the
classifier and PixelDefend together (section 4.4)."""

from functools import partial

import torch

from ...defenses.lbfgs import OBJECTIVES
from ..conditions import EPS_ATTACK, UPPER_ROWS
from ..endtoend.attacks import around_purification, sizes_of, through_purification
from ..endtoend.controls import controls
from ..endtoend.tables import fooled_by_one, right
from ..lab import Lab
from ..purification.optimisation import SEARCHES, Comparison, measured
from .judging import CHANCE, Claim, Comparisons, NotRun, Outcome, cifar10_only, mcnemar, most, scored, share

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
        after = right(result["bim"], result["labels"])
        before = right(result["clean"], result["labels"])[: len(after)]
        count = int(before.sum())
        if not count:
            raise NotRun(f"an image that is right after purification, among {len(after)}")
        fooled = int((before & ~after).sum())
        enough = most(after[before]).passed
        return Outcome(not fooled and enough, f"{share(fooled, count)} fooled", count, undecided=not fooled and not enough)

    return {"images left unchanged": unchanged, "newly misclassified": not_fooled}


def _hard_to_find(lab: Lab) -> Comparisons:
    def compare(eps: int) -> Outcome:
        scored(lab, NORMAL)
        result, control = around_purification(lab, sizes_of(lab)), controls(lab, sizes_of(lab))
        aware, unaware = fooled_by_one(result, control, eps)
        same = aware <= unaware or mcnemar(aware, unaware) >= CHANCE
        labels, count = result["labels"], len(result["labels"])
        left = [int(right(of, labels).sum()) for of in (control["bim"][str(eps)], result["attacks"][str(eps)]["bpda"])]
        # where BIM has left nothing there is nothing to gain, and that is no evidence of difficulty
        most_withstand = 2 * left[1] > int(right(result["clean"], labels).sum())
        only = f"{aware} wrong after BPDA only, {unaware} after BIM only"
        return Outcome(same and most_withstand, f"{100 * left[0] / count:.1f} to {share(left[1], count)}; {only}", count)

    return {f"eps {eps}": partial(compare, eps) for eps in EPS_ATTACK[lab.data_set]}


CLAIMS = (
    Claim("4.1", "L-BFGS-B makes images less likely, where greedy decoding makes them more likely (FGSM, eps 8).",
          "more than half of the runs from random starts end, rounded, less likely than the attacked image; more than half "
          "of the greedily purified images are more likely than it; with the whole interval.",
          cifar10_only("figure 5: 10 images, 100 starts, \"most\""), _optimisers,
          reasons={"L-BFGS-B (continuous)": "This objective has a slope everywhere, and a search that can follow one "
                                            "succeeds ({numref}`tbl-optimisers`).",
                   "L-BFGS-B": "Which objective the authors climbed, to which tolerance and in which units, is not known."}),
    Claim("4.4", "BIM through the unrolled purification fails (eps 8).",
          "BIM along the softened purification leaves more than half of the images unchanged, and fools the classifier on "
          "none that was right after purification, of which more than half withstand; both with the whole interval. "
          "(The gradient of greedy purification itself is zero because that is a staircase, which is no evidence.)",
          lambda data_set: "100 images, none fooled, all unchanged", _unrolled,
          reasons={"images left unchanged": "BIM follows signs, and softened purification has a gradient that is not zero "
                                            "({numref}`tbl-flow`); how the authors softened theirs is not known.",
                   "newly misclassified": "The sign of a gradient can be followed, whatever its size "
                                          "({numref}`tbl-through`)."}),
    Claim("4.4", "Adversarial images for purification and classifier together are hard to find.",
          "an attack that takes purification for the identity (BPDA) does not leave less accuracy than BIM that does not "
          "know of it and takes as many steps (same images, p >= 0.05 in McNemar's exact test), and leaves right more "
          "than half of what purification alone leaves right. One attack can refute such a claim; none can confirm it.",
          lambda data_set: "no number", _hard_to_find,
          reasons={"": "The paper's reasons rest on the gradient of the density, and BPDA needs none "
                       "({cite:t}`athalye2018obfuscated`; {numref}`tbl-bpda`)."}),
)  # fmt: skip

"""Measurements, results that are no grid cells, of which single images can be made again to check what is stored.

Each is told as columns: {what: a value for every image, in the order of the test set}. What cannot be made again to the last
digits on another machine is left out: where runs of L-BFGS-B end, and what thousands of steps leave of a gradient.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from .claims import choices
from .conditions import SEARCHED
from .detection import perturbations
from .endtoend import attacks as endtoend
from .endtoend import controls
from .lab import Lab
from .purification import optimisation

Columns = Mapping[str, Sequence[float]]


@dataclass(frozen=True)
class Check:
    """How a measurement is checked.

    Args:
        stored: what a lab has of it on disk; ask only where the file exists, and with a store that keeps it, or else it is
            computed. Raises `StaleRecord` where it was made with other weights or settings.
        again: the same columns, or some of them, computed on all test images of a lab, which should be few.
        images: how many to check.
        tolerances: by how much a column's values may differ: which of `verify.TOLERANCES`. Other columns must be the same.
    """

    stored: Callable[[Lab], Columns]
    again: Callable[[Lab], Columns]
    images: int = 1
    tolerances: Mapping[str, str] = field(default_factory=dict)

    def disagreeing(self, stored: Columns, lab: Lab, positions: Sequence[int], allowed: Mapping[str, float]) -> list[bool]:
        """Which of the images at ``positions`` of the test set, all that ``lab`` has, are not what is ``stored`` of them;
        ``allowed`` is `verify.TOLERANCES` or the like."""
        differs = [False] * len(positions)
        for what, values in self.again(lab).items():
            most = allowed[self.tolerances[what]] if what in self.tolerances else 0
            for n, (position, value) in enumerate(zip(positions, values, strict=True)):
                differs[n] |= not abs(stored[what][position] - value) <= most
        return differs


def _changes(found: Mapping[str, Mapping[str, Sequence[float]]]) -> Columns:
    return {f"{kind}, {what}": values for kind, of in found.items() for what, values in of.items()}


def _nearest(attack: str) -> Check:
    return Check(lambda lab: perturbations.nearest(lab, attack), lambda lab: perturbations.scored_nearest(lab, attack),
                 tolerances={"bits_per_dim": "attacked"})  # fmt: skip


def _purified(labels: Sequence[int], bits: Mapping[str, Sequence[float]], classes: Mapping[str, Sequence[int]]) -> Columns:
    """Of the comparison of purifiers, without the runs of L-BFGS-B."""
    found = {f"{kind}, bits": of for kind, of in bits.items()} | {f"{kind}, class": of for kind, of in classes.items()}
    return {"labels": labels, **found}


def _purified_stored(lab: Lab) -> Columns:
    found = optimisation.measured(lab, optimisation.SEARCHES[lab.profile_name])
    bits, classes = ({kind: of.tolist() for kind, of in by.items()} for by in (found.bits, found.predictions))
    return _purified(found.labels.tolist(), bits, classes)


def _purified_again(lab: Lab) -> Columns:
    found = optimisation.compared(lab, optimisation.SEARCHES[lab.profile_name], objectives=())
    return _purified(found["labels"], found["bits"], found["predictions"])


def _through_stored(lab: Lab) -> Columns:
    found = endtoend.through_purification(lab, endtoend.sizes_of(lab))
    return {"labels": found["labels"], "classes": found["clean"]["predictions"]}


def _through_again(lab: Lab) -> Columns:
    parts = endtoend.purified_parts(lab, endtoend.sizes_of(lab))
    seen = endtoend.defended_outcome(lab.classifier(), parts.greedy, parts.labels)
    return {"labels": parts.labels.tolist(), "classes": seen["predictions"]}


CHECKS = {  # by the name of the measurement
    choices.NAME: Check(choices.measured, lambda lab: choices.predictions(lab, len(lab.test)), images=2),
    perturbations.changes_name(): Check(
        lambda lab: _changes(perturbations.changes(lab)),
        lambda lab: _changes(perturbations.measured_changes(lab)),
        tolerances={f"{kind}, {what}": f"{what} change" for kind in perturbations.KINDS for what in ("mean", "largest")},
    ),
    **{perturbations.nearest_name(attack): _nearest(attack) for attack in SEARCHED},
    optimisation.NAME: Check(
        _purified_stored,
        _purified_again,
        tolerances={"clean, bits": "exact", "attacked, bits": "attacked", "greedy, bits": "purified"},
    ),
    endtoend.THROUGH: Check(_through_stored, _through_again),
    controls.NAME: Check(
        lambda lab: controls.classes(controls.controls(lab, endtoend.sizes_of(lab))),
        controls.classes_again,
    ),
}

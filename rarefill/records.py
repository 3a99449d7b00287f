"""What came of a chunk, and how it stands in `records.jsonl`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rarefill import geometry
from rarefill.dataset import Dataset
from rarefill.geometry import Box, Mask
from rarefill.scene import Goal, Instance, Reason, Sample, Step, Verdict
from rarefill.takes import Take


@dataclass(frozen=True, slots=True, eq=False)
class Trial:
    """One paint of one object, and what was said of it.

    Attributes:
        number: the layout's number in the run, from 1.
        attempt: from 0.
        category: the name asked for.
        asked: the box asked for.
        verdict: its `mask` is not kept in records.
        redraws: row in `dataset.annotations` of the real object that was repainted; None for a new one.
        step: how it was painted.
    """

    number: int
    attempt: int
    category: str
    asked: Box
    verdict: Verdict
    redraws: int | None = None
    step: Step = Step.FIRST

    @property
    def goal(self) -> Goal:
        """What it counts towards."""
        return Goal.of(self.category, self.redraws)

    @property
    def painted(self) -> bool:
        """Whether anything was painted; where no other place was found, nothing was."""
        return self.verdict.reason is not Reason.NO_PLACE


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What came of one chunk of layouts.

    Attributes:
        round: 0 for the first plan, then one more for each top-up.
        chunk: from 0 in its round.
        samples: images written, with what holds in them.
        trials: every paint, in order.
        sha256: of each sample's file, in the samples' order.
        takes: every try at a version of an image, in order, where versions are made.
    """

    round: int
    chunk: int
    samples: tuple[Sample, ...]
    trials: tuple[Trial, ...]
    sha256: tuple[str, ...]
    takes: tuple[Take, ...] = ()


def _mask_json(mask: Mask) -> dict[str, Any]:
    counts = geometry.rle_counts(mask.pixels).decode()
    return {"x": mask.x, "y": mask.y, "size": list(mask.pixels.shape), "counts": counts}


def _mask(value: Mapping[str, Any]) -> Mask | None:
    return Mask.of(geometry.from_rle(value["counts"], *value["size"]), value["x"], value["y"])


def _instance_json(instance: Instance) -> dict[str, Any]:
    if instance.annotation is not None and not instance.changed:
        return {"annotation": instance.annotation}  # the dataset knows the rest
    paint = {"score": instance.score, "how": dict(instance.how)}
    if instance.redraws is not None and not instance.changed:
        return {"redraws": instance.redraws, **paint}  # as above
    out: dict[str, Any] = {"category": instance.category, "box": list(instance.box.xyxy)}
    if instance.mask is not None:
        out["mask"] = _mask_json(instance.mask)
    if instance.annotation is not None:
        return {**out, "annotation": instance.annotation, "changed": True}
    if instance.redraws is not None:
        return {**out, "redraws": instance.redraws, "changed": True, **paint}
    return {**out, **paint}


def _instance(value: Mapping[str, Any], dataset: Dataset) -> Instance:
    annotation, redraws = value.get("annotation"), value.get("redraws")
    row = annotation if redraws is None else redraws
    if row is not None and not value.get("changed"):
        return Instance(
            dataset.names[dataset.annotations.category[row]],
            dataset.box(row),
            annotation=annotation,
            crowd=bool(dataset.annotations.crowd[row]),
            score=value.get("score"),
            how=value.get("how", {}),
            redraws=redraws,
        )
    return Instance(
        value["category"],
        Box(*value["box"]),
        _mask(value["mask"]) if "mask" in value else None,
        annotation=annotation,
        redraws=redraws,
        changed=bool(value.get("changed")),
        score=value.get("score"),
        how=value.get("how", {}),
    )


def to_json(record: Record) -> dict[str, Any]:
    """A record as JSON values; of an untouched or redrawn object of the background only its row and its paint."""
    return {
        "round": record.round,
        "chunk": record.chunk,
        "samples": [
            {
                "number": s.number,
                "file": s.file_name,
                "size": [s.width, s.height],
                "image": s.image,
                "copy": s.copy,
                "instances": [_instance_json(i) for i in s.instances],
                "dropped": [list(d) for d in s.dropped],
                "sha256": sha,
                **({"how": dict(s.how)} if s.how else {}),
            }
            for s, sha in zip(record.samples, record.sha256, strict=True)
        ],
        "trials": [
            {
                "number": t.number,
                "index": t.verdict.index,
                "attempt": t.attempt,
                "step": str(t.step),
                "category": t.category,
                "asked": list(t.asked.xyxy),
                "reason": str(t.verdict.reason),
                "score": t.verdict.score,
                "threshold": t.verdict.threshold,
                "overlap": t.verdict.overlap,
                "asked_overlap": t.verdict.asked_overlap,
                "box": list(t.verdict.box.xyxy) if t.verdict.box else None,
                **({} if t.redraws is None else {"redraws": t.redraws}),
            }
            for t in record.trials
        ],
        **({"takes": [take.as_json() for take in record.takes]} if record.takes else {}),
    }


def from_json(value: Mapping[str, Any], dataset: Dataset) -> Record:
    """The record that `to_json` wrote.

    Raises:
        KeyError, TypeError, ValueError, IndexError: it did not.
    """
    samples = tuple(
        Sample(
            s["number"],
            s["file"],
            s["size"][0],
            s["size"][1],
            s["image"],
            s["copy"],
            tuple(_instance(i, dataset) for i in s["instances"]),
            tuple((row, share) for row, share in s["dropped"]),
            s.get("how", {}),
        )
        for s in value["samples"]
    )
    trials = tuple(
        Trial(
            t["number"],
            t["attempt"],
            t["category"],
            Box(*t["asked"]),
            Verdict(
                t["index"],
                Reason(t["reason"]),
                t["score"],
                t["threshold"],
                t["overlap"],
                t["asked_overlap"],
                Box(*t["box"]) if t["box"] else None,
            ),
            t.get("redraws"),
            Step(t.get("step", "first")),
        )
        for t in value["trials"]
    )
    hashes = tuple(s["sha256"] for s in value["samples"])
    takes = tuple(Take.from_json(take) for take in value.get("takes", ()))
    return Record(value["round"], value["chunk"], samples, trials, hashes, takes)

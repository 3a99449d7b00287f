"""Fit the checker: one model per fold, then thresholds from the real objects that each model did not see.

The cache holds a folder per dataset, options and seed: `fold-0.safetensors` (a finished model), `fold-0.part.safetensors`
(where its training stands), `closer-1-0.safetensors` (its second look) and `held-back-*.json` (what the models said of real objects and of planted errors).
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from threading import Event, Lock

import torch
from torchvision.models.detection import FCOS

from rarefill import cutouts, engine, files
from rarefill.annotators import crops, detector, folds, held_back, second_look, train
from rarefill.annotators.check import Fitted, Judge
from rarefill.annotators.held_back import Evidence, judge_held_back
from rarefill.annotators.patches import Patches
from rarefill.annotators.samples import Pictures, Sampler
from rarefill.bank import Bank
from rarefill.dataset import Dataset
from rarefill.errors import ModelError
from rarefill.progress import SILENT, Progress
from rarefill.recipe import CheckerConfig

VERSION = 3
"""Of the architecture, the training and the crops: a change of any of them gets a new number, and with it a new fit."""
_CLOSER_VERSION = 1  # of the second look, which is fitted apart
_CLOSER_STEPS = 0.3
"""Steps of the second look, as a share of the detector's: it sees single boxes and learns faster."""
_FEWEST_FOLDS = 2


def fit(
    dataset: Dataset,
    bank: Bank,
    config: CheckerConfig,
    *,
    seed: int,
    cache: Path,
    progress: Progress = SILENT,
    rare: Sequence[str],
) -> Fitted:
    """A checker fitted to a dataset, from the cache where it holds one.

    Args:
        dataset: the real data.
        bank: exemplars of the rare categories, pasted into the training crops.
        config: folds, steps and strictness.
        seed: names the folds, the first weights and the crops.
        cache: folder of fitted models; stopped fits continue from it.
        progress: shows the steps and what becomes of them.
        rare: the categories that are to be painted: the crops' scale is theirs.

    Raises:
        ModelError: fewer images than folds, or no objects of the rare categories.
    """
    n_images = len(dataset.images)
    if n_images < config.folds:
        fewer = "lower --folds or " if n_images >= _FEWEST_FOLDS else ""
        raise ModelError(
            f"{dataset.path.name}: {config.folds} folds need as many images, got {n_images}; "
            f"{fewer}run with --checker none"
        )
    scale = crops.dataset_scale(dataset, rare or dataset.names)
    home = cache / f"checker-{key(dataset, config, seed, rare)}"
    fold = folds.assign(dataset, config.folds, rare, seed)
    picture = Pictures(dataset)

    def sampler(k: int) -> Sampler:
        return Sampler(
            dataset,
            bank,
            picture,
            images=(fold != k).nonzero()[0],
            rare=rare,
            scale=scale,
            seed=seed,
            fold=k,
            batch=config.checker_batch,
        )

    models = _models(sampler, len(dataset.names), config, seed, home, progress)

    def patches(k: int) -> Patches:
        images = (fold != k).nonzero()[0]
        return Patches(
            dataset, bank, picture, images=images, rare=rare, seed=seed, fold=k, batch=second_look.BATCH
        )

    closer = _closers(patches, len(dataset.names), config, seed, home, progress)
    judges = Judge(models, fold, scale, closer)
    evidence = _evidence(dataset, judges, picture, config, seed, rare, home, progress)
    return Fitted(dataset.names, judges, evidence.standings(config), config, bank)


def key(dataset: Dataset, config: CheckerConfig, seed: int, rare: Sequence[str]) -> str:
    """16 hex digits that name everything that the weights follow from."""
    says = (
        VERSION,
        detector.start_digest(),
        cutouts.digest(),
        dataset.digest,
        config.folds,
        config.checker_steps,
        config.checker_batch,
        seed,
        list(rare),
    )
    return hashlib.sha256(json.dumps(says).encode()).hexdigest()[:16]


def _models(
    sampler: Callable[[int], Sampler],
    n_classes: int,
    config: CheckerConfig,
    seed: int,
    home: Path,
    progress: Progress,
) -> tuple[FCOS, ...]:
    """The models of all folds; those that the cache does not hold are trained side by side, one thread each."""
    files = [home / f"fold-{k}.safetensors" for k in range(config.folds)]
    weights = [train.read(file) for file in files]
    missing = [k for k, held in enumerate(weights) if held is None]
    for k in missing:
        if files[k].exists():
            progress.say(f"{files[k]}: not a whole file, so this model is fitted again")
    if missing:
        _train(missing, sampler, n_classes, config.checker_steps, seed, files, progress)
        weights = [train.read(file) for file in files]
    return tuple(_loaded(held, n_classes, file) for held, file in zip(weights, files, strict=True))


def _train(
    missing: Sequence[int],
    sampler: Callable[[int], Sampler],
    n_classes: int,
    steps: int,
    seed: int,
    files: Sequence[Path],
    progress: Progress,
) -> None:
    stop, counting = Event(), Lock()
    workers = min(len(missing), engine.default_workers())
    with (
        progress.bar("fitting the checker", steps * len(missing), "steps") as bar,
        ThreadPoolExecutor(workers, thread_name_prefix="rarefill-fit") as pool,
    ):

        def advance(n: int, note: str) -> None:
            with counting:
                bar.advance(n, note)

        def work(k: int, training: train.Training) -> None:
            part = files[k].with_suffix(".part.safetensors")
            weights = train.train(training, sampler(k), checkpoint=part, advance=advance, stop=stop)
            if not stop.is_set():
                train.write(files[k], weights)
                part.unlink(missing_ok=True)

        # torch has one random stream for all threads: the first weights are drawn here, one model after the other.
        started = [train.Training(n_classes, steps, seed + k) for k in missing]
        running = [pool.submit(work, k, training) for k, training in zip(missing, started, strict=True)]
        try:
            for future in as_completed(running):
                future.result()
        except BaseException:
            stop.set()  # the others end at their next step; their checkpoints stay
            raise


def _closers(
    patches: Callable[[int], Patches],
    n_classes: int,
    config: CheckerConfig,
    seed: int,
    home: Path,
    progress: Progress,
) -> tuple[second_look.Closer, ...]:
    """The second look of each fold, from the cache where it is there; a stopped one begins again, which is a minute's work."""
    paths = [home / f"closer-{_CLOSER_VERSION}-{k}.safetensors" for k in range(config.folds)]
    weights = [train.read(path) for path in paths]
    missing = [k for k, held in enumerate(weights) if held is None]
    steps = max(1, round(_CLOSER_STEPS * config.checker_steps))
    if missing:
        stop, counting = Event(), Lock()
        started = {
            k: second_look.build(n_classes, seed + k) for k in missing
        }  # one random stream, as in _train
        with (
            progress.bar("fitting the checker's second look", steps * len(missing), "steps") as bar,
            ThreadPoolExecutor(min(len(missing), engine.default_workers())) as pool,
        ):

            def advance() -> None:
                with counting:
                    bar.advance(1)

            def work(k: int) -> None:
                found = second_look.train(started[k], patches(k), steps, advance=advance, stop=stop)
                if not stop.is_set():
                    train.write(paths[k], found)

            try:
                for future in as_completed([pool.submit(work, k) for k in missing]):
                    future.result()
            except BaseException:
                stop.set()
                raise
        weights = [train.read(path) for path in paths]
    return tuple(second_look.loaded(_whole(w, p), n_classes) for w, p in zip(weights, paths, strict=True))


def _whole(weights: train.Tensors | None, file: Path) -> train.Tensors:
    """Weights that were just written.

    Raises:
        ModelError: they cannot be read.
    """
    if weights is None:
        raise ModelError(
            f"{file}: cannot be read back after it was written; check the disk or choose another --cache"
        )
    return weights


def _loaded(weights: train.Tensors | None, n_classes: int, file: Path) -> FCOS:
    model = detector.build(n_classes, 0)
    model.load_state_dict(_whole(weights, file))
    return model.eval().requires_grad_(requires_grad=False).to(memory_format=torch.channels_last)


def _evidence(
    dataset: Dataset,
    judge: Judge,
    picture: Pictures,
    config: CheckerConfig,
    seed: int,
    rare: Sequence[str],
    home: Path,
    progress: Progress,
) -> Evidence:
    """What the models say of held-back objects, from the cache where it is there."""
    path = home / f"held-back-{held_back.VERSION}-{config.min_overlap:g}.json"
    try:
        return Evidence.from_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        pass
    except (ValueError, KeyError, TypeError):
        progress.say(f"{path}: not a whole file, so the held-back objects are judged again")
    evidence = judge_held_back(
        dataset, judge, picture, rare=rare, seed=seed, min_overlap=config.min_overlap, progress=progress
    )
    files.write_bytes(path, evidence.to_json().encode())
    return evidence

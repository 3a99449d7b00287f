"""Every option, one validated model. YAML files and command-line flags both end here.

Leaf names are unique in the whole recipe: `layout.max_overlap` is the flag `--max-overlap`.
"""

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from rarefill import presets
from rarefill.errors import RecipeError
from rarefill.hub_options import HubConfig
from rarefill.sections import Section
from rarefill.version_options import VersionsConfig

Share = Annotated[float, Field(ge=0, le=1)]
Polygon = tuple[tuple[float, float], ...]
Format = Literal["coco", "merged", "yolo", "yolo-seg"]
FILES: dict[Format, str] = {
    "coco": "annotations.json",
    "merged": "merged.json",
    "yolo": "yolo/data.yaml",
    "yolo-seg": "yolo-seg/data.yaml",
}
"""What to open of each format, in a run's folder."""
Blend = Literal["hard", "feather", "pyramid", "poisson"]
Mend = Literal["seed", "strength", "place", "paste"]
Conditioning = Literal["layout", "canny", "lineart", "hed", "pidi", "depth"]


MOST = 10_000_000
"""Objects to ask for of one category, at most."""


class LayoutConfig(Section):
    """Where, how large, what shape."""

    untouched: float = Field(
        0.1, ge=0, lt=1, description="share of the images written that are backgrounds left as they are"
    )
    max_reuse: int | None = Field(
        None,
        ge=1,
        description="how often one background may be used; by default 4 times, and 20 where it holds the category already",
    )
    home: Share = Field(
        0.5,
        description="share of the images with new objects made of scenes that hold the category already; 0: as of any others",
    )
    per_image: int | None = Field(
        None,
        ge=1,
        description="objects to paint per image at most; by default as many new ones as the category shows in real images",
    )
    max_overlap: Share = Field(
        0.1, description="share of an existing object, or of a planned one, that may be covered"
    )
    margin_px: int = Field(2, ge=0, description="free pixels between two planned objects")
    min_px: float = Field(
        6.0,
        ge=1,
        description="smallest side of a planned object in pixels; a category whose own objects are smaller keeps its own least",
    )
    jitter: float | None = Field(
        None,
        ge=0,
        le=1,
        description="spread of size and aspect about a real object's, in log units; by default as the data have it",
    )
    context: Literal["on", "off"] = Field(
        "on", description="on: backgrounds and places by what surrounds real objects of the category"
    )
    temperature: float = Field(
        0.3,
        ge=0.1,
        le=100,
        description="below 1 keeps to the likeliest places, and ways to lie there; above 1 strays from them",
    )
    explore: Share = Field(
        0.2,
        description="share of the objects that seek plausible places the data lacks; the rest follow the real density",
    )
    habits: Literal["on", "off"] = Field(
        "on",
        description="on: objects are cut off by the edge, partly hidden and gathered as often as real ones; off: whole, one by one",
    )
    no_mirror: tuple[str, ...] = Field(
        (), description="categories that are never mirrored: signs, text, what has a left and a right"
    )
    region: tuple[Polygon, ...] = Field(
        (), description="objects' centres stay in these polygons; x y pairs from 0 to 1 of width and height"
    )
    tries: int = Field(200, ge=1, description="places tried per object before another background is taken")


class GeneratorConfig(Section):
    """Who paints, and how: `compact` and `paste` share one section, since compact can start from a pasted object."""

    generator: str = Field(
        "compact",
        description="compact: a diffusion model, adapted to your data; paste: real objects, transformed and blended; a preset of 'rarefill models', or hub:OWNER/NAME@REVISION or hub:FOLDER: a published checkpoint",
    )
    model: Path | None = Field(
        None, description="folder of a diffusers pipeline to paint with, instead of the model that ships"
    )
    conditioning: Conditioning = Field(
        "layout",
        description="what the ControlNet is shown: layout for the model that ships, else what yours was trained on",
    )
    control_weights: Path | None = Field(
        None, description="folder of controlnet-aux's weights, for hed, pidi and depth"
    )
    adapt: bool = Field(True, description="adapt the model to your data before it paints")
    minutes: float = Field(10.0, gt=0, description="adapt for so long at most")
    adapt_steps: int | None = Field(
        None,
        ge=1,
        description="adapt for so many steps at most; the clock alone makes every adaptation another",
    )
    steps: int = Field(12, ge=1, le=1000, description="denoising steps of one object")
    guidance_scale: float = Field(
        2.0, ge=1, description="weight of category and layout against neither; 1 is off"
    )
    guidance_from: Share = Field(
        0.1, description="part of the way from noise to picture after which guidance begins"
    )
    guidance_to: Share = Field(0.8, description="part of that way after which guidance ends")
    strength: tuple[Annotated[float, Field(gt=0, le=1)], ...] = Field(
        (0.35,),
        min_length=1,
        description="1: all new; below: so far away from a pasted real object; one drawn per object",
    )
    redraw_strength: float = Field(
        0.7,
        gt=0,
        le=1,
        description="how far a redrawn object moves away from its own pixels; 1 keeps its outline and edges alone",
    )
    paste_above: float = Field(
        1.5,
        ge=0,
        description="compact: an object whose window is more than so many times the model's 128 px is pasted; 0: none is",
    )
    blends: tuple[Blend, ...] = Field(
        ("hard", "feather", "pyramid", "poisson"),
        min_length=1,
        description="paste: ways of blending, one drawn per object",
    )
    photometric: Share = Field(
        0.5, description="paste: strength of brightness, contrast and colour changes; 0 is none"
    )
    match_noise: bool = Field(True, description="match noise and blur to the place")

    @field_validator("generator")
    @classmethod
    def _known(cls, value: str) -> str:
        if not presets.named(value):
            near = difflib.get_close_matches(value, presets.PRESETS, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            raise ValueError(f"compact, paste, {', '.join(presets.PRESETS)} or hub:OWNER/NAME{hint}")
        return value


_NEEDS: dict[str, dict[str, str]] = {
    "detector": {
        "transformers": "a folder or a model of the hub",
        "zero-shot": "a folder or a model of the hub",
        "torchvision": "a safetensors file",
        "onnx": "an .onnx file",
    },
    "architecture": {"torchvision": "a model's name, such as fasterrcnn_resnet50_fpn,"},
    "class_names": {"torchvision": "a file of class names, a line each,"},
    "onnx_layout": {"onnx": "yolo, yolo-objectness, detr or detr-softmax"},
}


class CheckerConfig(Section):
    """The detector that looks again."""

    checker: Literal["fitted", "transformers", "zero-shot", "torchvision", "onnx", "none"] = Field(
        "fitted",
        description="fitted: a small detector trained on your data; transformers, torchvision, onnx: one with classes of its own; zero-shot: one asked for your categories' names; none: trust the paint",
    )
    detector: str | None = Field(
        None, description="folder or file of the checker's detector, or OWNER/NAME@REVISION of the hub"
    )
    map: dict[str, str] = Field(
        {},
        description="your name of a class of the detector, CLASS=NAME; zero-shot: other words for a category, WORDS=NAME",
    )
    architecture: str | None = Field(
        None, description="torchvision: the model's name, such as fasterrcnn_resnet50_fpn"
    )
    class_names: Path | None = Field(
        None,
        description="torchvision and onnx: file of the class names, a line each (or .json, or YOLO's data.yaml)",
    )
    detector_batch: int = Field(8, ge=1, description="images of one size that a detector takes at a time")
    onnx_layout: Literal["yolo", "yolo-objectness", "detr", "detr-softmax"] | None = Field(
        None,
        description="onnx: yolo: (N, 4+C, anchors); yolo-objectness: (N, anchors, 5+C); detr: logits and boxes from 0 to 1; detr-softmax: the same, the last class being none",
    )
    onnx_resize: Literal["auto", "letterbox", "corner", "stretch"] = Field(
        "auto",
        description="onnx: how an image becomes the input; letterbox: grey on both sides; corner: grey right and below; auto: letterbox for yolo, stretch for detr",
    )
    onnx_norm: Literal["unit", "imagenet", "bytes-bgr"] = Field(
        "unit",
        description="onnx: values from 0 to 1; less ImageNet's mean and by its deviation; or 0 to 255, blue first (YOLOX)",
    )
    onnx_px: int | None = Field(
        None, ge=32, description="onnx: side of the input, where the file leaves it open [640]"
    )
    segmenter: str | None = Field(
        None,
        description="outlines of painted objects by a model of the SAM family: its folder, or OWNER/NAME@REVISION of the hub [GrabCut]",
    )
    folds: int = Field(
        2,
        ge=2,
        le=10,
        description="models in the cross-fit; each real object is judged by one that did not see it",
    )
    checker_steps: int = Field(700, ge=1, description="training steps of each model")
    checker_batch: int = Field(8, ge=1, description="crops per training step")
    keep: Share = Field(
        0.9,
        description="share of real objects that the threshold of a category keeps, where errors leave room",
    )
    false_accept: float = Field(
        0.1,
        gt=0,
        lt=1,
        description="share of planted errors that may pass; on average it bounds the threshold, of each kind it is tested",
    )
    delta: float = Field(
        0.1, gt=0, lt=1, description="how often a statement about planted errors may be wrong"
    )
    min_score: Share = Field(0.05, description="no threshold is set below this confidence")
    min_overlap: Share = Field(
        0.5, description="IoU that the detector's box must reach with the measured one"
    )
    refuse_copies: Literal["off", "on"] = Field(
        "off",
        description="on: paint that is nearly a copy of a real object is refused; not for --generator paste",
    )
    min_visible: Share = Field(
        0.25, description="an existing object whose visible share falls under this loses its label"
    )

    @field_validator("map", mode="before")
    @classmethod
    def _pairs(cls, value: Any) -> Any:
        """A flag's CLASS=NAME,CLASS=NAME as a mapping."""
        words = value.split(",") if isinstance(value, str) else value
        if not isinstance(words, list | tuple):
            return words
        pairs = [str(word).split("=") for word in words]
        if not all(len(pair) == 2 and pair[0].strip() and pair[1].strip() for pair in pairs):
            raise ValueError("CLASS=NAME for each class; in a recipe file CLASS: NAME")
        return {theirs.strip(): own.strip() for theirs, own in pairs}

    @field_validator("detector", "architecture", "class_names", "onnx_layout")
    @classmethod
    def _goes_with(cls, value: Any, info: ValidationInfo) -> Any:
        """What a checker cannot do without, and a detector that nobody would look at."""
        checker = info.data.get("checker", "")
        need = _NEEDS.get(str(info.field_name), {}).get(checker)
        if value is None and need is not None:
            raise ValueError(f"{need} for checker {checker}")
        if value is not None and info.field_name == "detector" and checker in {"fitted", "none"}:
            raise ValueError(
                f"left out for checker {checker}, or say --checker transformers, torchvision or onnx"
            )
        return value


class Recipe(Section):
    """A whole run."""

    data: Path | None = Field(None, description="the COCO file, or YOLO's data.yaml")
    pictures: Path | None = Field(None, description="image folder, when it is not found beside the file")
    out: Path | None = Field(None, description="the run folder to make")
    seed: int = Field(0, ge=0, description="names the run's pictures: same recipe, same seed, same bytes")
    fill: dict[str, int] | Literal["auto", "none"] = Field(
        "auto",
        description="new objects per category, NAME=N; auto: every rare category up to the rule's count; none: no new ones",
    )
    evaluation: Path | None = Field(
        None,
        description="a detector's AP per category (JSON or CSV): auto then makes as many of each that is weak",
    )
    redraw: dict[str, int] = Field(
        {}, description="real objects to repaint in place per category, NAME=N: same label, new look"
    )
    images: int | None = Field(
        None,
        ge=1,
        description="images to write, those without new objects counted; by default as many as the objects need; vary: as many as there are to vary",
    )
    role: Literal["train", "val", "test"] = Field(
        "train",
        description="what the images are for; val and test: marked as synthetic in file names and labels, COCO alone is written",
    )
    attempts: int = Field(
        5,
        ge=1,
        description="paints of one object (vary: of one version) before it is given up: the first, and those of repair",
    )
    repair: tuple[Mend, ...] = Field(
        ("seed", "strength", "place", "paste"),
        min_length=1,
        description="how a refused object is painted again, one way after the other; the last is repeated",
    )
    repair_strength: float = Field(
        0.4,
        gt=0,
        le=1,
        description="repair by strength: how far a repaint moves away from a real object's pixels, at most, and at most half as far as usual; vary: from the third paint on, at most",
    )
    collateral: Literal["on", "off"] = Field(
        "on", description="on: paint that spoils a real neighbour, or shows more than was asked, is refused"
    )
    floor: Share = Field(
        0.1, description="share of the objects that must hold; a run that surely stays below it is stopped"
    )
    top_ups: int = Field(3, ge=0, description="further plans for objects that were given up")
    lenient: bool = Field(False, description="skip bad annotations and report each, instead of stopping")
    formats: tuple[Format, ...] = Field(
        ("coco", "merged", "yolo"), min_length=1, description="what to write; yolo-seg has polygons"
    )
    image_format: Literal["png", "webp", "jpeg"] = Field(
        "png", description="png and webp are lossless; jpeg changes every pixel"
    )
    cache: Path | None = Field(
        None, description="folder for fitted models; by default the user's cache folder"
    )
    workers: int | None = Field(
        None, ge=1, description="threads; by default one per core; the bytes do not depend on it"
    )
    layout: LayoutConfig = LayoutConfig()
    generator: GeneratorConfig = GeneratorConfig()
    hub: HubConfig = HubConfig()
    annotator: CheckerConfig = CheckerConfig()
    versions: VersionsConfig = VersionsConfig()

    @model_validator(mode="before")
    @classmethod
    def _preset(cls, value: Any) -> Any:
        """A published checkpoint brings its own defaults; what is said stands over them."""
        painting = value.get("generator") if isinstance(value, Mapping) else None
        name = painting.get("generator") if isinstance(painting, Mapping) else None
        if not isinstance(name, str) or not presets.is_hub(name):
            return value
        said = value.get("hub") or {}
        own, hub = presets.defaults(name)
        return {
            **value,
            "generator": own | dict(painting or {}),
            "hub": hub | said if isinstance(said, dict) else said,
        }

    @field_validator("fill", mode="before")
    @classmethod
    def _fill(cls, value: Any) -> Any:
        if isinstance(value, Mapping) and value:
            _check_counts(value)
        elif value not in ("auto", "none"):
            raise ValueError("auto, none, or NAME: N for each category")
        return value

    @field_validator("redraw", mode="before")
    @classmethod
    def _redraw(cls, value: Any) -> Any:
        if isinstance(value, Mapping):
            _check_counts(value)
            return value
        raise ValueError("NAME: N for each category")


def _check_counts(value: Mapping[Any, Any]) -> None:
    for name, n in value.items():
        if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST:
            raise ValueError(f"a whole number of objects from 1 to {MOST} for {name!r}")


NOT_THE_PICTURES = frozenset({"data", "pictures", "evaluation", "out", "cache", "workers", "formats"})
"""Options that name places, speed and what to export: a run is the same run whatever they say."""


def leaves(
    model: type[BaseModel] = Recipe, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], FieldInfo]]:
    """Every option with its path in the recipe, sections opened, in the order in which it is printed."""
    for name, info in model.model_fields.items():
        section = info.annotation
        if isinstance(section, type) and issubclass(section, BaseModel):
            yield from leaves(section, (*path, name))
        else:
            yield (*path, name), info


def read(path: Path) -> dict[str, Any]:
    """A recipe file's own entries, not yet checked.

    Raises:
        RecipeError: missing, not YAML, or not a mapping.
    """
    import yaml

    try:
        value = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as e:
        raise RecipeError(f"{path}: cannot be read: {e.strerror or e}") from e
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise RecipeError(f"{path}: not YAML: {' '.join(str(e).split())}") from e
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise RecipeError(f"{path}: expected options as 'name: value', got {type(value).__name__}")
    return value


_WHOLE = frozenset({"fill", "redraw", "describe", "vary"})


def merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two layers of options; where both speak, `above` holds. `fill` and `redraw` are replaced as a whole."""
    out = dict(below)
    for key, value in above.items():
        old = out.get(key)
        deep = isinstance(old, dict) and isinstance(value, dict) and key not in _WHOLE
        out[key] = merged(old, value) if deep else value  # type: ignore[arg-type]
    return out


def resolve(options: Mapping[str, Any], *, where: str = "recipe") -> Recipe:
    """Check options and fill in the defaults.

    Raises:
        RecipeError: one line for each bad option, with the nearest valid name or the value that came.
    """
    try:
        return Recipe.model_validate(dict(options))
    except ValidationError as e:
        first = {_name(error): error for error in reversed(e.errors())}  # one line for each option
        raise RecipeError("\n".join(_line(name, first[name], where) for name in reversed(first))) from None


def _name(error: Any) -> str:
    """The option that an error is about. Union members and dict keys are none: its path ends at the last name that is one."""
    place = [p for p in error["loc"] if isinstance(p, str)]
    known = {".".join(path) for path, _ in leaves()}
    return next(
        (".".join(place[:n]) for n in range(len(place), 0, -1) if ".".join(place[:n]) in known),
        ".".join(place),
    )


def _line(name: str, error: Any, where: str) -> str:
    known = {".".join(path) for path, _ in leaves()}
    if error["type"] == "extra_forbidden":
        return f"{where}: no option {name!r}; {_nearest(name, known)}"
    wanted = str(error["msg"]).removeprefix("Input should be ").removeprefix("Value error, ")
    if error["type"] == "model_type":
        wanted = "a section of options"
    elif error["type"] == "tuple_type":
        wanted = "a list"
    wanted = wanted.replace("greater than or equal to", "at least").replace(
        "less than or equal to", "at most"
    )
    return f"{where}: {name} must be {wanted}, got {error['input']!r}"


def _nearest(name: str, known: set[str]) -> str:
    leaf = name.rpartition(".")[2]
    for path in known:
        if path.rpartition(".")[2] == leaf:
            return f"it stands at {path!r}"
    near = difflib.get_close_matches(name, known, n=1) or difflib.get_close_matches(
        leaf, {path.rpartition(".")[2] for path in known}, n=1
    )
    return f"did you mean {near[0]!r}?" if near else "'rarefill recipe' prints all of them"


def as_yaml(recipe: Recipe, *, leave_out: frozenset[str] = frozenset()) -> str:
    """A recipe as a commented YAML file that `read` and `resolve` turn back into the same recipe."""
    lines: list[str] = []
    opened: tuple[str, ...] = ()
    for path, info in leaves():
        if path[0] in leave_out:
            continue
        if path[:-1] != opened:
            opened = path[:-1]
            lines += ["", f"{opened[0]}:"] if opened else [""]
        value: Any = recipe
        for name in path:
            value = getattr(value, name)
        plain = _plain(value)
        text = _flow(plain)
        indent = "  " * len(opened)
        lines.append(f"{indent}# {info.description}")
        lines.append(f"{indent}{path[-1]}: {text}")
    return "\n".join(lines).strip() + "\n"


def _flow(value: Any) -> str:
    import yaml

    settings: dict[str, Any] = {"default_flow_style": True, "width": 10_000, "sort_keys": False}
    readable = yaml.safe_dump(value, allow_unicode=True, **settings).strip()
    # YAML counts some unprintable characters as line ends; those are escaped with all other non-ASCII.
    safe = readable if readable.replace("\n", "").isprintable() else yaml.safe_dump(value, **settings)
    return str(safe).strip().removesuffix("...").strip()


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple):
        return [_plain(v) for v in value]
    if isinstance(value, dict):
        return {k: _plain(v) for k, v in value.items()}
    return value


def identity(recipe: Recipe) -> dict[str, Any]:
    """The options that decide a run's bytes, as JSON values; those of versions are not among a plan's."""
    nothing = set() if presets.is_hub(recipe.generator.generator) else {"hub"}
    return recipe.model_dump(mode="json", exclude={*NOT_THE_PICTURES, *nothing, "versions"})

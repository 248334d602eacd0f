"""Schema of a recipe: its fixed sections and the recipe itself.

Named sections (``task``, ``perturb``, ``encoder``, ``method``, ``compare[i]``, the dataset's part
of ``data``) have no class here: their schema is the signature of the registered object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Literal, TypeAlias

from omegaconf import OmegaConf

from domainnorm.ranges import (
    CORRUPTED,
    OF_ANY_DATASET,
    TRANSLATED,
    Conditioned,
    Far,
    Rows,
    StreamOrder,
    Unseen,
)
from domainnorm.registry import DATASETS, TASKS

Precision: TypeAlias = Literal[
    "16-mixed",
    "16-true",
    "32-true",
    "64-true",
    "bf16-mixed",
    "bf16-true",
    "transformer-engine",
    "transformer-engine-float16",
]
# What numbers and shorter texts mean, as in Lightning.
PRECISIONS = {"16": "16-mixed", "bf16": "bf16-mixed", "32": "32-true", "64": "64-true"}


@dataclass(frozen=True)
class Named:
    """A registered name with its options, defaults spelled out.

    Args:
        name: The registered name.
        options: Keys of the signature.
        alias: The name that ``as`` gives it in the recipe; empty without ``as``.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    alias: str = ""

    @property
    def label(self) -> str:
        """The name in folders and tables."""
        return self.alias or self.name


@dataclass(frozen=True)
class Transfer:
    """Domains to learn from and domains to adapt to."""

    source: list[str]
    target: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class BackboneConfig:
    """A timm network.

    Args:
        name: timm's name of the architecture, with an optional pretrained tag.
        pretrained: Start from pretrained weights (ImageNet, unless the tag names other data).
        weights: A safetensors or pth file with the pretrained weights, instead of timm's hub.
        options: Further keywords of ``timm.create_model``; scalars and lists of scalars.
    """

    name: str
    pretrained: bool = False
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """Keys that every dataset has.

    Args:
        source: Domains to learn from, with labels.
        target: Domains to adapt to.
        transfers: Several pairs ``{source: [...], target: [...]}`` in one run; they replace
            ``source`` and ``target``.
        image_size: Size of the input in pixels: one number or ``[height, width]``; null takes the
            size of the backbone.
        crop_size: Size of random training crops for segmentation and restoration, in pixels: one
            number or ``[height, width]``. Evaluation slides a window of this size over the image;
            restoration is tested on whole images. Null trains on whole images.
        fit: How an image of another shape fits into ``image_size``: ``cover`` crops it, ``pad``
            adds a border without labels, ``stretch`` distorts it.
        rows: Which domains share the rows of their norms during training. ``domain``: each has its
            own. ``role``: all sources share one, all targets another. ``one``: all share one.
        shots: Labelled images of each class (segmentation: masks) of each target that methods may
            learn from, if they see its images; null keeps what each method says.
        batch_size: Images per training batch, all domains together.
        sampling: How labelled images are drawn for training batches: ``uniform`` over images,
            ``balanced`` over classes, ``rare``, which draws rare classes more often, or by a
            sampler of another package, its name or ``{name: mine, key: value}``.
        sampling_temperature: Only for ``rare``, above 0: larger values make classes more equal.
        eval_batch_size: Images per batch in validation and test.
        stream_order: Order of test images for methods that adapt while they predict. One stream
            per target: ``shuffled``, ``by_class`` (one class after the other), or ``stored`` (the
            order of the dataset). One stream of all targets: ``continual`` (one after the other),
            ``returning`` (in turn, several times), ``gradual``, or ``mixed``.
        stream_batch_size: Images per batch of a stream.
        stream_run: Only for ``by_class`` and ``returning``: consecutive images of one class or
            target; null takes all images of a class, or a third of a target.
        num_workers: Processes that read images; 0 reads them in the training process.
        cache: Folder that keeps decoded images at input size; null decodes them every time.
        corrupt: A corruption of ImageNet-C, ``{name: fog, severity: 5}`` (1 to 5). Each domain then
            has a twin, ``<domain>_corrupted``, for ``source`` or ``target``. Null for none.
        translate: A run of task ``translation`` and a domain of it, ``{run: FOLDER, to: DOMAIN}``.
            Each domain then has a twin, ``<domain>_translated``: its images in that style, with
            their labels. Null for none; not beside ``corrupt``.
        generated: Images of ``domainnorm generate`` as further training images, ``{root: FOLDER,
            weight: 0.5}``; in batches, so many for each real one of their domain (1 without).
            Methods see them, with their classes, if they see the domain. Null for none.
        degrade: What task ``restoration`` has to undo, ``{scale: 4, noise: 0.02}``. ``scale``: how
            many times fewer pixels along each side, enlarged again. ``noise``: standard deviation,
            with white at 1. ``jpeg``: quality from 1 to 100, or ``[lowest, highest]``. Null for
            none, as for pairs. The images as they are become the targets.
        attributes: Metadata that the encoders ``metadata`` and ``text`` estimate domains from.
    """

    source: list[str] = field(default_factory=list)
    target: list[str] = field(default_factory=list)
    transfers: list[dict[str, Any]] = field(default_factory=list)
    image_size: int | list[int] | None = None
    crop_size: int | list[int] | None = None
    fit: Literal["cover", "pad", "stretch"] = "cover"
    rows: Rows = "domain"
    shots: int | None = field(default=None, metadata={"minimum": 1})
    batch_size: int = field(default=32, metadata={"minimum": 1})
    sampling: Any = "uniform"
    sampling_temperature: float = field(default=0.01, metadata={"above": 0})
    eval_batch_size: int = field(default=64, metadata={"minimum": 1})
    stream_order: StreamOrder = "shuffled"
    stream_batch_size: int = field(default=64, metadata={"minimum": 1})
    stream_run: int | None = field(default=None, metadata={"minimum": 1})
    num_workers: int = field(default=0, metadata={"minimum": 0})
    cache: str | None = None
    corrupt: dict[str, Any] | None = None
    translate: dict[str, Any] | None = None
    generated: dict[str, Any] | None = None
    degrade: dict[str, Any] | None = None
    attributes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainerConfig:
    """How Lightning trains.

    Args:
        max_epochs: Epochs of each stage.
        min_steps: Fewest optimizer steps of a stage. A stage with few images gets more epochs.
            Methods that set ``epochs`` ignore this key.
        patience: Epochs without a better score of ``evaluation.selection`` after which a stage
            stops; null never stops early. Stages without selection train all epochs.
        keep_best: How many of the best epochs by ``evaluation.selection`` leave their models in the
            folder ``epochs`` of the stage; null for none beside the one that is tested.
        keep_every: The same for every so many epochs; null for none.
        ema: Decay, in (0, 1), of a moving average of weights and running moments over steps. The
            average is tested and saved. Null for none. Methods without optimizer steps or with an
            average of their own ignore it.
        accelerator: Kind of device.
        devices: Devices per machine. Each has its own process and batches of ``data.batch_size``.
        num_nodes: Number of machines.
        strategy: How devices share the work. ``auto`` is ``ddp``: each has the whole model.
            ``ddp_find_unused_parameters_true`` is for steps that leave parameters unused.
        precision: Number format of weights and activations. ``16`` and ``bf16`` are the mixed
            formats, which keep weights in 32 bits.
        channels_last: Store feature maps as N × H × W × C, which often makes convolutions faster;
            results differ only by rounding.
        gradient_clip: Largest norm of the gradient, above 0; null does not clip.
        accumulate: Batches whose gradients are added up for one optimizer step.
        threads: CPU threads of torch; null keeps torch's default.
        deterministic: Use only algorithms that give the same result every time.
        limit_batches: Most training batches per epoch, for quick trials; null uses all.
        logger: Tools that track a run, beside the ``log.csv`` of each stage: a name,
            ``{name: wandb, project: mine}``, or a list of these; null for none.
        callbacks: Lightning callbacks from other packages, in the form of ``logger``.
    """

    max_epochs: int = field(default=10, metadata={"minimum": 1})
    min_steps: int = field(default=0, metadata={"minimum": 0})
    patience: int | None = field(default=None, metadata={"minimum": 1})
    keep_best: int | None = field(default=None, metadata={"minimum": 1})
    keep_every: int | None = field(default=None, metadata={"minimum": 1})
    ema: float | None = field(default=None, metadata={"above": 0, "below": 1})
    accelerator: Literal["auto", "cpu", "gpu", "cuda", "mps"] = "auto"
    devices: Literal["auto"] | int = field(default=1, metadata={"minimum": 1})
    num_nodes: int = field(default=1, metadata={"minimum": 1})
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true"] = "auto"
    precision: Precision = "32-true"
    channels_last: bool = False
    gradient_clip: float | None = field(default=None, metadata={"above": 0})
    accumulate: int = field(default=1, metadata={"minimum": 1})
    threads: int | None = field(default=None, metadata={"minimum": 1})
    deterministic: bool = True
    limit_batches: int | None = field(default=None, metadata={"minimum": 1})
    logger: list[dict[str, Any]] = field(default_factory=list)
    callbacks: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class EvaluationConfig:
    """How results are measured.

    Args:
        confidence: Coverage of confidence intervals, in (0, 1).
        resamples: Bootstrap resamples per interval.
        bins: Bins of the expected calibration error.
        selection: Which epoch's weights a stage keeps. ``last``: those of the last epoch.
            ``validation``: best metric on validation images of the domains whose labels the method
            sees. The name of a validator: best score on unlabelled target images, for methods that
            see them. ``oracle``: best metric on labelled validation images of the target; all
            results are then marked as having seen target labels.
        guard: Largest drop of the metric on the source's validation images, as a share (0.05 is
            five points): an epoch that a validator chooses may lie this far below the best epoch.
            Only for methods that see source labels.
        score_images: Most training images of each target, without labels, that validators score;
            0 for no scores.
        mask_size: Size at which masks are scored. ``input``: ``data.image_size``. ``original``: the
            mask's own size, with enlarged predictions, as benchmarks do.
        boundary: Width of boundaries in ``boundary_iou``, in (0, 1), as a share of the diagonal.
    """

    confidence: float = field(default=0.95, metadata={"above": 0, "below": 1})
    resamples: int = field(default=1000, metadata={"minimum": 1})
    bins: int = field(default=15, metadata={"minimum": 1})
    selection: str = "last"
    guard: float = field(default=0.05, metadata={"minimum": 0})
    score_images: int = field(default=300, metadata={"minimum": 0})
    mask_size: Literal["input", "original"] = "input"
    boundary: float = field(default=0.02, metadata={"above": 0, "below": 1})


@dataclass(frozen=True)
class Recipe:
    """A checked recipe: every name is registered, every default is spelled out.

    Args:
        name: Path of the file below ``recipes/``, without suffix; comparisons of recipes ignore it.
        task: What is learned: a name of ``domainnorm list tasks``, or ``{name: ..., key: value}``.
        backbone: The timm network: its name, or a mapping with the keys below.
        norm: None, a catalogue name, ``{name: ..., where: ...}``, ``{statistics: ...,
            modulation: ..., where: ...}``, or rules ``{pattern: name or mapping}``.
        perturb: Perturbations of features, each with its place, for stages that train on source
            labels.
        encoder: The network that estimates the domain of an image; None for none.
        condition: What the norms read in tests. ``id``: the true domain. ``estimate``: the domain
            that the encoder finds most probable. ``id_or_estimate``: the estimate only for domains
            whose images the encoder has not seen. ``mixture``: all domains, weighted by the
            encoder. ``embedding``: the encoder's embedding of the image, in training too.
        data: The domains, how images are sized and drawn, and the dataset: ``name`` and its keys.
        dataset: The dataset's part of the ``data`` section.
        method: How the model is adapted: a name of ``domainnorm list methods``, or
            ``{name: ..., key: value}``; with ``as`` it gets another name in tables.
        compare: Further methods of the same run.
        trainer: How Lightning trains.
        evaluation: How results are measured, and which weights are kept.
        augment: Domain name, ``source``, ``target`` or ``default`` → augmentation steps.
        unseen: What norms read, in evaluation, for images of unknown domains.
        far: What norms read for images that the encoder finds near no known domain; None treats
            them like others.
        checkpoint: A source model to start from, instead of training one: the folder of a stage,
            its weights, or a run folder, of which each transfer and seed takes its own.
        seeds: Seeds; the whole run is repeated for each.
    """

    name: str = field(compare=False)
    task: Named
    backbone: BackboneConfig
    norm: Any
    perturb: list[Named]
    encoder: Named | None
    condition: Conditioned
    data: DataConfig
    dataset: Named
    augment: dict[str, Any]
    method: Named
    compare: list[Named]
    trainer: TrainerConfig
    evaluation: EvaluationConfig
    unseen: Unseen
    far: Far | None
    checkpoint: str | None
    seeds: list[int]

    @property
    def transfers(self) -> list[Transfer]:
        """The transfers of the run, at least one."""
        if self.data.transfers:
            return [Transfer(**transfer) for transfer in self.data.transfers]
        return [Transfer(self.data.source, self.data.target)]

    @property
    def domains(self) -> list[str]:
        """Every domain of the transfers, in order of appearance."""
        pairs = ((*transfer.source, *transfer.target) for transfer in self.transfers)
        return list(dict.fromkeys(chain.from_iterable(pairs)))

    @property
    def twin_ending(self) -> str:
        """What the names of twins end with; empty where there are none."""
        return CORRUPTED if self.data.corrupt else TRANSLATED if self.data.translate else ""

    @property
    def twinned(self) -> list[str]:
        """Domains of which the transfers name a twin."""
        ending = self.twin_ending
        twins = [name for name in self.domains if ending and name.endswith(ending)]
        return [name.removesuffix(ending) for name in twins]

    @property
    def read_dataset(self) -> Named:
        """The dataset, asked for the domains of the transfers unless others are given.

        And for no classes, where the task reads none.
        """
        name, options = self.dataset.name, self.dataset.options
        taken = DATASETS.entry(name).parameters
        if "domains" in taken and options.get("domains") is None:
            twins = {f"{one}{self.twin_ending}" for one in self.twinned}
            names = [one for one in self.domains if one not in twins]
            options = {**options, "domains": list(dict.fromkeys([*names, *self.twinned]))}
        without = TASKS.entry(self.task.name).constants.get("labels") in OF_ANY_DATASET
        if "allow_missing_classes" in taken and without:
            options = {**options, "allow_missing_classes": True}
        return Named(name, options)

    def to_yaml(self) -> str:
        """The recipe as YAML without ``configs``; `load_recipe` reads an equal recipe from it."""
        sections = {
            "task": _mapping(self.task),
            "backbone": asdict(self.backbone),
            "norm": self.norm,
            "perturb": _one_or_all([_mapping(named) for named in self.perturb]) or None,
            "encoder": None if self.encoder is None else _mapping(self.encoder),
            "condition": self.condition,
            "data": {**_mapping(self.dataset), **asdict(self.data)},
            "augment": self.augment,
            "method": _mapping(self.method),
            "compare": [_mapping(method) for method in self.compare],
            "trainer": asdict(self.trainer),
            "evaluation": asdict(self.evaluation),
            "unseen": self.unseen,
            "far": self.far,
            "checkpoint": self.checkpoint,
            "seed": _one_or_all(self.seeds),
        }
        return OmegaConf.to_yaml(OmegaConf.create(sections))


def _one_or_all(items: list[Any]) -> Any:
    return items[0] if len(items) == 1 else items


def _mapping(named: Named) -> dict[str, Any]:
    return {"name": named.name, **({"as": named.alias} if named.alias else {}), **named.options}


def parts_of(dataset: Named) -> list[Named]:
    """The datasets that `join` joins; any other dataset alone."""
    joined = dataset.options.get("parts") if dataset.name == "join" else None
    return [Named(part["name"], part) for part in joined] if joined else [dataset]


def labels_of(dataset: Named) -> str:
    """The task of the labels of a dataset; of joined datasets the task of the first."""
    return str(DATASETS.entry(parts_of(dataset)[0].name).constants.get("task", ""))

"""Schema of a recipe: its fixed sections and the recipe itself.

Named sections (``task``, ``perturb``, ``encoder``, ``method``, ``compare[i]``, the dataset's part
of ``data``) have no class here: their schema is the signature of the registered object.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from itertools import chain
from typing import Any, Literal, TypeAlias

from omegaconf import OmegaConf

from domainnorm.ranges import CORRUPTED, Conditioned, Far, Rows, StreamOrder, Unseen
from domainnorm.registry import DATASETS

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
        name: What is looked up.
        options: Keys of the signature.
        alias: What a recipe calls it by ``as``, where it calls it otherwise.
    """

    name: str
    options: dict[str, Any] = field(default_factory=dict)
    alias: str = ""

    @property
    def label(self) -> str:
        """What it is called in folders and tables."""
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
        name: Architecture with an optional pretrained tag, as timm names it.
        pretrained: Start from pretrained weights (ImageNet, unless the tag says otherwise).
        weights: A safetensors or pth file to take them from, instead of timm's hub.
        options: Further keywords of ``timm.create_model``; scalars and lists of scalars.
    """

    name: str
    pretrained: bool = False
    weights: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class DataConfig:
    """What every dataset has in common.

    Args:
        source: Domains to learn from.
        target: Domains to adapt to.
        transfers: Several pairs ``{source: [...], target: [...]}`` in one run, instead of the two.
        image_size: Pixels: one number or ``[height, width]``; null is the backbone's own.
        crop_size: Pixels of random training crops for segmentation, which are also the windows
            of evaluation: one number or ``[height, width]``; null trains on whole images.
        fit: How an image of another shape fits into ``image_size``: ``cover`` cuts off what is
            over, ``pad`` adds a border without labels, ``stretch`` distorts.
        rows: Which domains share the rows of their norms while anything is learned: none (a row for
            each ``domain``), all sources and all targets (``role``), or all (``one``).
        shots: Of each target, labels that every method may learn from which sees its images: of so
            many images of each class, or so many masks; null for those that a method says.
        batch_size: Images per training batch, all domains together.
        sampling: How images of domains with labels are drawn for training batches: ``uniform``;
            every class equally often, ``balanced``; ``rare``, rare classes more often; or a sampler
            that another package offers, a name or ``{name: mine, key: value}``.
        sampling_temperature: Of ``rare``: the larger, the more alike the classes.
        eval_batch_size: Images per batch in validation and test.
        stream_order: Order of the test images that a method adapts to while it predicts them. Of
            each target a stream of its own: ``shuffled``, one class after the other (``by_class``),
            or as the dataset lists them (``stored``). Or all targets in one stream: one after the
            other (``continual``), again and again (``returning``), ``gradual``, or ``mixed``.
        stream_batch_size: Images it gets at a time.
        stream_run: Under ``by_class`` and ``returning``, images of one class or target until
            another one comes, as frames of one scene; null for all of a class, a third of a target.
        num_workers: Processes that read images; 0 reads them in the training process.
        cache: Folder for decoded images at the size of the input; null decodes them every time.
        corrupt: A corruption of ImageNet-C, ``{name: fog, severity: 5}`` (1 to 5): domains have
            twins then, ``<domain>_corrupted``, to be named as targets or sources; null for none.
        attributes: Metadata of the images that ``metadata`` and ``text`` estimate domains from.
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
    attributes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainerConfig:
    """How Lightning trains.

    Args:
        max_epochs: Epochs of each stage.
        min_steps: Optimizer steps that it makes at least, in more epochs where they are short:
            domains with few images are then trained as long as others. Methods with ``epochs`` keep
            to them.
        patience: Epochs without a better score of ``evaluation.selection`` after which a stage
            ends; null for none. Stages that are not selected by one have all their epochs.
        keep_best: Epochs of each stage whose models stay in its folder ``epochs``: so many of the
            best by ``evaluation.selection``; null for none beside the one that is tested.
        keep_every: The same of each so many epochs.
        ema: Weight, in (0, 1), of the past in a moving average of weights and running moments after
            each step, which is tested and saved instead; null for none. Methods without steps, and
            those that have an average of their own, do without.
        accelerator: Kind of device.
        devices: Devices per machine; each has a process, and batches of ``data.batch_size``.
        num_nodes: Machines.
        strategy: How several devices share the work: each has the whole model (``ddp``, which
            ``auto`` is too), also where a step leaves some parameters unused.
        precision: Number format of weights and activations; 16 and bf16 mean the mixed ones, which
            keep weights in 32 bits.
        channels_last: Keep feature maps as N × H × W × C in memory, which convolutions are often
            faster with; results differ by rounding only.
        gradient_clip: Largest norm of a gradient; null clips nothing.
        accumulate: Batches whose gradients are added up before a step.
        threads: CPU threads of torch; null is torch's own choice.
        deterministic: Only algorithms that give the same result every time.
        limit_batches: At most this many training batches per epoch, for trials.
        logger: Tools that a run can be followed in, beside ``log.csv`` of each stage: a name,
            ``{name: wandb, project: mine}``, or a list of these; null for none.
        callbacks: Callbacks of Lightning that other packages offer, in the same form.
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
        confidence: Coverage of the intervals, in (0, 1).
        resamples: Bootstrap resamples of an interval.
        bins: Bins of the calibration error.
        selection: Epoch whose weights a stage keeps: the ``last``; ``validation``, the best metric
            of the task on validation images of the domains whose labels the method may see; the
            name of a validator, the best such score on unlabelled target images, for methods that
            may see these; ``oracle``, the best metric on the target's labelled validation images,
            which marks every result of the run as one that saw target labels.
        guard: Points of the metric on the source's validation images that an epoch chosen by a
            validator may lack to the best one; asked where the method sees the source's labels.
        score_images: At most this many training images of each target, without labels, for scores
            by all validators; 0 for no scores.
        mask_size: Masks are scored at ``data.image_size``, ``input``, or at their own size, for
            which predictions are enlarged: what benchmarks publish.
        boundary: Width of the boundaries behind ``boundary_iou``, as a share of the diagonal.
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
        name: Path of the file below ``recipes/``, without suffix; equal recipes may differ in it.
        norm: None, a catalogue name, ``{name | statistics and modulation, where, ...}`` or rules
            ``{pattern: name or mapping}``.
        perturb: Perturbations of features with the place of each, for stages that train on
            source labels.
        encoder: What estimates the domain of an image; None for nothing.
        condition: What the norms get in tests: the domain itself, the most probable one by the
            encoder's estimate, that only for domains whose images the encoder has not seen, or a
            mixture of all; or, in training too, the image's own embedding by an encoder that
            learns with the network.
        dataset: The dataset's part of the ``data`` section.
        compare: Further methods of the same run.
        augment: Domain name or ``default`` → list of steps.
        unseen: What the model does about samples of domains it does not know, in evaluation.
        far: What it does about those whose domain is estimated, and that are near no known one;
            None for nothing else.
        checkpoint: A source model to start from, instead of training one.
        seeds: The whole run is done for each.
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
    def corrupted(self) -> list[str]:
        """Domains of which the transfers name a corrupted twin."""
        twins = [name for name in self.domains if name.endswith(CORRUPTED)]
        return [name.removesuffix(CORRUPTED) for name in twins] if self.data.corrupt else []

    @property
    def read_dataset(self) -> Named:
        """The dataset, asked for the domains of the transfers unless others are given."""
        name, options = self.dataset.name, self.dataset.options
        if "domains" in DATASETS.entry(name).parameters and options.get("domains") is None:
            twins = {f"{one}{CORRUPTED}" for one in self.corrupted}
            names = [one for one in self.domains if one not in twins]
            options = {**options, "domains": list(dict.fromkeys([*names, *self.corrupted]))}
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
    """The datasets that one joins; itself where it joins none."""
    joined = dataset.options.get("parts") if dataset.name == "join" else None
    return [Named(part["name"], part) for part in joined] if joined else [dataset]


def labels_of(dataset: Named) -> str:
    """The task that a dataset has labels for; of joined ones that of the first."""
    return str(DATASETS.entry(parts_of(dataset)[0].name).constants.get("task", ""))

"""What a training will need, measured without running it: one step of `GradCacheStep` on tensors that have shapes but no values.

The step is the code that trains, with a stand-in for the other workers. A dispatch mode follows the storages that are alive, and
counts floating-point operations by PyTorch's formulas. The state of the optimizer and the average are counted by formula.
"""

from __future__ import annotations

import weakref
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.hooks import RemovableHandle

from stair_es.errors import ConfigError
from stair_es.model.cuda import make_autocast
from stair_es.model.stair import checkpoint
from stair_es.model.stair.backbones import MINILM_CONFIG, fill_backbone_config
from stair_es.model.stair.configuration import BackboneConfig, read_stair_config
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.model.vocabularies.whole_words import WholeWordVocabulary
from stair_es.training.config.schema import TrainingStage
from stair_es.training.config.train_config import TrainConfig, build_stair_config
from stair_es.training.data.sampler import split_batch
from stair_es.training.optimizers import build_param_groups
from stair_es.training.step import DeviceBatch, GradCacheStep, TowerOutputs, set_train_mode

UTILIZATION = 0.4
"""Fraction of a GPU's rate that a training is assumed to reach."""
_BATCHES = 3
"""Batches on the device: the current one and those that are prepared."""
_TEACHER_DIMENSIONS = 768


@dataclass(frozen=True, kw_only=True)
class StagePlan:
    """What a step of a stage needs, per GPU."""

    name: str
    steps: int
    trained: int
    """Parameters that learn."""
    memory_bytes: Mapping[str, int]
    """Memory at the peak of the step, by part."""
    flop: Mapping[str, int]
    """Floating-point operations, by part."""
    sent_bytes: int
    """Bytes sent to other GPUs, with ring algorithms."""


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What a training needs."""

    parameters: int
    tokens: int
    """Tokens of the model; with the vocabulary of a tokenizer or of captions at most so many."""
    gpus: int
    pairs_per_gpu: int
    accumulate: int
    stages: Sequence[StagePlan]

    def estimate_hours(self, tflops: float) -> float:
        """Return the hours of all stages on GPUs of a rate, of which the assumed fraction is reached.

        Args:
            tflops: Rate of a GPU, in 10^12 operations per second.
        """
        flop = sum(stage.steps * sum(stage.flop.values()) for stage in self.stages) * self.accumulate
        return flop / (tflops * 1e12 * UTILIZATION) / 3600


def plan_training(config: TrainConfig, gpus: int) -> TrainingPlan:
    """Measure a step of each stage on tensors without values: no weights, no training set and no GPU are needed.

    Raises:
        UsageError: If the batch can't be divided among the GPUs, or the heads are on a dense model.
        ModelError: If the configuration of a backbone isn't on this machine.
        MissingExtra: If a required library isn't installed.
    """
    pairs = len(split_batch(range(config.batch.size), 0, gpus))
    if config.model.has_dense_backbones:
        raise ConfigError("there is no plan for heads on top of a dense model", "They train in minutes: run it.")
    tokens = _count_tokens(config)
    stages = []
    for stage in config.stages:
        model = _build_model(config, tokens)
        with FakeTensorMode(allow_non_fake_inputs=True):
            _drop_values(model)
            stages.append(_plan_stage(config, model, stage, _build_batch(config, model, stage, pairs), gpus))
    return TrainingPlan(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        tokens=tokens,
        gpus=gpus,
        pairs_per_gpu=pairs,
        accumulate=config.batch.accumulate,
        stages=stages,
    )


def measure_step(step: GradCacheStep, batch: DeviceBatch, static: Mapping[str, Sequence[Tensor]]) -> StepMeter:
    """Run a step, on tensors with or without values, and measure it.

    Args:
        step: The step.
        batch: Its batch.
        static: Tensors that exist before it, by part.
    """
    meter = StepMeter()
    for part, tensors in static.items():
        with meter.enter_part(part):
            meter.add(tensors)
    hooks = [*_follow_gradients(step.model, meter), *_follow_heads(step.model, meter)]
    measured = _MeasuredStep(**vars(step), meter=meter)
    with meter:
        measured.compute_gradients(batch, 0, 0)
    for hook in hooks:
        hook.remove()
    return meter


def _follow_gradients(model: StairModel, meter: StepMeter) -> list[RemovableHandle]:
    return [
        parameter.register_post_accumulate_grad_hook(lambda each: meter.move(each.grad, "gradients"))
        for parameter in model.parameters()
        if parameter.requires_grad
    ]


def _follow_heads(model: StairModel, meter: StepMeter) -> list[RemovableHandle]:
    """Count the operations of the heads apart: forward by hooks of the modules, backward by hooks of their outputs."""

    def follow_backward(result: object, phase: str) -> None:
        for each in tree_leaves(result):
            if isinstance(each, Tensor) and each.requires_grad:
                each.register_hook(lambda _: meter.enter_phase(phase))

    def leave_head(module: nn.Module, inputs: object, result: object) -> None:
        meter.enter_phase("forward")
        follow_backward(result, "heads")

    handles = []
    for head in (model.image.head, model.text.head, model.text.own_words):
        if head is not None:
            handles.append(head.register_forward_pre_hook(lambda *_: meter.enter_phase("heads")))
            handles.append(head.register_forward_hook(leave_head))
    for backbone in (model.image.backbone, model.text.backbone):
        handles.append(backbone.register_forward_hook(lambda module, inputs, states: follow_backward(states, "backward")))
    return handles


class StepMeter(TorchDispatchMode):  # type: ignore[misc]  # mypy skips torch
    """Follows the memory of storages that are alive, and the floating-point operations, by part of the step."""

    def __init__(self) -> None:
        """Begin with nothing, in the part `loss`."""
        super().__init__()
        self.peak: dict[str, int] = {}
        """Bytes by part when there were most."""
        self.flop: Counter[str] = Counter()
        self._live: Counter[str] = Counter()
        self._parts: dict[int, tuple[str, int]] = {}
        self._part = self._phase = "loss"

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:  # noqa: ANN401
        result = func(*args, **(kwargs or {}))
        self.add([each for each in tree_leaves(result) if isinstance(each, Tensor)])
        count = flop_registry.get(func._overloadpacket)  # the registry of FlopCounterMode, whose hooks keep tensors alive
        if func is torch.ops.aten.convolution_backward.default:
            grads, _, weights = args[:3]  # the registry ignores the groups of depthwise convolutions here
            self.flop[self._phase] += 2 * grads.numel() * (weights.numel() // len(weights)) * sum(args[-1][:2])
        elif count is not None:
            self.flop[self._phase] += int(count(*args, **(kwargs or {}), out_val=result))
        return result

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Count storages that are new, until they are freed."""
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if id(storage) not in self._parts:
                self._parts[id(storage)] = self._part, storage.nbytes()
                self._live[self._part] += storage.nbytes()
                weakref.finalize(storage, self._drop, id(storage)).atexit = False
        if self._live.total() > sum(self.peak.values()):
            self.peak = dict(self._live)

    def move(self, tensor: Tensor | None, part: str) -> None:
        """Count the storage of a tensor for another part."""
        if tensor is None:
            return
        self.add([tensor])
        key = id(tensor.untyped_storage())
        old, size = self._parts[key]
        self._parts[key] = part, size
        self._live[old] -= size
        self._live[part] += size

    @contextmanager
    def enter_part(self, part: str, phase: str = "loss") -> Iterator[None]:
        """Count what is allocated within for a part, and operations for a phase."""
        previous = self._part, self._phase
        self._part = part
        self.enter_phase(phase)
        try:
            yield
        finally:
            self._part = previous[0]
            self.enter_phase(previous[1])

    def enter_phase(self, phase: str) -> None:
        """Count the next operations for a phase."""
        self._phase = phase

    def _drop(self, key: int) -> None:
        part, size = self._parts.pop(key)
        self._live[part] -= size


@dataclass(frozen=True, kw_only=True)
class _MeasuredStep(GradCacheStep):
    """A step that tells a meter what it is at."""

    meter: StepMeter

    def _run_towers(self, batch: DeviceBatch, chunk: slice, seed: int) -> TowerOutputs:
        with self.meter.enter_part("towers", "forward"):
            return super()._run_towers(batch, chunk, seed)

    def _run_backward(self, outputs: TowerOutputs, grads: Sequence[Tensor | None]) -> None:
        with self.meter.enter_part("towers", "backward"):
            super()._run_backward(outputs, grads)

    def _sum_values(self, loss_values: Mapping[str, Tensor]) -> dict[str, float]:
        self.workers.sum_in_place(list(loss_values.values()))
        return {}  # tensors without values have none


@dataclass(kw_only=True)
class _PlannedWorkers:
    """A worker group whose other members are only counted."""

    count: int
    rank: int = 0
    sent_bytes: int = field(default=0)

    def gather_rows(self, rows_B: Tensor) -> Tensor:
        """Return a tensor of the shape that all rows have."""
        self.sent_bytes += (self.count - 1) * rows_B.nbytes
        return rows_B.new_zeros((self.count * len(rows_B), *rows_B.shape[1:]))

    def sum_in_place(self, tensors: Sequence[Tensor]) -> None:
        """Count the bytes of an all-reduce."""
        self.sent_bytes += 2 * (self.count - 1) * sum(tensor.nbytes for tensor in tensors) // self.count

    def gather_objects(self, value: Any) -> list[Any]:  # noqa: ANN401  as in the protocol
        """Return the value of each worker, which are alike."""
        return [value] * self.count

    def broadcast_first(self, tensor: Tensor) -> None:
        """Keep the tensor unchanged."""


def _plan_stage(config: TrainConfig, model: StairModel, stage: TrainingStage, batch: DeviceBatch, gpus: int) -> StagePlan:
    build_param_groups(model, stage, config.optim)
    set_train_mode(model, stage, checkpointing=config.batch.checkpointing)
    workers = _PlannedWorkers(count=gpus)
    step = GradCacheStep(
        model=model,
        stage=stage,
        workers=workers,
        make_autocast=lambda: make_autocast("cpu", config.optim.precision),
        chunk=config.batch.chunk,
        gather_dtype=torch.bfloat16 if config.optim.precision == "bf16" else torch.float32,
    )
    inputs = [batch.images, *(each for each in vars(batch.texts).values() if each is not None), *(batch.teacher or ())]
    meter = measure_step(step, batch, {"parameters": [*model.parameters(), *model.buffers()], "batches": inputs})
    learning = [parameter for parameter in model.parameters() if parameter.grad is not None]
    once = workers.sent_bytes
    workers.sum_in_place(learning)
    trained_bytes = sum(parameter.nbytes for parameter in learning)
    memory = {
        **meter.peak,
        "batches": _BATCHES * meter.peak["batches"],
        "optimizer": 2 * trained_bytes,
        "average": sum(parameter.nbytes for parameter in model.parameters()) if config.optim.ema else 0,
    }
    return StagePlan(
        name=stage.name,
        steps=stage.steps,
        trained=sum(parameter.numel() for parameter in learning),
        memory_bytes={part: size for part, size in memory.items() if size},
        flop={part: count for part, count in meter.flop.items() if count},
        sent_bytes=once * config.batch.accumulate + workers.sent_bytes - once,
    )


def _build_model(config: TrainConfig, tokens: int) -> StairModel:
    image, text = (_get_local_backbone(config, tower.backbone) for tower in (config.model.image, config.model.text))
    text_config = fill_backbone_config(text, local=True)
    stair_config = build_stair_config(config, fill_backbone_config(image, config.model.image.size_px, local=True), text_config)
    numbers = np.arange(tokens)
    names: Any = SimpleNamespace(  # what the model reads of its tokenizer
        tokens=range(tokens),
        feature_ids_F=numbers,
        feature_of_V=numbers,
        word_vocabulary=None,
        tokenizer=SimpleNamespace(get_vocab=dict),
    )
    with torch.device("meta"):
        return StairModel(stair_config, names)


def _drop_values(model: StairModel) -> None:
    """Replace parameters and buffers by tensors of the current mode on the CPU; shared ones stay shared."""
    copies: dict[int, Any] = {}
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            module._parameters[name] = copies.setdefault(id(parameter), nn.Parameter(torch.zeros_like(parameter, device="cpu")))
        for name, values in module.named_buffers(recurse=False):
            module._buffers[name] = copies.setdefault(id(values), torch.zeros_like(values, device="cpu"))


def _get_local_backbone(config: TrainConfig, backbone: BackboneConfig) -> BackboneConfig:
    if backbone.kind == "package" and backbone == config.model.text.backbone:
        return BackboneConfig(kind="transformers", name="", config=MINILM_CONFIG)  # without the weights
    return config.resolve_backbone(backbone)


def _count_tokens(config: TrainConfig) -> int:
    """Count the tokens of the model: of a tokenizer all, and of captions, which aren't read, as many."""
    if config.model.start is not None:
        start = config.resolve_path(config.model.start)
        features = checkpoint.read_features(start, read_stair_config(start))
        return len(features)
    if config.model.has_whole_words:
        return len(WholeWordVocabulary.from_file(config.resolve_path(config.model.vocabulary)).words)
    text = fill_backbone_config(_get_local_backbone(config, config.model.text.backbone), local=True)
    values = text.config.get("text_config") or text.config
    return int(values.get("vocab_size") or MINILM_CONFIG["vocab_size"])


def _build_batch(config: TrainConfig, model: StairModel, stage: TrainingStage, pairs: int) -> DeviceBatch:
    """Build a batch of zeros, with states of the backbones if they are cached."""
    size, length = config.model.image.size_px, config.model.text.max_tokens
    images = torch.zeros(pairs, size, size, 3, dtype=torch.uint8)
    ids_BL = torch.zeros(pairs, length, dtype=torch.int64)
    texts = TextBatch(ids_BL, torch.ones(pairs, length, dtype=torch.bool), ids_BL.clone())
    if config.data.cache:
        with torch.no_grad():
            image_states, text_states = model.image.compute_states(images[:1]), model.text.backbone(ids_BL[:1], texts.mask_BL[:1])
        pooled = [tower.pool == "mean" for tower in (config.model.image, config.model.text)]
        images, states_BLD = (
            torch.zeros(pairs, 1 if is_pooled else states.shape[1], states.shape[2])
            for states, is_pooled in zip((image_states, text_states), pooled, strict=True)
        )
        texts = replace(texts, states_BLD=states_BLD)
    teacher = None
    if stage.losses.get("distil"):
        teacher = torch.zeros(pairs, _TEACHER_DIMENSIONS), torch.zeros(pairs, _TEACHER_DIMENSIONS)
    return DeviceBatch(images=images, texts=texts, teacher=teacher)

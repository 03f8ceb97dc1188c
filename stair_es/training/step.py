"""One update: towers in chunks, loss over the batch of all workers, gradients back through the chunks, and what changes with
the step: learning rate, weight of the FLOPs regularizer, average of the parameters.

The outputs of the towers are detached and gathered; each worker computes the loss over all of them, so the gradient at its own
rows is that of the whole batch. It goes back through the towers chunk by chunk, and the parameters' gradients are summed over
the workers. With one worker and one chunk this is ordinary back-propagation; with several chunks it is GradCache (Gao et al.,
"Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", 2021): the same gradient with the memory of one chunk.
Dropout is drawn per chunk, so it differs with another chunk size or number of workers.

Shape suffixes: B batch of a worker, G batch of all workers, F tokens of the vocabulary, E dense dimensions.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stair_es.model.stair import heads
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.training import losses
from stair_es.training.config.schema import LossName, ModelPart, TrainingStage
from stair_es.training.workers import WorkerGroup


class TowerOutputs(NamedTuple):
    """Outputs of the towers for a batch; None for those that no loss uses."""

    image: Tensor
    """The compared vectors: token weights, or dense vectors."""
    text: Tensor
    image_weights: Tensor | None = None
    text_weights: Tensor | None = None
    image_logits: Tensor | None = None
    text_logits: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceBatch:
    """A batch of one worker."""

    images: Tensor
    texts: TextBatch
    teacher: tuple[Tensor, Tensor] | None = None
    """The teacher's dense vectors of images and texts, for the loss `distil`."""
    caption_hashes_B: Tensor | None = None
    """Hash of each caption (int64): other pairs with the same caption aren't negatives."""

    def __len__(self) -> int:
        return len(self.texts)

    def to(self, device: torch.device) -> DeviceBatch:
        """Return the batch on another device."""
        teacher = None if self.teacher is None else (self.teacher[0].to(device), self.teacher[1].to(device))
        hashes = None if self.caption_hashes_B is None else self.caption_hashes_B.to(device)
        return DeviceBatch(images=self.images.to(device), texts=self.texts.to(device), teacher=teacher, caption_hashes_B=hashes)


@dataclass(frozen=True, kw_only=True)
class GradCacheStep:
    """Computes the gradients of a batch."""

    model: StairModel
    stage: TrainingStage
    workers: WorkerGroup
    make_autocast: Callable[[], AbstractContextManager[object]]
    """Returns an autocast context for the precision of the run."""
    chunk: int = 0
    teacher_scale: float = 20.0

    def compute_gradients(
        self, batch: DeviceBatch, step: int, seed: int, scale_loss: Callable[[Tensor], Tensor] = lambda loss: loss
    ) -> dict[str, float]:
        """Add the gradients of a batch to the parameters.

        Args:
            batch: The batch.
            step: Step of the stage.
            seed: Seed of this batch, for the dropout of its chunks.
            scale_loss: Transforms the loss before the backward pass: divides it for gradient accumulation, scales it for fp16.

        Returns:
            The losses by name, with their sum as `loss`.
        """
        size = self.chunk or len(batch)
        chunks = [slice(begin, begin + size) for begin in range(0, len(batch), size)]
        is_single = len(chunks) == 1
        with torch.set_grad_enabled(is_single):
            chunk_outputs = [self._run_towers(batch, chunk, seed + index) for index, chunk in enumerate(chunks)]
        outputs = TowerOutputs(
            *(None if columns[0] is None else torch.cat(columns) for columns in zip(*chunk_outputs, strict=True))
        )
        leaves = TowerOutputs(*(None if each is None else self._gather_leaf(each) for each in outputs))
        loss_values = self._compute_loss(leaves, batch, step)
        scale_loss(loss_values["loss"]).backward()
        self._average_scale_gradient()
        rows = slice(self.workers.rank * len(batch), (self.workers.rank + 1) * len(batch))
        grads = [None if leaf is None or leaf.grad is None else leaf.grad[rows] for leaf in leaves]
        for index, chunk in enumerate(chunks):
            recomputed = chunk_outputs[index] if is_single else self._run_towers(batch, chunk, seed + index)
            self._run_backward(recomputed, [None if grad is None else grad[chunk] for grad in grads])
        return {name: float(value.detach()) for name, value in loss_values.items()}

    def sum_gradients(self) -> None:
        """Sum the parameters' gradients over the workers (that of the temperature is already the same on each).

        A parameter that no loss depends on has no gradient on any worker, and isn't decayed.
        """
        for name, parameter in self.model.named_parameters():
            if parameter.grad is not None and name != "log_scale":
                self.workers.sum_in_place(parameter.grad)

    def _average_scale_gradient(self) -> None:
        """Average the gradient of the temperature: each worker has the full one, but rounding differences must not accumulate."""
        grad = self.model.log_scale.grad
        if grad is not None:
            self.workers.sum_in_place(grad)
            grad /= self.workers.count

    def _run_towers(self, batch: DeviceBatch, chunk: slice, seed: int) -> TowerOutputs:
        torch.manual_seed((seed * self.workers.count + self.workers.rank) % 2**63)
        stage, model = self.stage, self.model
        top_k = None if stage.cap else 0
        with self.make_autocast():
            image = model.encode_images(batch.images[chunk], top_k=top_k)
            text = model.encode_texts(batch.texts[chunk], mask=stage.text_mask, top_k=top_k)
        image_vectors, text_vectors = (
            (image.weights_BF, text.weights_BF) if model.config.is_scored_by_tokens else (image.dense_BE, text.dense_BE)
        )
        assert image_vectors is not None
        assert text_vectors is not None
        get_weight = stage.losses.get
        return TowerOutputs(
            image=image_vectors.float(),
            text=text_vectors.float(),
            image_weights=image.weights_BF if get_weight("flops_image", 0) else None,
            text_weights=text.weights_BF if get_weight("flops_text", 0) else None,
            image_logits=image.logits_BF if get_weight("ground_image", 0) else None,
            text_logits=text.logits_BF if get_weight("ground_text", 0) else None,
        )

    def _gather_leaf(self, rows: Tensor) -> Tensor:
        return self.workers.gather_rows(rows.detach().float()).requires_grad_()

    def _compute_loss(self, outputs: TowerOutputs, batch: DeviceBatch, step: int) -> dict[str, Tensor]:
        stage, model = self.stage, self.model
        cosine = not model.config.is_scored_by_tokens or model.config.similarity == "cosine"
        loss_functions: dict[LossName, Callable[[], Tensor]] = {
            "contrastive": lambda: losses.contrastive_loss(scores),
            "distil": lambda: losses.distillation_loss(scores, self._compute_teacher_scores(batch)),
            "flops_image": lambda: (
                losses.flops_loss(_require_tensor(outputs.image_weights)) * compute_flops_factor(step, warmup=stage.flops_warmup)
            ),
            "flops_text": lambda: (
                losses.flops_loss(_require_tensor(outputs.text_weights)) * compute_flops_factor(step, warmup=stage.flops_warmup)
            ),
            "ground_image": lambda: losses.grounding_loss(_require_tensor(outputs.image_logits), present_GF),
            "ground_text": lambda: losses.grounding_loss(_require_tensor(outputs.text_logits), present_GF),
        }
        scores = losses.compute_similarities(outputs.image, outputs.text, model.scale, cosine=cosine)
        weights = {name: weight for name, weight in stage.losses.items() if weight}
        if weights.keys() & {"ground_image", "ground_text"}:
            present_GF = self._gather_present_tokens(batch.texts)
        values = {str(name): loss_functions[name]() for name in weights}
        total = torch.stack([weight * values[name] for name, weight in weights.items()]).sum()
        return {"loss": total, **values}

    def _gather_present_tokens(self, texts: TextBatch) -> Tensor:
        """Return which tokens occur in the captions of all workers."""
        return self.workers.gather_rows(heads.mark_present_tokens(texts.features_BL, len(self.model.tokens.tokens)).float())

    def _compute_teacher_scores(self, batch: DeviceBatch) -> Tensor:
        assert batch.teacher is not None, "a configuration with the loss distil has a teacher"
        images_GE, texts_GE = (self.workers.gather_rows(each) for each in batch.teacher)
        return self.teacher_scale * images_GE @ texts_GE.T

    @staticmethod
    def _run_backward(outputs: TowerOutputs, grads: Sequence[Tensor | None]) -> None:
        pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output is not None and grad is not None]
        pairs = [(output, grad.to(output.dtype)) for output, grad in pairs if output.requires_grad]
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [grad for _, grad in pairs])


def build_param_groups(
    model: StairModel, stage: TrainingStage, learning_rates: Mapping[str, float], weight_decay: float
) -> list[dict[str, object]]:
    """Build the parameter groups of a stage for AdamW: heads, backbones and temperature have separate learning rates.

    One-dimensional parameters (biases, norms) and the temperature aren't decayed. All other parameters of the model are frozen.

    Args:
        model: The model.
        stage: The stage.
        learning_rates: Learning rates of `head`, `backbone` and `scale`.
        weight_decay: Weight decay of the other parameters.
    """
    groups: dict[tuple[str, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(not stage.is_frozen(name))
        parameter.grad = None  # from the previous stage; the gradient norm is over all gradients
        if parameter.requires_grad:
            kind = "scale" if name == "log_scale" else "backbone" if ".backbone." in name else "head"
            groups.setdefault((kind, parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": learning_rates[kind],
            "rate": learning_rates[kind],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (kind, decays), parameters in groups.items()
    ]


def set_train_mode(model: StairModel, stage: TrainingStage) -> None:
    """Set trained parts to training mode and frozen parts to evaluation mode: no dropout, no updates of batch norm statistics."""
    model.train()
    parts: dict[ModelPart, nn.Module] = {
        "image.backbone": model.image.backbone,
        "text.backbone": model.text.backbone,
        "image.head": model.image.head,
        "text.head": model.text.head,
    }
    for name, module in parts.items():
        module.train(name in stage.train)


def _require_tensor(tensor: Tensor | None) -> Tensor:
    assert tensor is not None
    return tensor


def compute_lr_factor(step: int, *, steps: int, warmup: int, decay: str = "cosine") -> float:
    """Return the factor for the learning rate at a step, 0..1.

    Args:
        step: Step of the stage, from 0.
        steps: Number of steps of the stage.
        warmup: Steps of the linear warm-up.
        decay: `cosine` falls to 0 at the end, `constant` doesn't change.
    """
    if step < warmup:
        return (step + 1) / warmup
    if decay == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, steps - warmup)))


def compute_flops_factor(step: int, *, warmup: int) -> float:
    """Return the factor for the FLOPs regularizer at a step: it rises with the square of the step (Formal et al., 2021)."""
    return min(1.0, ((step + 1) / warmup) ** 2) if warmup else 1.0


class EMA:
    """Exponential moving average of trained parameters (Polyak and Juditsky, 1992); with `decay` 0 there is none."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self._decay = decay
        self.shadow: dict[str, Tensor] = {}
        if decay:
            self.shadow = {name: value.detach().clone() for name, value in model.named_parameters()}

    def update(self, model: nn.Module) -> None:
        """Update the average after a step: `a = decay * a + (1 - decay) * p`."""
        for name, value in model.named_parameters():
            if name in self.shadow and value.requires_grad:
                self.shadow[name].lerp_(value.detach(), 1 - self._decay)

    @contextmanager
    def apply_to(self, model: nn.Module) -> Iterator[None]:
        """Use the averages as the model's parameters within the context."""
        if not self.shadow:
            yield
            return
        original = {name: value.detach().clone() for name, value in model.named_parameters()}
        try:
            _copy_values(self.shadow, model)
            yield
        finally:
            _copy_values(original, model)


def _copy_values(values: dict[str, Tensor], model: nn.Module) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])

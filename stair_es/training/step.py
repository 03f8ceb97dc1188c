"""One update: towers in chunks, each worker's share of the loss, gradients back through the chunks, and what changes with
the step: weight of the FLOPs regularizer, average of the parameters.

A worker scores its images with the texts of all workers, and its texts with all images: [B, G] twice instead of [G, G]. The
compared vectors of each side are gathered once, in bf16 if that is the precision, and without gradient. A row also gets a
gradient as a column of the other workers' rows. They needn't send it back (a reduce-scatter as large as the gather): the
softmax of a column at the worker's own rows follows from scores that it has and one number per column, the logarithm of its
sum. So the workers exchange these logarithms, two numbers per pair. The FLOPs regularizer needs the sum of each token's
weights, grounding the number of captions with tokens. Losses and parameters' gradients are summed over the workers.

The outputs of the towers are detached, and their gradients go back through the towers chunk by chunk. With one chunk this is
ordinary back-propagation; with several it is GradCache (Gao et al., "Scaling Deep Contrastive Learning Batch Size under
Memory Limited Setup", 2021): the same gradient with the memory of one chunk. Dropout is drawn per chunk, so it differs with
another chunk size or number of workers.

Shape suffixes: B batch of a worker, G batch of all workers, F tokens of the vocabulary, E dense dimensions.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from stair_es.model.stair import heads
from stair_es.model.stair.backbones import enable_checkpointing
from stair_es.model.stair.modeling import StairModel, TextBatch
from stair_es.training import losses
from stair_es.training.config.schema import ModelPart, TrainingStage
from stair_es.training.losses import ScoreRows
from stair_es.training.workers import WorkerGroup


class TowerOutputs(NamedTuple):
    """Outputs of the towers for a batch; None for those that no loss uses."""

    image: Tensor
    """The compared vectors: token weights, or dense vectors."""
    text: Tensor
    image_weights: Tensor | None = None
    """Token weights, if they aren't the compared vectors."""
    text_weights: Tensor | None = None
    image_logits: Tensor | None = None
    text_logits: Tensor | None = None
    image_dense: Tensor | None = None
    """Dense vectors, if they are compared beside token weights."""
    text_dense: Tensor | None = None


@dataclass(frozen=True, kw_only=True)
class DeviceBatch:
    """A batch of one worker."""

    images: Tensor
    texts: TextBatch
    teacher: tuple[Tensor, Tensor] | None = None
    """The teacher's dense vectors of images and texts, for the loss `distil`."""
    caption_hashes_B: Tensor | None = None
    """Hash (int64) of each pair; pairs with equal hashes aren't negatives of each other."""

    def to(self, device: torch.device) -> DeviceBatch:
        """Return the batch on another device. Copies to a GPU overlap with its work."""

        def copy(tensor: Tensor) -> Tensor:
            pinned = tensor.pin_memory() if device.type == "cuda" and tensor.device.type == "cpu" else tensor
            return pinned.to(device, non_blocking=True)

        return DeviceBatch(
            images=copy(self.images),
            texts=TextBatch(*(None if each is None else copy(each) for each in vars(self.texts).values())),
            teacher=None if self.teacher is None else (copy(self.teacher[0]), copy(self.teacher[1])),
            caption_hashes_B=None if self.caption_hashes_B is None else copy(self.caption_hashes_B),
        )

    def __len__(self) -> int:
        return len(self.texts)


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
    gather_dtype: torch.dtype = torch.float32
    """Type in which the compared vectors are sent and multiplied."""

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
        leaves = TowerOutputs(
            *(None if columns[0] is None else _concatenate_leaf(columns) for columns in zip(*chunk_outputs, strict=True))
        )
        if not is_single:
            chunk_outputs.clear()  # the leaves have copies
        loss_values = self._compute_loss(leaves, batch, step)
        scale_loss(loss_values["loss"]).backward()
        grads = [None if leaf is None else leaf.grad for leaf in leaves]
        del leaves
        for index, chunk in enumerate(chunks):
            outputs = chunk_outputs.pop() if is_single else self._run_towers(batch, chunk, seed + index)
            self._run_backward(outputs, [None if grad is None else grad[chunk] for grad in grads])
        sums = torch.stack([value.detach() for value in loss_values.values()])
        self.workers.sum_in_place([sums])
        return dict(zip(loss_values, sums.tolist(), strict=True))

    def sum_gradients(self) -> None:
        """Sum the parameters' gradients over the workers.

        A parameter that no loss depends on has no gradient on any worker, and isn't decayed.
        """
        parameters = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        counts = torch.tensor([float(parameter.grad is not None) for parameter in parameters])
        self.workers.sum_in_place([counts])
        learning = [parameter for parameter, count in zip(parameters, counts.tolist(), strict=True) if count]
        for parameter in learning:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.workers.sum_in_place([parameter.grad for parameter in learning if parameter.grad is not None])

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
        get_weight, is_scored_apart = stage.losses.get, not model.config.is_scored_by_tokens
        return TowerOutputs(
            image=image_vectors.float(),
            text=text_vectors.float(),
            image_weights=image.weights_BF if is_scored_apart and get_weight("flops_image", 0) else None,
            text_weights=text.weights_BF if is_scored_apart and get_weight("flops_text", 0) else None,
            image_logits=image.logits_BF if get_weight("ground_image", 0) or get_weight("gate_image", 0) else None,
            text_logits=text.logits_BF if get_weight("ground_text", 0) else None,
            image_dense=image.dense_BE if get_weight("joint", 0) else None,
            text_dense=text.dense_BE if get_weight("joint", 0) else None,
        )

    def _compute_loss(self, outputs: TowerOutputs, batch: DeviceBatch, step: int) -> dict[str, Tensor]:
        """Compute this worker's share of each loss."""
        stage = self.stage
        weights = {name: weight for name, weight in stage.losses.items() if weight}
        values: dict[str, Tensor] = {}
        if weights.keys() & {"contrastive", "joint", "distil"}:
            values |= self._compute_score_losses(outputs, batch, weights.keys())
        values |= self._compute_token_losses(outputs, batch, weights.keys())
        for name in weights.keys() & {"flops_image", "flops_text"}:
            values[name] = values[name] * compute_flops_factor(step, warmup=stage.flops_warmup)
        total = torch.stack([weight * values[name] for name, weight in weights.items()]).sum()
        return {"loss": total, **{name: values[name] for name in weights}}

    def _compute_score_losses(self, outputs: TowerOutputs, batch: DeviceBatch, names: Collection[str]) -> dict[str, Tensor]:
        images, texts = outputs.image, outputs.text
        if not self.model.config.is_scored_by_tokens or self.model.config.similarity == "cosine":
            images, texts = losses.normalize_rows(images), losses.normalize_rows(texts)
        # Own rows are rounded as well: both directions must see the same scores.
        images, texts = (vectors.to(self.gather_dtype) for vectors in (images, texts))
        scale = self.model.scale
        # All pairs are in the rows of images of one worker, so that the temperature's gradient from there is complete.
        scales, repeats_BG = (scale, scale.detach()), self._mark_repeats(batch)
        pairs = {"own": self._score_pairs(images, texts, scales, repeats_BG)}
        if "distil" in names:
            assert batch.teacher is not None, "a configuration with the loss distil has a teacher"
            pairs["teacher"] = self._score_pairs(*batch.teacher, (self.teacher_scale, self.teacher_scale), repeats_BG)
        if "joint" in names:
            assert outputs.image_dense is not None, "a configuration with the loss joint has both heads"
            assert outputs.text_dense is not None
            pairs["dense"] = self._score_pairs(outputs.image_dense, outputs.text_dense, scales, repeats_BG)
            of_images, of_texts = (one.average_with(other) for one, other in zip(pairs["own"], pairs["dense"], strict=True))
            pairs["both"] = of_images, of_texts
        log_sums = torch.stack([rows.log_sums_B.detach() for pair in pairs.values() for rows in pair], dim=1)
        columns = self.workers.gather_rows(log_sums).unbind(dim=1)
        sums = {name: columns[2 * number : 2 * number + 2] for number, name in enumerate(pairs)}

        def contrast(name: str) -> Tensor:
            images, texts = pairs[name]
            return losses.contrastive_loss(images, sums[name][1]) + losses.contrastive_loss(texts, sums[name][0])

        def distil(name: str, teacher: str) -> Tensor:
            shares = zip(pairs[name], sums[name][::-1], pairs[teacher], sums[teacher][::-1], strict=True)
            return torch.stack([losses.distillation_loss(rows, sums_G, *more) for rows, sums_G, *more in shares]).sum()

        values = {"contrastive": contrast("own")} if "contrastive" in names else {}
        if "distil" in names:
            values["distil"] = distil("own", "teacher")
        if "joint" in names:
            values["joint"] = contrast("dense") + contrast("both") + distil("own", "both") + distil("dense", "both")
        return values

    def _mark_repeats(self, batch: DeviceBatch) -> Tensor | None:
        hashes_B = batch.caption_hashes_B
        if hashes_B is None:
            return None
        return losses.mark_repeats(hashes_B, self.workers.gather_rows(hashes_B), self.workers.rank * len(batch))

    def _score_pairs(
        self, images: Tensor, texts: Tensor, scales: tuple[Tensor | float, Tensor | float], repeats_BG: Tensor | None
    ) -> tuple[ScoreRows, ScoreRows]:
        """Score the worker's images with all texts, and its texts with all images."""

        def score_rows(rows: Tensor, columns: Tensor, scale: Tensor | float) -> ScoreRows:
            columns_GE = self.workers.gather_rows(columns).float()
            return ScoreRows.from_vectors(
                rows.float(), columns_GE, scale, first=self.workers.rank * len(rows), repeats_BG=repeats_BG
            )

        return score_rows(images, texts, scales[0]), score_rows(texts, images, scales[1])

    def _compute_token_losses(self, outputs: TowerOutputs, batch: DeviceBatch, names: Collection[str]) -> dict[str, Tensor]:
        is_scored = self.model.config.is_scored_by_tokens
        weights = self._select_outputs(
            names,
            flops_image=outputs.image if is_scored else outputs.image_weights,
            flops_text=outputs.text if is_scored else outputs.text_weights,
        )
        logits = self._select_outputs(names, ground_image=outputs.image_logits, ground_text=outputs.text_logits)
        sums = {name: each.detach().sum(dim=0) for name, each in weights.items()}
        if logits or "gate_image" in names:
            present_BF = heads.mark_present_tokens(batch.texts.features_BL, len(self.model.tokens.tokens))
            captions = present_BF.any(dim=1).sum(dtype=torch.float32)
            sums["captions"] = captions
        self.workers.sum_in_place(list(sums.values()))
        rows = len(batch) * self.workers.count
        values = {name: losses.flops_loss(each, sums[name], rows) for name, each in weights.items()}
        values |= {name: losses.grounding_loss(each, present_BF, captions) for name, each in logits.items()}
        if "gate_image" in names and outputs.image_logits is not None:
            values["gate_image"] = losses.gating_loss(outputs.image_logits, outputs.image, outputs.text * present_BF, captions)
        return values

    @staticmethod
    def _select_outputs(names: Collection[str], **outputs: Tensor | None) -> dict[str, Tensor]:
        return {name: each for name, each in outputs.items() if name in names and each is not None}

    @staticmethod
    def _run_backward(outputs: TowerOutputs, grads: Sequence[Tensor | None]) -> None:
        pairs = [(output, grad) for output, grad in zip(outputs, grads, strict=True) if output is not None and grad is not None]
        pairs = [(output, grad.to(output.dtype)) for output, grad in pairs if output.requires_grad]
        if pairs:
            torch.autograd.backward([output for output, _ in pairs], [grad for _, grad in pairs])


def set_train_mode(model: StairModel, stage: TrainingStage, *, checkpointing: bool = False) -> None:
    """Set trained parts to training mode and frozen parts to evaluation mode: no dropout, no updates of batch norm statistics.

    Args:
        model: The model.
        stage: The stage.
        checkpointing: Whether backbones that learn compute their states again in the backward pass.

    Raises:
        ModelError: If a backbone can't do this.
    """
    model.train()
    parts: dict[ModelPart, nn.Module] = {
        "image.backbone": model.image.backbone,
        "text.backbone": model.text.backbone,
        "image.head": model.image.head,
        "text.head": model.text.head,
    }
    for name, module in parts.items():
        module.train(name in stage.train)
    if checkpointing:
        for side, tower in (("image", model.image), ("text", model.text)):
            if f"{side}.backbone" in stage.train:
                enable_checkpointing(tower.backbone.network, getattr(model.config, side).backbone.name)


def _concatenate_leaf(chunks: Sequence[Tensor]) -> Tensor:
    """Return the rows of all chunks as a tensor whose gradient is kept."""
    rows = chunks[0] if len(chunks) == 1 else torch.cat(list(chunks))
    return rows.detach().float().requires_grad_()


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

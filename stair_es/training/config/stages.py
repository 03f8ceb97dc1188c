"""Training stages as data: trained parts, text mask, losses and steps; and the named recipes, which are files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any, Literal, TypeAlias, get_args

from stair_es.errors import UsageError
from stair_es.model.stair.configuration import TextMask
from stair_es.training.config.toml import TableReader, parse_training_toml

LossName: TypeAlias = Literal["contrastive", "ground_image", "ground_text", "flops_image", "flops_text", "distil"]
ModelPart: TypeAlias = Literal["image.backbone", "image.head", "text.backbone", "text.head"]
LOSSES: tuple[LossName, ...] = get_args(LossName)
PARTS: tuple[ModelPart, ...] = get_args(ModelPart)


@dataclass(frozen=True, kw_only=True)
class TrainingStage:
    """A training stage."""

    name: str
    steps: int
    losses: Mapping[LossName, float] = field(default_factory=lambda: {"contrastive": 1.0})
    """Loss -> weight."""
    train: tuple[ModelPart, ...] = PARTS
    """Trained parts; the rest is frozen. The temperature is always trained."""
    text_mask: TextMask = "none"
    """`own`: a text may only have weights for its own tokens, without stop words; `tokens`: for all of its tokens."""
    flops_warmup: int = 0
    """Steps until the FLOPs regularizer reaches its weight."""
    cap: bool = True
    """Whether the towers' `top_k` applies during training; it always applies afterwards."""

    def __post_init__(self) -> None:
        """Check the values.

        Raises:
            UsageError: If a value is out of range.
        """
        if self.steps < 1:
            raise UsageError(
                f"stage {self.name!r}: steps must be 1 or more, got {self.steps}", "Leave the stage out, or give it steps."
            )
        if self.flops_warmup < 0:
            raise UsageError(f"stage {self.name!r}: flops_warmup must be 0 or more, got {self.flops_warmup}", "0 for none.")
        if any(weight < 0 for weight in self.losses.values()):
            raise UsageError(f"stage {self.name!r}: a loss's weight must be 0 or more", "Omit a loss that isn't needed.")
        if not any(weight > 0 for weight in self.losses.values()):
            raise UsageError(f"stage {self.name!r} has no loss", f"Give one of: {', '.join(LOSSES)}.")
        if not self.train:
            raise UsageError(f"stage {self.name!r} trains nothing", f"Give train = [...] of: {', '.join(PARTS)}.")

    def is_frozen(self, name: str) -> bool:
        """Return whether a model parameter is frozen in this stage."""
        if name == "log_scale":
            return False
        side, _, rest = name.partition(".")
        part = f"{side}.{'backbone' if rest.startswith('backbone') else 'head'}"
        return part not in self.train


def load_recipe(name: str, steps: int) -> tuple[TrainingStage, ...]:
    """Load the stages of a named recipe.

    Args:
        name: Name of the recipe.
        steps: Total steps of all stages.

    Raises:
        UsageError: If there is no such recipe.
    """
    known = list_recipes()
    if name not in known:
        raise UsageError(f"unknown recipe {name!r}", f"Choose one of: {', '.join(sorted(known))}; or write [[stages]].")
    values = _read_recipe(name)
    reader = TableReader(values, f"recipe {name}")
    shares = [stage.pop("share") for stage in values["stages"]]
    ends = [round(steps * sum(shares[: place + 1])) for place in range(len(shares))]
    for stage, begin, end in zip(values["stages"], [0, *ends], ends, strict=False):
        stage["steps"] = max(1, end - begin)
        if "flops_warmup_share" in stage:
            stage["flops_warmup"] = round(stage.pop("flops_warmup_share") * stage["steps"])
    return read_stages(reader.get_tables("stages"))


def get_model_defaults(name: object) -> dict[str, Any]:
    """Return the recipe's defaults for the table `[model]`; empty for an unknown recipe."""
    if name not in list_recipes():
        return {}
    found: dict[str, Any] = _read_recipe(str(name)).get("model", {})
    return found


def list_recipes() -> dict[str, str]:
    """List the recipes: name -> one line of description."""
    found = {}
    for file in (files(__package__) / "recipes").iterdir():
        if file.name.endswith(".toml"):
            values = parse_training_toml(file.read_text(encoding="utf-8"), file.name)
            found[file.name.removesuffix(".toml")] = str(values["about"])
    return found


def _read_recipe(name: str) -> dict[str, Any]:
    return parse_training_toml((files(__package__) / "recipes" / f"{name}.toml").read_text(encoding="utf-8"), name)


def read_stages(tables: Sequence[TableReader]) -> tuple[TrainingStage, ...]:
    """Read stages from tables of a file.

    Raises:
        UsageError: If a value is unknown, missing or of the wrong type.
    """
    return tuple(_read_stage(table) for table in tables)


def _read_stage(table: TableReader) -> TrainingStage:
    losses = table.get_table("losses")
    found = {name: losses.get_number(losses.check_choice("loss", name, LOSSES)) for name in losses.values}
    given: dict[str, Any] = {"losses": found} if found else {}
    return table.build_dataclass(TrainingStage, skip=("losses",), **given)

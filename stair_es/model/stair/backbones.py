"""Backbones: any vision or BERT-like model of transformers, any of timm, the two networks from Python packages, dense models.

Shape suffixes: B batch, C channels, H height, W width, L positions, D states, V tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from stair_es.config.defaults import DataDir
from stair_es.errors import CheckpointError, ModelError, StairError
from stair_es.model.networks import minilm_download
from stair_es.model.networks.image_networks import CLASSIFIER_FEATURE_MAP, CLASSIFIER_FILE, CLASSIFIER_INPUT
from stair_es.model.stair.configuration import BackboneConfig
from stair_es.optional import import_optional

_MINILM = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 384,
    "num_hidden_layers": 6,
    "num_attention_heads": 12,
    "intermediate_size": 1536,
    "max_position_embeddings": 512,
}
_EFFICIENTNET_WIDTH = 1280


class ImageBackbone(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """Normalized pixels [B, C, H, W] to states [B, L, D]."""

    def __init__(self, network: nn.Module, width: int, call: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.width, self._call = network, width, call

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """Compute the states [B, L, D]."""
        states = self._call(self.network, pixels_BCHW)
        if states.ndim == 3:
            return states
        if states.ndim == 2:
            return states[:, None]
        if states.shape[1] == self.width:  # channels first, from a convolutional network
            return states.flatten(2).transpose(1, 2)
        return states.flatten(1, 2)


class DenseBackbone(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """A place without a network: the one state of an image or a text is its vector, which a dense model's encoder computes."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width


class TextBackbone(nn.Module):  # type: ignore[misc]  # mypy skips torch
    """Token ids [B, L] to states [B, L, D]."""

    def __init__(self, network: nn.Module, width: int) -> None:
        super().__init__()
        self.network, self.width = network, width

    def forward(self, ids_BL: Tensor, mask_BL: Tensor) -> Tensor:
        """Compute the states [B, L, D]."""
        states_BLD: Tensor = self.network(input_ids=ids_BL, attention_mask=mask_BL.long()).last_hidden_state
        return states_BLD

    @property
    def word_embeddings_VD(self) -> Tensor:  # noqa: N802  the suffix is its shape
        """Return the input embeddings of all tokens."""
        table: Tensor = self.network.get_input_embeddings().weight
        return table


def fill_backbone_config(backbone: BackboneConfig, size_px: int | None = None) -> BackboneConfig:
    """Fill in the configuration that builds the backbone without access to a hub.

    Args:
        backbone: Backbone of a training config: a name, or a transformers configuration for random weights.
        size_px: Size of the images, for networks that depend on it.

    Raises:
        ModelError: If the hub doesn't have the backbone or can't be reached.
        MissingExtra: If transformers or timm isn't installed.
    """
    if backbone.config or backbone.kind in ("package", "dense"):
        return backbone
    if backbone.kind == "timm":
        sized = {"img_size": size_px} if size_px and "vit" in backbone.name else {}
        return replace(backbone, config={"num_classes": 0, **sized})
    transformers = import_optional("transformers", "train")
    try:
        config = transformers.AutoConfig.from_pretrained(backbone.name)
    except (OSError, ValueError) as error:
        raise ModelError(
            f"no configuration for {backbone.name!r}: {_get_first_line(error)}", _HUB_REMEDY, code="no-backbone-config"
        ) from error
    return replace(backbone, config=config.to_dict())


def build_image_backbone(backbone: BackboneConfig, *, pretrained: bool) -> ImageBackbone | DenseBackbone:
    """Build an image backbone.

    Args:
        backbone: Backbone with its configuration.
        pretrained: Whether to download published weights; else they are random, to be loaded from a checkpoint.

    Raises:
        ModelError: If it can't be built, or its weights can't be downloaded.
        MissingExtra: If the library isn't installed.
    """
    if backbone.kind == "dense":
        return DenseBackbone(backbone.dimensions)
    if backbone.kind == "package":
        return _build_efficientnet()
    if backbone.kind == "timm":
        timm = import_optional("timm", "train")
        model = _build_or_raise(lambda: timm.create_model(backbone.name, pretrained=pretrained, **backbone.config), backbone.name)
        return ImageBackbone(model, int(model.num_features), lambda network, pixels: network.forward_features(pixels))
    network = _build_transformer(backbone, pretrained, "vision_config")
    return ImageBackbone(
        network, _get_hidden_size(network), lambda network, pixels: network(pixel_values=pixels).last_hidden_state
    )


def build_text_backbone(
    backbone: BackboneConfig, *, pretrained: bool, home: DataDir | None = None
) -> TextBackbone | DenseBackbone:
    """Build a text backbone.

    Args:
        backbone: Backbone with its configuration.
        pretrained: Whether to download published weights; else they are random, to be loaded from a checkpoint.
        home: Data folder, for the weights of a packaged text backbone; None for that of the environment.

    Raises:
        ModelError: If it can't be built, or its weights can't be downloaded.
        MissingExtra: If the library isn't installed.
    """
    if backbone.kind == "dense":
        return DenseBackbone(backbone.dimensions)
    if backbone.kind == "package":
        return _build_minilm(home or DataDir.from_env())
    network = _build_transformer(backbone, pretrained, "text_config")
    return TextBackbone(network, _get_hidden_size(network))


def enable_checkpointing(network: Any, name: str) -> None:  # noqa: ANN401  a network of transformers or timm
    """Let a backbone in training mode keep only the inputs of its layers, and compute the rest again in the backward pass.

    Raises:
        ModelError: If the library can't do this for the network.
    """
    try:
        if hasattr(network, "set_grad_checkpointing"):
            network.set_grad_checkpointing(True)
        else:  # transformers 5.6 has the second name only
            enable = getattr(network, "activation_checkpointing_enable", None) or network.gradient_checkpointing_enable
            enable({"use_reentrant": False})
    except (AttributeError, AssertionError, ValueError) as error:
        raise ModelError(
            f"the backbone {name!r} has no gradient checkpointing",
            "Leave out batch.checkpointing, and lower batch.chunk instead.",
            code="no-checkpointing",
        ) from error


def compute_layer_depths(network: Any, name: str) -> dict[str, int]:  # noqa: ANN401  a network of transformers or timm
    """Compute the depth of each parameter by name: 0 in the last layer and above, and the largest in the embeddings.

    Raises:
        ModelError: If the network doesn't consist of layers.
    """
    if hasattr(network, "group_matcher"):
        group_parameters = import_optional("timm.models", "train").group_parameters
        layers = group_parameters(network, network.group_matcher(coarse=False), reverse=True)
        depths = {key: max(layers.values()) - layer for key, layer in layers.items()}
    else:
        depths = _count_layers(network)
    if len(set(depths.values())) < 3:  # at least embeddings and two layers
        raise ModelError(
            f"no layers were found in the backbone {name!r}", "Leave out optim.layer_decay.", code="no-backbone-layers"
        )
    return depths


def _count_layers(network: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter by name; all are 0 without a list of layers of one class."""
    lists = {
        prefix: module
        for prefix, module in network.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) > 1 and len({type(layer) for layer in module}) == 1
    }
    if not lists:
        return dict.fromkeys(dict(network.named_parameters()), 0)
    sizes = {prefix: sum(parameter.numel() for parameter in module.parameters()) for prefix, module in lists.items()}
    prefix = max(sizes, key=lambda key: sizes[key])
    depths, depth = {}, len(lists[prefix])
    for key, _ in network.named_parameters():
        if key.startswith(f"{prefix}."):
            depth = len(lists[prefix]) - 1 - int(key.removeprefix(f"{prefix}.").partition(".")[0])
        elif depth < len(lists[prefix]):
            depth = 0  # after the layers
        depths[key] = depth
    return depths


def _build_transformer(backbone: BackboneConfig, pretrained: bool, inner: str) -> Any:  # noqa: ANN401  a PreTrainedModel
    transformers = import_optional("transformers", "train")
    values = dict(backbone.config)
    kind = values.pop("model_type", None)
    if kind is None:
        raise CheckpointError(
            f"the configuration of {backbone.name!r} has no model_type", "Add the model_type of the network, such as 'bert'."
        )

    def make_model() -> Any:  # noqa: ANN401
        config = transformers.AutoConfig.for_model(kind, **values)
        config = getattr(config, inner, config)  # the matching tower of a dual encoder such as CLIP
        if pretrained and backbone.name:
            return transformers.AutoModel.from_pretrained(backbone.name, config=config, use_safetensors=True)
        return transformers.AutoModel.from_config(config)

    return _build_or_raise(make_model, backbone.name or kind)


def _build_or_raise(make: Callable[[], Any], name: str) -> Any:  # noqa: ANN401
    try:
        return make()
    except StairError:
        raise
    except Exception as error:  # each library raises its own errors for unknown names and values
        raise ModelError(
            f"the backbone {name!r} can't be built: {_get_first_line(error)}", _HUB_REMEDY, code="backbone-not-built"
        ) from error


def _build_efficientnet() -> ImageBackbone:
    def compute_feature_map(network: Any, pixels_BCHW: Tensor) -> Tensor:  # noqa: ANN401  a TorchGraph
        [features_BDHW] = network(pixels_BCHW, CLASSIFIER_INPUT, [CLASSIFIER_FEATURE_MAP])
        return features_BDHW

    import_optional("onnx", "torch")
    from stair_es.model.networks.torch_graph import TorchGraph

    return ImageBackbone(TorchGraph(CLASSIFIER_FILE), _EFFICIENTNET_WIDTH, compute_feature_map)


def _build_minilm(home: DataDir) -> TextBackbone:
    safetensors = import_optional("safetensors.torch", "torch")
    network = _build_transformer(
        BackboneConfig(kind="transformers", name="", config=_MINILM), pretrained=False, inner="text_config"
    )
    weights = safetensors.load_file(minilm_download.ensure_minilm(home.models) / minilm_download.MINILM_WEIGHTS)
    missing = network.load_state_dict(weights, strict=False).missing_keys
    if any(not name.startswith("pooler.") for name in missing):
        raise ModelError(
            f"the text network lacks {missing[0]}",
            "Delete its folder; it is fetched again on the next use.",
            code="text-network-incomplete",
        )
    return TextBackbone(network, _get_hidden_size(network))


def _get_hidden_size(network: Any) -> int:  # noqa: ANN401
    config = network.config
    return int(getattr(config, "hidden_size", None) or config.hidden_sizes[-1])


def _get_first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:300]


_HUB_REMEDY = "Specify a model of the hub or of timm, and check that it can be downloaded (or is in HF_HOME)."

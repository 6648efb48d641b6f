# SPDX-License-Identifier: Apache-2.0
"""FCN-8s for images and volumes: a classifier's own maps, scored at three resolutions and summed.

Long, Shelhamer, Darrell: Fully Convolutional Networks for Semantic Segmentation, CVPR 2015. As in
the paper, maps at 1/8, 1/16 and 1/32 are scored by convolutions of kernel 1, and coarser scores
rise by fixed linear interpolation before they are added to finer ones. Unlike it, the coarsest
maps are scored as they are: the two layers of 4096 channels that the paper makes of VGG's hidden
ones (kernels 7 and 1, 120 of its 134 million parameters) are left out, as in later FCNs; and the
borders are padded to keep the grid instead of by 100 pixels and cropping.
"""

from __future__ import annotations

from torch import Tensor, nn

from vesalius.errors import UsageError, did_you_mean
from vesalius.networks.layers import Conv, Stem, enlarge
from vesalius.networks.registry import ENCODERS, build
from vesalius.networks.segmentation_network import check_size

_SPREAD = 0.01  # of the score layers' first weights


class FCN(nn.Module):
    """Encoder and three score layers; logits on the input's own grid.

    Args:
        spatial_dims: 2 or 3.
        in_channels: image channels.
        out_channels: labels, background included.
        encoder: a name of `registry.ENCODERS`. `encoder` is the very network that classifies,
            without its classifier: the state of a trained one loads into it.
        stem: of the encoder; the maps are those at 1/8, 1/16, 1/32 with "large", at 1/4 to 1/16
            with "medium", at 1/2 to 1/8 with "small".
        width: channels of the encoder's first layer; None: the architecture's own.

    The input's size along an axis must be a multiple of the coarsest maps' stride (`multiple`).
    """

    def __init__(
        self,
        *,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        encoder: str = "vgg16",
        stem: Stem = "large",
        width: int | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise UsageError(
                f"encoder must be one of {', '.join(ENCODERS)}, got '{encoder}'."
                f"{did_you_mean(encoder, ENCODERS)}"
            )
        options = {} if width is None else {"width": width}
        self.encoder = build(
            encoder,
            spatial_dims=spatial_dims,
            in_channels=in_channels,
            out_channels=0,
            stem=stem,
            **options,
        )
        widths: tuple[int, ...] = self.encoder.pyramid_widths  # type: ignore[assignment]
        strides: tuple[int, ...] = self.encoder.pyramid_strides  # type: ignore[assignment]
        self.multiple = (strides[-1],) * spatial_dims
        self.rest = strides[-3]  # what the finest scores rise by
        self.scores = nn.ModuleList(
            Conv[spatial_dims](wide, out_channels, 1) for wide in widths[-3:]
        )
        for score in self.scores:
            nn.init.normal_(score.weight, std=_SPREAD)  # type: ignore[arg-type]
            nn.init.zeros_(score.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits: `(N, in_channels, ...)` -> `(N, out_channels, ...)`."""
        check_size(x, self.multiple, fewest=2 if self.training and len(x) == 1 else 1)
        maps: list[Tensor] = self.encoder.pyramid(x)[-3:]  # type: ignore[operator]
        fine, middle, coarse = (score(m) for score, m in zip(self.scores, maps, strict=True))
        logits: Tensor = fine + enlarge(middle + enlarge(coarse, 2), 2)
        return enlarge(logits, self.rest)

"""Images and robot state -> policy features and memory content.

One residual network (He et al. 2016), small by default, is shared by all cameras. Its last feature map is read in
two ways: flattened, after a 1x1 convolution to few channels, it makes one token a camera for the policy, which
needs to know *where* things are; and the sum over cameras of globally averaged 1x1 convolutions makes v_t
for the memory, which needs to know *what* is there (TRACE section 3).

The flattened map replaced a spatial soft-argmax (Finn et al. 2016), whose maps begin almost uniform and say little of
where a thing is until long training has sharpened them.
"""

import torch
from torch import Tensor, nn


class ResidualBlock(nn.Module):
    """conv-norm-relu-conv-norm plus shortcut; GroupNorm, since batches hold correlated frames."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.GroupNorm(4, outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.GroupNorm(4, outputs)
        self.shortcut = nn.Identity() if stride == 1 and inputs == outputs else nn.Conv2d(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.norm1(self.conv1(x)))
        return torch.relu(self.norm2(self.conv2(hidden)) + self.shortcut(x))


class Encoder(nn.Module):
    """Multi-camera encoder.

    Args:
        cameras: number of cameras C.
        image_size: (height, width) in pixels, each at least 16.
        state_dim: D.
        width: W, the width of policy tokens.
        content_dim: width of v_t and of p_t; the memory's content e_t = [v_t, p_t] has twice as many.
        channels: channels of the stages, best multiples of 16; the stem has the first and divides the
            size by 4, each further stage divides it by 2. Stages are repeated at the last width until the map is
            at most 16 wide.
        blocks: residual blocks of a stage.
        stem: "patch", a convolution of 4 x 4 patches, or "resnet", 7 x 7 with stride 2 and max-pooling.
            ResNet-18's trunk is channels (64, 128, 256, 512), blocks 2, stem "resnet".
        spatial_channels: channels of the flattened map.
    Raises:
        ValueError: images smaller than 16 x 16, no block, or an unknown stem.
    """

    def __init__(
        self,
        cameras: int,
        image_size: tuple[int, int],
        state_dim: int,
        width: int = 128,
        content_dim: int = 64,
        channels: tuple[int, ...] = (16, 48),
        blocks: int = 1,
        stem: str = "patch",
        spatial_channels: int = 8,
    ) -> None:
        super().__init__()
        if min(image_size) < 16:
            raise ValueError(f"images must be at least 16 x 16 pixels, got {image_size}")
        if blocks < 1 or stem not in ("patch", "resnet"):
            raise ValueError(f"blocks must be at least 1 and stem patch or resnet, got {blocks} and {stem!r}")
        self.width, self.content_dim = width, content_dim
        first = channels[0]
        layers: list[nn.Module] = [
            nn.Conv2d(3, first, 4, 4) if stem == "patch" else nn.Conv2d(3, first, 7, 2, 3, bias=False),
            nn.GroupNorm(4, first),
            nn.ReLU(),
        ]
        if stem == "resnet":
            layers.append(nn.MaxPool2d(3, 2, 1))
        size = [s // 4 if stem == "patch" else -(-s // 4) for s in image_size]
        stages = [(first, 1), *((width, 2) for width in channels[1:])]
        size = [-(-s // 2 ** (len(channels) - 1)) for s in size]
        while max(size) > 16:
            stages.append((channels[-1], 2))
            size = [-(-s // 2) for s in size]
        width_now = first
        for width_next, stride in stages:
            for block in range(blocks):
                layers.append(ResidualBlock(width_now, width_next, stride if block == 0 else 1))
                width_now = width_next
        self.trunk = nn.Sequential(*layers)
        self.channels = width_now  # of the last feature map
        self.squeeze = nn.Conv2d(width_now, spatial_channels, 1)
        inputs = spatial_channels * size[0] * size[1] + width_now
        # A map of its own for every camera: a place in the picture means something else in each.
        self.camera_tokens = nn.ModuleList(nn.Linear(inputs, width) for _ in range(cameras))
        self.content_map = nn.Linear(cameras * width_now, content_dim)
        # Standardised over the batch, not over channels: a cue lights up few ticks and few pixels, and only
        # against the spread over ticks does it stand out. With layer normalisation it was never found. In the second
        # half of training the statistics are fixed (`ImitationModule.settled`).
        self.content_norm = nn.BatchNorm1d(content_dim, affine=False)
        self.state_token = nn.Sequential(nn.Linear(state_dim, width), nn.GELU(), nn.Linear(width, width))
        self.state_content = nn.Sequential(
            nn.Linear(state_dim, content_dim), nn.GELU(), nn.Linear(content_dim, content_dim)
        )

    def forward(self, images: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """Encode each image once.

        Args:
            images: uint8 RGB, (B, C, H, W, 3).
            state: standardised robot state, (B, D).
        Returns:
            features for the policy, (B, C + 1, W): one token a camera, then one for the robot state;
            and memory content e_t, (B, 2 content_dim).
        """
        batch, cameras = images.shape[0], images.shape[1]
        # The permuted view of an (H, W, 3) image already is in channels-last layout: no copy is made.
        pixels = images.flatten(0, 1).permute(0, 3, 1, 2).to(self.squeeze.weight.dtype) / 127.5 - 1.0
        maps = self.trunk(pixels)
        average = maps.mean(dim=(2, 3))
        where = self.squeeze(maps).flatten(1)
        parts = torch.cat([where, average], dim=-1).view(batch, cameras, -1)
        tokens = [self.state_token(state)]
        for camera, layer in enumerate(self.camera_tokens):
            tokens.insert(camera, layer(parts[:, camera]))
        # GAP commutes with a 1x1 convolution, so the average is taken first; the sum over cameras of a 1x1
        # convolution each is one linear map.
        seen = self.content_map(average.view(batch, -1))
        content = torch.cat([self.content_norm(seen), self.state_content(state)], dim=-1)
        return torch.stack(tokens, dim=1), content

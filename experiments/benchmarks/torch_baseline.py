"""The same job in PyTorch, written the straightforward way; `benchmark.py` times it.

It shares no code with the project and needs no JAX: LeNet-5 is split into strips, an
encoder makes parity pieces, `f_conv` runs on all n pieces, lost results are estimated,
a decoder corrects the estimates, and the head classifies. The letters are those of
`pipeline.py`; tensors are channels first, as PyTorch likes them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import resource
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import torch
from torch import Tensor, nn

DILATIONS = (1, 1, 2, 4, 8, 1)


@dataclasses.dataclass(frozen=True)
class Job:
    """Sizes of one coded LeNet-5, as `coded_jax` has planned them.

    Attributes:
      network: of encoder and decoder, `"mlp"` or `"conv"` (joint channels).
      image: `(H, W, C)`.
      starts, window: first row of each piece, and rows of a piece.
      share: `(M, M', D)`.
      surplus: rows of features that the last share repeats of the one before it.
      r: parity pieces.
      widths: of the hidden layers of a conv encoder and decoder.
      mean, std: per image channel.
      precision: `"float32"` or `"bfloat16"`, by autocast.
    """

    network: str
    image: tuple[int, int, int]
    starts: tuple[int, ...]
    window: int
    share: tuple[int, int, int]
    surplus: int
    r: int
    widths: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    precision: str = "float32"
    classes: int = 10

    @property
    def k(self) -> int:
        return len(self.starts)

    @property
    def n(self) -> int:
        return self.k + self.r


def device() -> torch.device:
    """Returns the GPU, if there is one, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def stack(maps: int, width: int, out: int) -> nn.Sequential:
    """Returns dilated 3x3 convolutions with ReLU between, then a 1x1 convolution."""
    layers = []
    for d in DILATIONS:
        layers += [nn.Conv2d(maps, width, 3, padding=d, dilation=d), nn.ReLU()]
        maps = width
    return nn.Sequential(*layers, nn.Conv2d(maps, out, 1))


class CodedLeNet(nn.Module):
    """The frozen LeNet-5 and the code around it."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        k, n, r = job.k, job.n, job.r
        (h, (_, w, c)), (m, m2, depth) = (job.window, job.image), job.share
        conv = lambda maps, out: [nn.Conv2d(maps, out, 5), nn.ReLU(), nn.MaxPool2d(2)]
        self.f_conv = nn.Sequential(*conv(c, 6), *conv(6, depth))
        features = (k * m - job.surplus) * m2 * depth
        self.head = nn.Sequential(
            nn.Flatten(),
            *(nn.Linear(features, 120), nn.ReLU()),
            *(nn.Linear(120, 84), nn.ReLU()),
            nn.Linear(84, job.classes),
        )
        if job.network == "mlp":
            pixels, size = h * w, m * m2 * depth
            self.encoder = nn.Sequential(
                nn.Linear(k * pixels, k * pixels),
                nn.ReLU(),
                nn.Linear(k * pixels, r * pixels),
            )
            self.decoder = nn.Sequential(
                *(nn.Linear(n * size, k * size), nn.ReLU()),
                *(nn.Linear(k * size, k * size), nn.ReLU()),
                nn.Linear(k * size, k * size),
            )
        else:
            self.encoder = stack(k, job.widths[0], r)
            self.decoder = stack(n * depth, job.widths[1], k * depth)
        self.sums = nn.Parameter(torch.full((k, r), k**-0.5))
        for module in (self.f_conv, self.head):
            module.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(job.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(job.std).view(1, -1, 1, 1))

    def pixels(self, images: Tensor) -> Tensor:
        """Normalises uint8 `[B, C, H, W]` to float32."""
        return (images.float() / 255 - self.mean) / self.std

    def split(self, x: Tensor) -> Tensor:
        """Splits `[B, C, H, W]` into pieces `[B, k, C, h, W]`."""
        return torch.stack(
            [x[:, :, s : s + self.job.window] for s in self.job.starts], 1
        )

    def encode(self, pieces: Tensor) -> Tensor:
        """Encodes `[B, k, C, h, W]` to `[B, n, C, h, W]`, channel by channel."""
        b, k, c, h, w = pieces.shape
        x = pieces.transpose(1, 2).reshape(b * c, k, h, w)
        x = self.encoder(x.flatten(1) if self.job.network == "mlp" else x)
        parity = x.reshape(b, c, self.job.r, h, w).transpose(1, 2)
        parity = parity + torch.einsum("bkchw,kr->brchw", pieces, self.sums)
        return torch.cat([pieces, parity], 1)

    def devices(self, queries: Tensor) -> Tensor:
        """Runs `f_conv` on queries `[B, n, C, h, W]`; returns `[B, n, D, M, M']`."""
        return self.f_conv(queries.flatten(0, 1)).unflatten(0, queries.shape[:2])

    def decode(self, features: Tensor, available: Tensor) -> Tensor:
        """Decodes `[B, n, D, M, M']` with bool `[B or 1, n]` to `[B, k, D, M, M']`."""
        k = self.job.k
        arrived = available[:, :, None, None, None]
        features = torch.where(arrived, features, 0.0)
        estimate = self.estimate(features, available.float())
        filled = torch.where(arrived[:, :k], features[:, :k], estimate)
        features = torch.cat([filled, features[:, k:]], 1)
        x = features.flatten(1) if self.job.network == "mlp" else features.flatten(1, 2)
        shares = self.decoder(x).reshape(len(x), k, *features.shape[2:])
        return torch.where(arrived[:, :k], filled, filled + shares)

    def estimate(self, features: Tensor, available: Tensor) -> Tensor:
        """Estimates shares by ridge regression on what arrived, `[B, k, D, M, M']`."""
        with torch.autocast(features.device.type, enabled=False):
            eye = torch.eye(self.job.k, device=features.device)
            generator = torch.cat([eye, self.sums.T])
            arrived = generator.T * available[:, None]
            # Not `solve`, which makes the host wait for a GPU, to check for errors.
            weights, _ = torch.linalg.solve_ex(arrived @ generator + eye, arrived)
        weights = weights.to(features.dtype).expand(len(features), -1, -1)
        return (weights @ features.flatten(2)).unflatten(2, features.shape[2:])

    def merge(self, shares: Tensor) -> Tensor:
        """Merges shares `[B, k, D, M, M']` into `[B, D, M*, M']`."""
        strips = list(shares.unbind(1))
        strips[-1] = strips[-1][:, :, self.job.surplus :]
        return torch.cat(strips, 2).float()

    def loss(self, images: Tensor, available: Tensor) -> Tensor:
        """Returns the mean squared error of the decoded features of whole images."""
        with self.autocast():
            x = self.pixels(images)
            with torch.no_grad():
                target = self.f_conv(x).float()
            features = self.devices(self.encode(self.split(x)))
            merged = self.merge(self.decode(features, available))
        return nn.functional.mse_loss(merged, target)

    def infer(self, images: Tensor, available: Tensor) -> Tensor:
        """Returns logits `[B, classes]`; like ours, decodes only what is missing."""
        complete = bool(available[:, : self.job.k].all())
        return self.logits(images, available, complete)

    def logits(self, images: Tensor, available: Tensor, complete: bool) -> Tensor:
        """Returns logits; `complete` says that all data pieces' results arrived."""
        with self.autocast():
            features = self.devices(self.encode(self.split(self.pixels(images))))
            if complete:
                shares = features[:, : self.job.k]
            else:
                shares = self.decode(features, available)
            merged = self.merge(shares)
        return self.head(merged)

    def autocast(self) -> AbstractContextManager:
        """Returns the context that sets the networks' precision."""
        if self.job.precision == "float32":
            return nullcontext()
        return torch.autocast(self.mean.device.type, torch.bfloat16)


def patterns(job: Job, where: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the masks of all patterns that lose a data piece, and their weights.

    As the project draws them: the number of lost results uniform in `1..r`, then the
    pattern. Bool `[P, n]` and float `[P]`.
    """
    by_lost = [
        [p for p in itertools.combinations(range(job.n), lost) if p[0] < job.k]
        for lost in range(1, job.r + 1)
    ]
    masks = [[i not in p for i in range(job.n)] for counted in by_lost for p in counted]
    weights = [1 / len(counted) for counted in by_lost for _ in counted]
    return torch.tensor(masks, device=where), torch.tensor(weights, device=where)


def trainer(model: CodedLeNet, images: Tensor, batch: int) -> Callable[[], None]:
    """Returns a function that trains one step on the next rows of a permutation.

    Args:
      model: on its device.
      images: uint8 `[N, C, H, W]`, resident there.
      batch: B.
    """
    params = [p for p in model.parameters() if p.requires_grad]
    adam = torch.optim.Adam(params, lr=1e-3, weight_decay=1e-5)
    order = torch.randperm(len(images), device=images.device)
    masks, weights = patterns(model.job, images.device)
    steps, step = len(images) // batch, 0

    def train() -> None:
        nonlocal step
        rows = order[step % steps * batch :][:batch]
        step += 1
        available = masks[torch.multinomial(weights, batch, replacement=True)]
        adam.zero_grad()
        model.loss(images[rows], available).backward()
        adam.step()

    return train


def as_channels_first(images: np.ndarray) -> Tensor:
    """Moves uint8 `[N, H, W, C]` to the device, as `[N, C, H, W]`."""
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous().to(device())


def peak_bytes() -> int:
    """Returns the peak memory of the GPU, or else of this process, so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str]) -> None:
    """Does one job alone and prints the memory that it took, as JSON."""
    request = json.loads(argv[1])
    model = CodedLeNet(Job(**request["job"])).to(device())
    shape, batch = (request["examples"], *request["job"]["image"]), request["batch"]
    images = as_channels_first(
        np.random.default_rng(0).integers(256, size=shape, dtype=np.uint8)
    )
    available = torch.arange(model.job.n, device=device())[None] > 0
    before = peak_bytes()
    train = trainer(model, images, batch)
    for _ in range(request["calls"]):
        if request["work"] == "training":
            train()
        else:
            with torch.inference_mode():
                model.infer(images[:batch], available)
    synchronise()
    print(json.dumps({"before_bytes": before, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(sys.argv)

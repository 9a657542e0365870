"""The same jobs in PyTorch, as one writes them who knows it; `benchmark.py` times them.

It shares no code with the project and needs no JAX: the base models, their training,
and the coded inference around them, in which each coded stage is split into pieces, an
encoder makes parity pieces, the blocks run on all n pieces in one batch, lost results
are estimated, a decoder corrects the estimates, and the features are merged.

Images are resident as bytes. Modules and features are `channels_last`; what is split,
encoded and decoded is written `[B, m, h, w, C]`, which is the same memory, so that
nothing is copied between the two. Lost results are drawn, and features of the training
images kept, as the project does it; only what changes is computed.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import resource
import sys
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

DILATIONS = (1, 1, 2, 4, 8, 1)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
RESNET18 = (64, 128, 256, 512)
MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
CHUNK = 500  # images whose features are computed at once
RATE, DECAY, STEPS = 1e-3, 1e-5, 1000  # of Adam: its rate falls along a cosine


@dataclasses.dataclass(frozen=True)
class Stage:
    """Sizes of one coded stage, as `coded_jax` has planned them.

    Attributes:
      blocks: the first and the last, counted from 1.
      starts: first rows, and first columns, of the pieces.
      cuts: first row and column of each share in the output of its piece.
      piece: `(h, w, C)`.
      share: `(M, M', D)`.
      features: `(M*, M'*)`.
    """

    blocks: tuple[int, int]
    starts: tuple[Sequence[int], Sequence[int]]
    cuts: tuple[Sequence[int], Sequence[int]]
    piece: tuple[int, int, int]
    share: tuple[int, int, int]
    features: tuple[int, int]

    @property
    def places(self) -> list[tuple[int, int]]:
        """First row and column of each share in the whole features."""
        axes = [
            [min(i * share, out - share) for i in range(len(starts))]
            for starts, share, out in zip(
                self.starts, self.share[:2], self.features, strict=True
            )
        ]
        return list(itertools.product(*axes))


@dataclasses.dataclass(frozen=True)
class Job:
    """A base model and a code.

    Attributes:
      network, width: the base model, and times the published maps.
      image: `(H, W, C)`.
      mean, std: per image channel.
      r: parity pieces.
      stages: the coded ones.
      encoder: `"mlp"`, `"conv"`, or `"linear"` for sums alone.
      decoder: `"mlp"`, `"conv"` (joint channels) or `"low_rank"`.
      widths: of the hidden layers of encoder and decoder; None for their own.
    """

    network: str
    width: float
    image: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    r: int
    stages: tuple[Stage, ...]
    encoder: str
    decoder: str
    widths: tuple[int | None, int | None]

    @property
    def k(self) -> int:
        return math.prod(map(len, self.stages[0].starts))

    @property
    def n(self) -> int:
        return self.k + self.r


def make_job(sizes: dict) -> Job:
    """Returns the job that JSON describes."""
    stages = tuple(Stage(**stage) for stage in sizes["stages"])
    return Job(**{**sizes, "stages": stages})


def device() -> torch.device:
    """Returns the GPU, if there is one, or else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def synchronise() -> None:
    """Waits for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


class ConvNorm(nn.Module):
    """Convolution, batch norm and perhaps ReLU; padded as TensorFlow's `SAME`."""

    def __init__(
        self,
        maps: int,
        out: int,
        kernel: int = 3,
        stride: int = 1,
        relu: bool = True,
        groups: int = 1,
    ) -> None:
        super().__init__()
        self.uneven = stride == 2 and kernel == 3
        padding = 0 if self.uneven else kernel // 2
        self.conv = nn.Conv2d(
            maps, out, kernel, stride, padding, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out)
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        if self.uneven:  # the first row is padded only if the number of rows is odd
            rows, columns = x.shape[2] % 2, x.shape[3] % 2
            x = F.pad(x, (columns, 1, rows, 1))
        return self.relu(self.norm(self.conv(x)))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut."""

    def __init__(self, maps: int, out: int, stride: int) -> None:
        super().__init__()
        self.first = ConvNorm(maps, out, stride=stride)
        self.second = ConvNorm(out, out, relu=False)
        same = stride == 1 and maps == out
        self.shortcut = (
            nn.Identity() if same else ConvNorm(maps, out, 1, stride, relu=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.second(self.first(x))
        y += self.shortcut(x)
        return F.relu_(y)


class InvertedResidual(nn.Module):
    """Convolutions 1x1 to more maps, 3x3 in each of them, and 1x1 to few."""

    def __init__(self, maps: int, out: int, expansion: int, stride: int) -> None:
        super().__init__()
        inner = expansion * maps
        self.layers = nn.Sequential(
            *([ConvNorm(maps, inner, 1)] if expansion > 1 else []),
            ConvNorm(inner, inner, stride=stride, groups=inner),
            ConvNorm(inner, out, 1, relu=False),
        )
        self.adds = stride == 1 and maps == out

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return y.add_(x) if self.adds else y


class PoolHead(nn.Module):
    """Averages over positions, then a dense layer."""

    def __init__(self, maps: int, classes: int) -> None:
        super().__init__()
        self.logits = nn.Linear(maps, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.logits(x.mean((2, 3)))


class FlatHead(nn.Module):
    """LeNet-5's three dense layers; the features are flat as they lie in memory."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.layers = dense(features, 120, 84, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.permute(0, 2, 3, 1).flatten(1))


def scaled(maps: int, width: float) -> int:
    """Returns `width` times as many maps."""
    return max(1, round(maps * width))


def lenet5(job: Job) -> tuple[list[nn.Module], nn.Module]:
    """Returns four blocks, and the head."""
    maps = job.image[2]
    blocks: list[nn.Module] = []
    for out in (scaled(6, job.width), scaled(16, job.width)):
        blocks.append(nn.Conv2d(maps, out, 5))
        blocks.append(nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)))
        maps = out
    side = [((size - 4) // 2 - 4) // 2 for size in job.image[:2]]
    return blocks, FlatHead(math.prod(side) * maps, job.classes)


def vgg16(job: Job) -> tuple[list[nn.Module], nn.Module]:
    """Returns thirteen blocks, and the head."""
    maps, blocks = job.image[2], []
    for group in VGG16:
        for i, published in enumerate(group):
            out = scaled(published, job.width)
            layers: list[nn.Module] = [ConvNorm(maps, out)]
            if i == len(group) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            blocks.append(nn.Sequential(*layers))
            maps = out
    return blocks, PoolHead(maps, job.classes)


def resnet18(job: Job) -> tuple[list[nn.Module], nn.Module]:
    """Returns nine blocks, and the head."""
    maps = scaled(RESNET18[0], job.width)
    blocks: list[nn.Module] = [ConvNorm(job.image[2], maps)]
    for group, published in enumerate(RESNET18):
        out = scaled(published, job.width)
        for i in range(2):
            blocks.append(Residual(maps, out, 2 if group and not i else 1))
            maps = out
    return blocks, PoolHead(maps, job.classes)


def mobilenet(job: Job) -> tuple[list[nn.Module], nn.Module]:
    """Returns fourteen blocks, and the head."""
    maps = scaled(32, job.width)
    blocks: list[nn.Module] = [ConvNorm(job.image[2], maps)]
    for expansion, published, repeats, stride in MOBILENET:
        out = scaled(published, job.width)
        for i in range(repeats):
            one = 1 if i else stride
            blocks.append(InvertedResidual(maps, out, expansion, one))
            maps = out
    return blocks, PoolHead(maps, job.classes)


NETWORKS = {f.__name__: f for f in (lenet5, vgg16, resnet18, mobilenet)}


class TorchNetwork(nn.Module):
    """A base model: uint8 `[B, H, W, C]` to logits."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        blocks, self.head = NETWORKS[job.network](job)
        self.blocks = nn.Sequential(*blocks)
        self.register_buffer("mean", 255 * torch.tensor(job.mean))
        self.register_buffer("scale", 1 / (255 * torch.tensor(job.std)))

    def pixels(self, images: Tensor) -> Tensor:
        """Normalises uint8 `[B, H, W, C]` to float32 `[B, C, H, W]`, channels last."""
        return torch.sub(images, self.mean).mul_(self.scale).permute(0, 3, 1, 2)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.blocks(self.pixels(images)))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(images), labels)


def dense(*sizes: int) -> nn.Sequential:
    """Returns dense layers with ReLU between."""
    layers: list[nn.Module] = []
    for fewer, more in itertools.pairwise(sizes):
        layers += [nn.Linear(fewer, more), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers[:-1])


def stack(maps: int, width: int, out: int) -> nn.Sequential:
    """Returns dilated 3x3 convolutions with ReLU between, then a 1x1 convolution."""
    layers: list[nn.Module] = []
    for d in DILATIONS:
        layers.append(nn.Conv2d(maps, width, 3, padding=d, dilation=d))
        layers.append(nn.ReLU(inplace=True))
        maps = width
    return nn.Sequential(*layers, nn.Conv2d(maps, out, 1))


class Code(nn.Module):
    """The code of one stage; it leaves alone what arrived."""

    def __init__(self, job: Job, stage: Stage) -> None:
        super().__init__()
        self.k, self.r = job.k, job.r
        (h, w, _), (m, m2, depth) = stage.piece, stage.share
        pixels, size = h * w, m * m2 * depth
        encoder_width, decoder_width = job.widths
        self.convolves = job.decoder == "conv"
        self.sums = nn.Parameter(torch.full((job.k, job.r), job.k**-0.5))
        self.encoder = None
        if job.encoder == "mlp":
            hidden = encoder_width or job.k * pixels
            self.encoder = dense(job.k * pixels, hidden, job.r * pixels)
        elif job.encoder == "conv":
            self.encoder = stack(job.k, encoder_width or 20 * job.k, job.r)
        if self.convolves:
            width = decoder_width or 20 * job.n * depth
            self.decoder = stack(job.n * depth, width, job.k * depth)
        else:
            rank = math.ceil(math.sqrt(3 * depth))
            own = rank if job.decoder == "low_rank" else job.k * size
            hidden = decoder_width or own
            self.decoder = dense(job.n * size, hidden, hidden, job.k * size)

    def encode(self, pieces: Tensor) -> Tensor:
        """Makes parity pieces `[B, r, h, w, C]` of pieces `[B, k, h, w, C]`."""
        batch, _, h, w, channels = pieces.shape
        parity = (self.sums.T @ pieces.flatten(2)).view(batch, self.r, h, w, channels)
        if self.encoder is None:
            return parity
        x = pieces.permute(0, 4, 1, 2, 3)
        if isinstance(self.encoder[0], nn.Linear):
            x = x.flatten(2)
        else:
            x = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.encoder(x).view(batch, channels, self.r, h, w)
        return parity + x.permute(0, 2, 3, 4, 1)

    def decode(self, results: Tensor, available: Tensor) -> Tensor:
        """Decodes `[B, n, M, M', D]` with bool `[B or 1, n]` to `[B, k, M, M', D]`."""
        k = self.k
        arrived = available[:, :, None, None, None]
        results = torch.where(arrived, results, 0.0)
        estimate = self.estimate(results, available.float())
        filled = torch.where(arrived[:, :k], results[:, :k], estimate)
        x = torch.cat([filled, results[:, k:]], 1)
        batch, _, m, m2, depth = x.shape
        if self.convolves:
            x = x.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
            x = self.decoder(x).permute(0, 2, 3, 1).view(batch, m, m2, k, depth)
            x = x.permute(0, 3, 1, 2, 4)
        else:
            x = self.decoder(x.flatten(1)).view(filled.shape)
        return torch.where(arrived[:, :k], filled, filled + x)

    def estimate(self, results: Tensor, available: Tensor) -> Tensor:
        """Estimates shares by ridge regression on what arrived, `[B, k, M, M', D]`."""
        eye = torch.eye(self.k, device=results.device)
        generator = torch.cat([eye, self.sums.T])
        arrived = generator.T * available[:, None]
        # Not `solve`, which makes the host wait for a GPU, to check for errors.
        weights, _ = torch.linalg.solve_ex(arrived @ generator + eye, arrived)
        weights = weights.expand(len(results), -1, -1)
        return (weights @ results.flatten(2)).unflatten(2, results.shape[2:])


class Coded(nn.Module):
    """A frozen base model with a code around some of its blocks."""

    def __init__(self, job: Job) -> None:
        super().__init__()
        self.job = job
        self.network = TorchNetwork(job).requires_grad_(False)
        self.codes = nn.ModuleList(Code(job, stage) for stage in job.stages)
        first = [stage.blocks[0] - 1 for stage in job.stages]
        last = [0, *(stage.blocks[1] for stage in job.stages)]
        blocks = self.network.blocks
        self.before = [blocks[a:b] for a, b in zip(last, first, strict=False)]
        self.coded = [blocks[a:b] for a, b in zip(first, last[1:], strict=True)]
        self.after = blocks[last[-1] :]

    def train(self, mode: bool = True) -> Coded:
        super().train(mode)
        self.network.eval()
        return self

    def split(self, stage: Stage, x: Tensor) -> Tensor:
        """Splits `[B, C, H, W]` into pieces `[B, k, h, w, C]`."""
        x, (h, w, _) = x.permute(0, 2, 3, 1), stage.piece
        corners = itertools.product(*stage.starts)
        return torch.stack([x[:, i : i + h, j : j + w] for i, j in corners], 1)

    def devices(self, s: int, queries: Tensor) -> Tensor:
        """Runs a stage's blocks on `[B, m, h, w, C]`; `[B, m, M, M', D]`, uncut."""
        x = self.coded[s](queries.flatten(0, 1).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).unflatten(0, queries.shape[:2])

    def cut(self, stage: Stage, outputs: Tensor) -> list[Tensor]:
        """Cuts the shares out of the last outputs of all n; each `[B, M, M', D]`."""
        cuts, (m, m2, _) = list(itertools.product(*stage.cuts)), stage.share
        rows, columns = map(len, stage.cuts)
        inner = cuts[rows // 2 * columns + columns // 2]
        cuts = (cuts + [inner] * self.job.r)[-outputs.shape[1] :]
        return [outputs[:, i, a : a + m, b : b + m2] for i, (a, b) in enumerate(cuts)]

    def merge(self, stage: Stage, shares: Sequence[Tensor]) -> Tensor:
        """Merges shares `[B, M, M', D]` into `[B, D, M*, M'*]`."""
        (m, m2, _), (rows, columns) = stage.share, map(len, stage.starts)
        surplus = (rows * m - stage.features[0], columns * m2 - stage.features[1])
        strips = []
        for i in range(rows):
            strip = list(shares[i * columns : (i + 1) * columns])
            strip[-1] = strip[-1][:, :, surplus[1] :]
            strips.append(torch.cat(strip, 2) if columns > 1 else strip[0])
        strips[-1] = strips[-1][:, surplus[0] :]
        return (torch.cat(strips, 1) if rows > 1 else strips[0]).permute(0, 3, 1, 2)

    def targets(self, images: Tensor) -> list[Tensor]:
        """Computes the exact output of every coded stage, `[B, M*, M'*, D]`."""
        x, outputs = self.network.pixels(images), []
        for before, coded in zip(self.before, self.coded, strict=True):
            x = coded(before(x))
            outputs.append(x.permute(0, 2, 3, 1))
        return outputs

    def loss(
        self, images: Tensor, available: Tensor, targets: Sequence[Tensor]
    ) -> Tensor:
        """Returns the mean squared error of the features that each stage decodes.

        Of several stages, each over the mean square of the stage's exact output. The
        data results of the first stage are parts of the exact output.
        """
        x, errors = self.network.pixels(images), []
        for s, (stage, target) in enumerate(zip(self.job.stages, targets, strict=True)):
            pieces = self.split(stage, self.before[s](x))
            parity = self.codes[s].encode(pieces)
            if s:
                queries = torch.cat([pieces, parity], 1)
                results = self.cut(stage, self.devices(s, queries))
            else:
                m, m2, _ = stage.share
                results = [target[:, i : i + m, j : j + m2] for i, j in stage.places]
                results += self.cut(stage, self.devices(s, parity))
            shares = self.codes[s].decode(torch.stack(results, 1), available)
            x = self.merge(stage, shares.unbind(1))
            error = F.mse_loss(x, target.permute(0, 3, 1, 2))
            if len(self.job.stages) > 1:
                error = error / target.square().mean()
            errors.append(error)
        return torch.stack(errors).sum()

    def infer(self, images: Tensor, available: Tensor) -> Tensor:
        """Returns logits `[B, classes]`; like ours, decodes only what is missing."""
        complete = bool(available[:, : self.job.k].all())
        return self.logits(images, available, complete)

    def logits(self, images: Tensor, available: Tensor, complete: bool) -> Tensor:
        """Returns logits; `complete` says that all data pieces' results arrived."""
        x = self.network.pixels(images)
        for s, stage in enumerate(self.job.stages):
            pieces = self.split(stage, self.before[s](x))
            queries = torch.cat([pieces, self.codes[s].encode(pieces)], 1)
            shares: Sequence[Tensor] = self.cut(stage, self.devices(s, queries))
            if not complete:
                decoded = self.codes[s].decode(torch.stack(shares, 1), available)
                shares = decoded.unbind(1)
            x = self.merge(stage, shares[: self.job.k])
        return self.network.head(self.after(x))


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


def trainer(
    params: list[nn.Parameter], images: Tensor, batch: int, loss: Callable
) -> Callable[[], None]:
    """Returns a function that trains parameters by one step, by Adam with L2.

    Args:
      params: on their device.
      images: uint8 `[N, H, W, C]`, resident there, whose rows a permutation orders.
      batch: B.
      loss: of rows, int64 `[B]`.
    """
    adam = torch.optim.Adam(params, lr=RATE, weight_decay=DECAY, fused=True)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(adam, STEPS)
    order = torch.randperm(len(images), device=images.device)
    batches = itertools.cycle(range(0, len(images) - batch + 1, batch))

    def train() -> None:
        start = next(batches)
        adam.zero_grad()
        loss(order[start : start + batch]).backward()
        adam.step()
        cosine.step()

    return train


def base_trainer(
    model: Coded, images: Tensor, labels: Tensor, batch: int
) -> Callable[[], None]:
    """Returns a function that trains the base model, no longer frozen, by one step."""
    network = model.network.requires_grad_().train()
    loss = lambda rows: network.loss(images[rows], labels[rows])
    return trainer([*network.parameters()], images, batch, loss)


def code_trainer(model: Coded, images: Tensor, batch: int) -> Callable[[], None]:
    """Returns a function that trains the codes by one step."""
    model.train()
    masks, weights = patterns(model.job, images.device)
    kept = [
        torch.empty(len(images), *stage.features, stage.share[2], device=images.device)
        for stage in model.job.stages
    ]
    with torch.no_grad():
        for start in range(0, len(images), CHUNK):
            few = slice(start, start + CHUNK)
            for features, own in zip(kept, model.targets(images[few]), strict=True):
                features[few] = own

    def loss(rows: Tensor) -> Tensor:
        available = masks[torch.multinomial(weights, batch, replacement=True)]
        return model.loss(images[rows], available, [x[rows] for x in kept])

    return trainer([*model.codes.parameters()], images, batch, loss)


def make_model(job: Job) -> Coded:
    """Returns a model with random parameters, on its device, channels last."""
    model = Coded(job).to(device(), memory_format=torch.channels_last)
    return model.train()


def peak_bytes() -> int:
    """Returns the peak memory of the GPU, or else of this process, so far."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    try:
        with open("/proc/self/status") as file:
            (line,) = [line for line in file if line.startswith("VmHWM")]
        return int(line.split()[1]) * 1024
    except (OSError, ValueError):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main(argv: list[str]) -> None:
    """Trains a few steps and prints the memory that they took, as JSON."""
    request = json.loads(argv[1])
    job, batch = make_job(request["sizes"]), request["batch"]
    model, random = make_model(job), np.random.default_rng(0)
    shape = (request["examples"], *job.image)
    pixels = random.integers(256, size=shape, dtype=np.uint8)
    images = torch.from_numpy(pixels).to(device())
    labels = torch.zeros(len(images), dtype=torch.int64, device=device())
    before = peak_bytes()
    if request["job"] == "base":
        train = base_trainer(model, images, labels, batch)
    else:
        train = code_trainer(model, images, batch)
    for _ in range(request["calls"]):
        train()
    synchronise()
    print(json.dumps({"before_bytes": before, "peak_bytes": peak_bytes()}))


if __name__ == "__main__":
    main(sys.argv)

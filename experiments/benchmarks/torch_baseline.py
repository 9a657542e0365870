"""The same jobs in PyTorch, as one writes them who knows it; `benchmark.py` times them.

It shares no code with the project, of which it reads sizes alone: the base models,
their training, and the coded inference around them, in which each coded stage is split
into pieces, an encoder makes parity pieces, the blocks run on all n pieces in one
batch, lost results are estimated, a decoder corrects the estimates, and the features
are merged.

Images are resident as bytes. Modules and features are `channels_last`; what is split,
encoded and decoded is written `[B, m, h, w, C]`, which is the same memory, so that
nothing is copied between the two. Lost results are drawn, and features of the training
images kept, as the project does it; only what changes is computed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from benchmarks.subjects import Subject
    from coded_jax.runs.config import Config
    from coded_jax.types import SplitPlan

DILATIONS = (1, 1, 2, 4, 8, 1)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
RESNET18 = (64, 128, 256, 512)
MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
CHUNK = 500  # images whose features are computed at once
RATE, DECAY, STEPS = 1e-3, 1e-5, 1000  # of Adam: its rate falls along a cosine


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


def scaled(maps: int, s: Subject) -> int:
    """Returns the maps of a layer that has so many in the published network."""
    return max(1, round(maps * s.config.base_width))


def lenet5(s: Subject) -> tuple[list[nn.Module], nn.Module]:
    """Returns four blocks, and the head."""
    height, width, maps = s.dataset.image_shape
    blocks: list[nn.Module] = []
    for out in (scaled(6, s), scaled(16, s)):
        blocks.append(nn.Conv2d(maps, out, 5))
        blocks.append(nn.Sequential(nn.ReLU(inplace=True), nn.MaxPool2d(2)))
        maps = out
    side = [((size - 4) // 2 - 4) // 2 for size in (height, width)]
    return blocks, FlatHead(math.prod(side) * maps, s.dataset.classes)


def vgg16(s: Subject) -> tuple[list[nn.Module], nn.Module]:
    """Returns thirteen blocks, and the head."""
    maps, blocks = s.dataset.image_shape[2], []
    for group in VGG16:
        for i, published in enumerate(group):
            out = scaled(published, s)
            layers: list[nn.Module] = [ConvNorm(maps, out)]
            if i == len(group) - 1:
                layers.append(nn.MaxPool2d(2, ceil_mode=True))
            blocks.append(nn.Sequential(*layers))
            maps = out
    return blocks, PoolHead(maps, s.dataset.classes)


def resnet18(s: Subject) -> tuple[list[nn.Module], nn.Module]:
    """Returns nine blocks, and the head."""
    maps = scaled(RESNET18[0], s)
    blocks: list[nn.Module] = [ConvNorm(s.dataset.image_shape[2], maps)]
    for group, published in enumerate(RESNET18):
        out = scaled(published, s)
        for i in range(2):
            blocks.append(Residual(maps, out, 2 if group and not i else 1))
            maps = out
    return blocks, PoolHead(maps, s.dataset.classes)


def mobilenet(s: Subject) -> tuple[list[nn.Module], nn.Module]:
    """Returns fourteen blocks, and the head."""
    maps = scaled(32, s)
    blocks: list[nn.Module] = [ConvNorm(s.dataset.image_shape[2], maps)]
    for expansion, published, repeats, stride in MOBILENET:
        out = scaled(published, s)
        for i in range(repeats):
            one = 1 if i else stride
            blocks.append(InvertedResidual(maps, out, expansion, one))
            maps = out
    return blocks, PoolHead(maps, s.dataset.classes)


NETWORKS = {f.__name__: f for f in (lenet5, vgg16, resnet18, mobilenet)}


class TorchNetwork(nn.Module):
    """A base model: uint8 `[B, H, W, C]` to logits."""

    def __init__(self, s: Subject) -> None:
        super().__init__()
        blocks, self.head = NETWORKS[s.config.base_model](s)
        self.blocks = nn.Sequential(*blocks)
        self.register_buffer("mean", 255 * torch.tensor(s.dataset.mean))
        self.register_buffer("scale", 1 / (255 * torch.tensor(s.dataset.std)))

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

    def __init__(self, config: Config, plan: SplitPlan) -> None:
        super().__init__()
        self.k, self.r = k, r = config.k, config.r
        (h, w, _), (m, m2, depth) = plan.piece_shape, plan.share_shape
        pixels, size, n = h * w, m * m2 * depth, k + r
        self.convolves = config.decoder == "conv"
        self.sums = nn.Parameter(torch.full((k, r), k**-0.5))
        self.encoder = None
        if config.encoder == "mlp":
            hidden = config.encoder_width or k * pixels
            self.encoder = dense(k * pixels, hidden, r * pixels)
        elif config.encoder == "conv":
            self.encoder = stack(k, config.encoder_width or 20 * k, r)
        if self.convolves:
            width = config.decoder_width or 20 * n * depth
            self.decoder = stack(n * depth, width, k * depth)
        else:
            rank = math.ceil(math.sqrt(3 * depth))
            own = rank if config.decoder == "low_rank" else k * size
            hidden = config.decoder_width or own
            self.decoder = dense(n * size, hidden, hidden, k * size)

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

    def __init__(self, s: Subject) -> None:
        super().__init__()
        self.k, self.r = s.config.k, s.config.r
        self.plans = [stage.plan for stage in s.pipeline.stages]
        self.network = TorchNetwork(s).requires_grad_(False)
        self.codes = nn.ModuleList(Code(s.config, plan) for plan in self.plans)
        first = [stage.blocks[0] - 1 for stage in s.pipeline.stages]
        last = [0, *(stage.blocks[1] for stage in s.pipeline.stages)]
        blocks = self.network.blocks
        self.before = [blocks[a:b] for a, b in zip(last, first, strict=False)]
        self.coded = [blocks[a:b] for a, b in zip(first, last[1:], strict=True)]
        self.after = blocks[last[-1] :]

    def train(self, mode: bool = True) -> Coded:
        super().train(mode)
        self.network.eval()
        return self

    def split(self, plan: SplitPlan, x: Tensor) -> Tensor:
        """Splits `[B, C, H, W]` into pieces `[B, k, h, w, C]`."""
        x, (h, w, _) = x.permute(0, 2, 3, 1), plan.piece_shape
        corners = itertools.product(plan.rows.starts, plan.columns.starts)
        return torch.stack([x[:, i : i + h, j : j + w] for i, j in corners], 1)

    def devices(self, s: int, queries: Tensor) -> Tensor:
        """Runs a stage's blocks on `[B, m, h, w, C]`; `[B, m, M, M', D]`, uncut."""
        x = self.coded[s](queries.flatten(0, 1).permute(0, 3, 1, 2))
        return x.permute(0, 2, 3, 1).unflatten(0, queries.shape[:2])

    def cut(self, plan: SplitPlan, outputs: Tensor) -> list[Tensor]:
        """Cuts the shares out of the last outputs of all n; each `[B, M, M', D]`."""
        cuts = [*itertools.product(plan.rows.cuts, plan.columns.cuts)]
        m, m2, _ = plan.share_shape
        cuts = (cuts + [cuts[plan.interior]] * self.r)[-outputs.shape[1] :]
        return [outputs[:, i, a : a + m, b : b + m2] for i, (a, b) in enumerate(cuts)]

    def merge(self, plan: SplitPlan, shares: Sequence[Tensor]) -> Tensor:
        """Merges shares `[B, M, M', D]` into `[B, D, M*, M'*]`."""
        rows, columns = plan.grid
        surplus = [x.parts * x.share - x.out for x in (plan.rows, plan.columns)]
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
        for s, (plan, target) in enumerate(zip(self.plans, targets, strict=True)):
            pieces = self.split(plan, self.before[s](x))
            parity = self.codes[s].encode(pieces)
            if s:
                queries = torch.cat([pieces, parity], 1)
                results = self.cut(plan, self.devices(s, queries))
            else:
                m, m2, _ = plan.share_shape
                results = [target[:, i : i + m, j : j + m2] for i, j in places(plan)]
                results += self.cut(plan, self.devices(s, parity))
            shares = self.codes[s].decode(torch.stack(results, 1), available)
            x = self.merge(plan, shares.unbind(1))
            error = F.mse_loss(x, target.permute(0, 3, 1, 2))
            if len(self.plans) > 1:
                error = error / target.square().mean()
            errors.append(error)
        return torch.stack(errors).sum()

    def infer(self, images: Tensor, available: Tensor) -> Tensor:
        """Returns logits `[B, classes]`; like ours, decodes only what is missing."""
        complete = bool(available[:, : self.k].all())
        return self.logits(images, available, complete)

    def logits(self, images: Tensor, available: Tensor, complete: bool) -> Tensor:
        """Returns logits; `complete` says that all data pieces' results arrived."""
        x = self.network.pixels(images)
        for s, plan in enumerate(self.plans):
            pieces = self.split(plan, self.before[s](x))
            queries = torch.cat([pieces, self.codes[s].encode(pieces)], 1)
            shares: Sequence[Tensor] = self.cut(plan, self.devices(s, queries))
            if not complete:
                decoded = self.codes[s].decode(torch.stack(shares, 1), available)
                shares = decoded.unbind(1)
            x = self.merge(plan, shares[: self.k])
        return self.network.head(self.after(x))


def places(plan: SplitPlan) -> Iterable[tuple[int, int]]:
    """Returns first row and column of each share in the whole features."""
    axes = [
        [min(i * axis.share, axis.out - axis.share) for i in range(axis.parts)]
        for axis in (plan.rows, plan.columns)
    ]
    return itertools.product(*axes)


def patterns(k: int, r: int, where: torch.device) -> tuple[Tensor, Tensor]:
    """Returns the masks of all patterns that lose a data piece, and their weights.

    As the project draws them: the number of lost results uniform in `1..r`, then the
    pattern. Bool `[P, n]` and float `[P]`.
    """
    by_lost = [
        [p for p in itertools.combinations(range(k + r), lost) if p[0] < k]
        for lost in range(1, r + 1)
    ]
    masks = [[i not in p for i in range(k + r)] for counted in by_lost for p in counted]
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
    masks, weights = patterns(model.k, model.r, images.device)
    kept = [
        torch.empty(
            *(len(images), plan.rows.out, plan.columns.out, plan.feature_channels),
            device=images.device,
        )
        for plan in model.plans
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


def make_model(s: Subject) -> Coded:
    """Returns a model with random parameters, on its device, channels last."""
    model = Coded(s).to(device(), memory_format=torch.channels_last)
    return model.train()

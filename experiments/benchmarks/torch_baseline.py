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
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from benchmarks.subjects import Subject
    from coded_jax.runs.config import Config
    from coded_jax.types import AxisPlan, SplitPlan

DILATIONS = (1, 1, 2, 4, 8, 1)
VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
RESNET18 = (64, 128, 256, 512)
MOBILENET = ((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1))
RATE, DECAY, STEPS = 1e-3, 1e-5, 1000  # of Adam: its rate falls along a cosine
Scale = Callable[[int], int]
"""Maps of a layer, of those that it has in the published network."""


class Pad(nn.Module):
    """Pads for 3x3 convolutions of stride 2 as TensorFlow's `SAME`."""

    def forward(self, x: Tensor) -> Tensor:
        # The first row is padded only if the number of rows is odd.
        return F.pad(x, (x.shape[3] % 2, 1, x.shape[2] % 2, 1))


def conv_norm(
    maps: int, out: int, kernel: int = 3, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Returns convolution and batch norm; padded as TensorFlow's `SAME`."""
    uneven = stride == 2 and kernel == 3
    padding = 0 if uneven else kernel // 2
    conv = nn.Conv2d(maps, out, kernel, stride, padding, groups=groups, bias=False)
    return [*[Pad()] * uneven, conv, nn.BatchNorm2d(out)]


def relu() -> nn.Module:
    """Returns a ReLU that needs no memory of its own."""
    return nn.ReLU(inplace=True)


class Residual(nn.Module):
    """Layers beside a shortcut, and what follows their sum."""

    def __init__(self, layers: nn.Module, shortcut: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.layers, self.shortcut, self.last = layers, shortcut, last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layers(x).add_(self.shortcut(x)))


def lenet5(maps: int, scaled: Scale) -> Iterator[nn.Module]:
    """Yields four blocks."""
    for out in map(scaled, (6, 16)):
        yield nn.Conv2d(maps, out, 5)
        yield nn.Sequential(relu(), nn.MaxPool2d(2))
        maps = out


def vgg16(maps: int, scaled: Scale) -> Iterator[nn.Module]:
    """Yields thirteen blocks."""
    for group in VGG16:
        for i, out in enumerate(map(scaled, group), 1):
            pool = [nn.MaxPool2d(2, ceil_mode=True)] * (i == len(group))
            yield nn.Sequential(*conv_norm(maps, out), relu(), *pool)
            maps = out


def resnet18(maps: int, scaled: Scale) -> Iterator[nn.Module]:
    """Yields nine blocks; all but the first have two 3x3 convolutions."""
    yield nn.Sequential(*conv_norm(maps, scaled(RESNET18[0])), relu())
    maps = scaled(RESNET18[0])
    for group, out in enumerate(map(scaled, RESNET18)):
        for stride in (2 if group else 1, 1):
            first = conv_norm(maps, out, stride=stride)
            layers = nn.Sequential(*first, relu(), *conv_norm(out, out))
            same = stride == 1 and maps == out
            other = [] if same else conv_norm(maps, out, 1, stride)
            yield Residual(layers, nn.Sequential(*other), relu())
            maps = out


def mobilenet(maps: int, scaled: Scale) -> Iterator[nn.Module]:
    """Yields fourteen blocks; all but the first have convolutions 1x1 to more maps, 3x3
    in each of them, and 1x1 to few."""
    yield nn.Sequential(*conv_norm(maps, scaled(32)), relu())
    maps = scaled(32)
    for expansion, published, repeats, stride in MOBILENET:
        out = scaled(published)
        for one in (stride, *[1] * (repeats - 1)):
            inner = expansion * maps
            more = [*conv_norm(maps, inner, 1), relu()] if expansion > 1 else []
            each = [*conv_norm(inner, inner, stride=one, groups=inner), relu()]
            layers = nn.Sequential(*more, *each, *conv_norm(inner, out, 1))
            adds = one == 1 and maps == out
            yield Residual(layers, nn.Identity(), nn.Identity()) if adds else layers
            maps = out


NETWORKS = {f.__name__: f for f in (lenet5, vgg16, resnet18, mobilenet)}


class TorchNetwork(nn.Module):
    """A base model: uint8 `[B, H, W, C]` to logits."""

    def __init__(self, s: Subject) -> None:
        super().__init__()
        model, classes = s.config.base_model, s.dataset.classes
        scaled = lambda maps: max(1, round(maps * s.config.base_width))
        channels = s.dataset.image_shape[2]
        self.blocks = nn.Sequential(*NETWORKS[model](channels, scaled))
        self.flat = model == "lenet5"
        self.register_buffer("mean", 255 * torch.tensor(s.dataset.mean))
        self.register_buffer("scale", 1 / (255 * torch.tensor(s.dataset.std)))
        image = torch.zeros(1, *s.dataset.image_shape)
        features = self.vectors(self.blocks(self.pixels(image))).shape[1]
        self.head = dense(features, *(120, 84) * self.flat, classes)

    def pixels(self, images: Tensor) -> Tensor:
        """Normalises uint8 `[B, H, W, C]` to float32 `[B, C, H, W]`, channels last."""
        return torch.sub(images, self.mean).mul_(self.scale).permute(0, 3, 1, 2)

    def vectors(self, x: Tensor) -> Tensor:
        """Returns what the head is given: features as they lie in memory, or their
        averages over positions."""
        return x.permute(0, 2, 3, 1).flatten(1) if self.flat else x.mean((2, 3))

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.vectors(self.blocks(self.pixels(images))))

    def loss(self, images: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(self(images), labels)


def dense(*sizes: int) -> nn.Sequential:
    """Returns dense layers with ReLU between."""
    layers: list[nn.Module] = []
    for fewer, more in itertools.pairwise(sizes):
        layers += [nn.Linear(fewer, more), relu()]
    return nn.Sequential(*layers[:-1])


def stack(maps: int, width: int, out: int) -> nn.Sequential:
    """Returns dilated 3x3 convolutions with ReLU between, then a 1x1 convolution."""
    layers: list[nn.Module] = []
    for d in DILATIONS:
        layers += [nn.Conv2d(maps, width, 3, padding=d, dilation=d), relu()]
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
        if self.convolves:
            x = x.permute(0, 2, 3, 1, 4).flatten(3).permute(0, 3, 1, 2)
            x = self.decoder(x).permute(0, 2, 3, 1).unflatten(3, (k, -1))
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
        stages = s.pipeline.stages
        self.plans = [stage.plan for stage in stages]
        self.network = TorchNetwork(s).requires_grad_(False)
        self.codes = nn.ModuleList(Code(s.config, plan) for plan in self.plans)
        blocks, end = self.network.blocks, 0
        self.before, self.coded = [], []
        for first, last in (stage.blocks for stage in stages):
            self.before.append(blocks[end : first - 1])
            self.coded.append(blocks[first - 1 : last])
            end = last
        self.after = blocks[end:]

    def train(self, mode: bool = True) -> Coded:
        super().train(mode)
        self.network.eval()
        return self

    def targets(self, images: Tensor) -> list[Tensor]:
        """Computes the exact output of every coded stage, `[B, M*, M'*, D]`."""
        x, outputs = self.network.pixels(images), []
        for before, coded in zip(self.before, self.coded, strict=True):
            x = coded(before(x))
            outputs.append(x.permute(0, 2, 3, 1))
        return outputs

    def stage(
        self, s: int, x: Tensor, available: Tensor | None, target: Tensor | None = None
    ) -> Tensor:
        """Runs a stage and the blocks before it: `[B, C, H, W]` to `[B, D, M*, M'*]`.

        Args:
          s: the stage.
          x: what the stage before it has decoded.
          available: bool `[B or 1, n]`; None where no data result is lost.
          target: the stage's exact output, of which data results are parts; None where
            devices compute them.
        """
        plan, code = self.plans[s], self.codes[s]
        pieces = split(plan, self.before[s](x))
        queries, results = code.encode(pieces), []
        if target is None:
            queries = torch.cat([pieces, queries], 1)
        else:
            results = parts(plan, target)
        outputs = self.coded[s](queries.flatten(0, 1).permute(0, 3, 1, 2))
        outputs = outputs.permute(0, 2, 3, 1).unflatten(0, queries.shape[:2])
        results += cut(plan, outputs, self.r)
        if available is not None:
            results = code.decode(torch.stack(results, 1), available).unbind(1)
        return merge(plan, results[: self.k])

    def loss(
        self, images: Tensor, available: Tensor, targets: Sequence[Tensor]
    ) -> Tensor:
        """Returns the mean squared error of the features that each stage decodes.

        Of several stages, each over the mean square of the stage's exact output. The
        data results of the first stage are parts of the exact output.
        """
        x, errors = self.network.pixels(images), []
        for s, target in enumerate(targets):
            x = self.stage(s, x, available, None if s else target)
            error = F.mse_loss(x, target.permute(0, 3, 1, 2))
            if len(self.plans) > 1:
                error = error / target.square().mean()
            errors.append(error)
        return torch.stack(errors).sum()

    def infer(self, images: Tensor, available: Tensor) -> Tensor:
        """Returns logits `[B, classes]`; like ours, decodes only what is missing."""
        complete = bool(available[:, : self.k].all())
        return self.logits(images, None if complete else available)

    def logits(self, images: Tensor, available: Tensor | None) -> Tensor:
        """Returns logits; None where all data pieces' results arrived."""
        x = self.network.pixels(images)
        for s in range(len(self.plans)):
            x = self.stage(s, x, available)
        return self.network.head(self.network.vectors(self.after(x)))


def split_axis(plan: SplitPlan) -> tuple[AxisPlan, int]:
    """Returns the axis that is split, and which of `[B, H, W, C]` it is."""
    return (plan.rows, 1) if plan.grid[1] == 1 else (plan.columns, 2)


def split(plan: SplitPlan, x: Tensor) -> Tensor:
    """Splits `[B, C, H, W]` into pieces `[B, k, h, w, C]`."""
    axis, dim = split_axis(plan)
    x, length = x.permute(0, 2, 3, 1), plan.piece_shape[dim - 1]
    return torch.stack([x.narrow(dim, start, length) for start in axis.starts], 1)


def cut(plan: SplitPlan, outputs: Tensor, r: int) -> list[Tensor]:
    """Cuts shares `[B, M, M', D]` out of the outputs of the last of all n devices."""
    axis, dim = split_axis(plan)
    cuts = [*axis.cuts, *[axis.cuts[plan.interior]] * r][-outputs.shape[1] :]
    every = zip(outputs.unbind(1), cuts, strict=True)
    return [output.narrow(dim, start, axis.share) for output, start in every]


def parts(plan: SplitPlan, features: Tensor) -> list[Tensor]:
    """Returns shares `[B, M, M', D]` of whole features, those of the data pieces."""
    axis, dim = split_axis(plan)
    starts = [min(i * axis.share, axis.out - axis.share) for i in range(axis.parts)]
    return [features.narrow(dim, start, axis.share) for start in starts]


def merge(plan: SplitPlan, shares: Sequence[Tensor]) -> Tensor:
    """Merges shares `[B, M, M', D]` into `[B, D, M*, M'*]`; the last may begin in the
    one before it."""
    axis, dim = split_axis(plan)
    surplus, (*others, last) = axis.parts * axis.share - axis.out, shares
    last = last.narrow(dim, surplus, axis.share - surplus)
    return torch.cat([*others, last], dim).permute(0, 3, 1, 2)


def patterns(k: int, r: int) -> tuple[list[list[bool]], list[float]]:
    """Returns the masks of all patterns that lose a data piece, and their weights.

    As the project draws them: the number of lost results uniform in `1..r`, then the
    pattern.
    """
    masks, weights = [], []
    for lost in range(1, r + 1):
        losses = [p for p in itertools.combinations(range(k + r), lost) if p[0] < k]
        masks += [[i not in p for i in range(k + r)] for p in losses]
        weights += [1 / len(losses)] * len(losses)
    return masks, weights


def trainer(
    module: nn.Module, images: Tensor, batch: int, loss: Callable[[Tensor], Tensor]
) -> Callable[[], None]:
    """Returns a function that trains a module by one step, by Adam with L2.

    Args:
      module: on its device.
      images: uint8 `[N, H, W, C]`, resident there, whose rows a permutation orders.
      batch: B.
      loss: of rows, int64 `[B]`.
    """
    adam = torch.optim.Adam(
        module.parameters(), lr=RATE, weight_decay=DECAY, fused=True
    )
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

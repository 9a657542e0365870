"""Groups of images: mixed, filled up, and coded end to end."""

import jax
import numpy as np
import pytest

from coded_jax.codes.erasures import available, patterns_up_to
from coded_jax.data import groups
from coded_jax.types import CodeShape, Split
from tests.codes.rival_examples import images_of, pipeline_of
from tests.pipelines import untrained


def test_images_of_a_batch_meet_others_in_their_groups():
    images = np.arange(4 * 6 * 2, dtype=np.uint8).reshape(4, 6, 2, 1)
    labels = np.arange(12).reshape(4, 3)
    batch = {"images": images, "labels": labels, "targets": (labels[..., None, None],)}
    mixed = groups.regroup(jax.random.key(0), batch, 3)
    order = np.asarray(mixed["labels"]).ravel()
    assert sorted(order) == list(range(12)) and list(order) != list(range(12))
    np.testing.assert_array_equal(np.ravel(mixed["targets"][0]), order)
    ungrouped = np.asarray(mixed["images"]).reshape(12, 2, 2, 1)
    np.testing.assert_array_equal(ungrouped, images.reshape(12, 2, 2, 1)[order])


def test_the_last_group_is_filled_up():
    split = groups.group_split(Split(images_of(5), np.arange(5, dtype=np.int32)), 4)
    assert split.labels.tolist() == [[0, 1, 2, 3], [4, -1, -1, -1]]
    np.testing.assert_array_equal(split.images[1, 28:56], images_of(5)[0])


@pytest.mark.parametrize("name, k", [("replication", 2), ("berrut", 4)])
def test_groups_of_images_end_to_end(lenet, name, k):
    """As published: coded images through the whole network, logits decoded."""
    base, variables = lenet
    r = 2 if name == "replication" else 1
    pipe = pipeline_of(base, split="group", k=k, r=r, code=name)
    images = images_of(2 * k)
    run = jax.jit(groups.infer_images, static_argnums=0)
    x = (images.astype("f") / 255 - np.float32(0.1)) / np.float32(0.3)
    logits = lambda x: base.head(variables, base.f_conv(variables, x))
    code = untrained(name, CodeShape(k, r, (28, 28, 1), (1, 1, 10)))
    pieces = x.reshape(2, k, 28, 28, 1).swapaxes(0, 1)
    results = np.stack([logits(q) for q in code.encode({}, pieces)])[:, :, None, None]
    for lost in patterns_up_to(k + r, 1):
        mask = available(lost, k + r)
        decoded = run(pipe, variables, ({},), images, mask)
        expected = code.decode({}, results, mask)[:, :, 0, 0].swapaxes(0, 1)
        np.testing.assert_allclose(decoded, expected.reshape(2 * k, 10), atol=1e-4)
        if name == "replication":
            np.testing.assert_allclose(decoded, logits(x), atol=1e-4)

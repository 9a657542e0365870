"""One-round codes: passes over images, the choice of a penalty, whole runs."""

import dataclasses

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax.codes import quorum
from coded_jax.inference.pipeline import Examples, base_features, inputs_of
from coded_jax.inference.stages import begin_stage, stage_results
from coded_jax.runs.build import build_pipeline, own_base, own_config
from coded_jax.runs.config import Config
from coded_jax.training import views
from coded_jax.training.loop import Interrupted
from tests import own_cnn

SETTINGS = {"split": "views", "k": 2, "r": 1, "halo": 2, "passes": 1}


def head(variables, features):
    return features.mean((1, 2)) @ variables["dense"]


def make_variables():
    kernel = own_cnn.make_variables()["kernel"]
    dense = np.random.default_rng(2).normal(size=(4, own_cnn.CLASSES)).astype("f")
    return {"kernel": kernel, "dense": dense}


def protect(workdir=None, **more):
    return coded_jax.protect(
        blocks=own_cnn.f_conv,
        head=head,
        variables=make_variables(),
        dataset=own_cnn.DATASET,
        workdir=workdir,
        **{**SETTINGS, "batch_size": 16, **more},
    )


def parts(head=head, variables=None):
    variables = make_variables() if variables is None else variables
    base, frozen = own_base(own_cnn.f_conv, head, variables, (12, 12, 1), 3)
    config = own_config(SETTINGS, Config)
    examples = Examples((12, 12, 1), (0.5,), (0.3,))
    return build_pipeline(config, examples, 3, base=base), frozen


def last(sums):
    *_, end = sums
    return end


def passes(number=1.0, augmentation="none"):
    return views.Passes(number, augmentation, jax.random.key(0))


def test_moments_are_those_of_the_results_and_the_pooled_features(monkeypatch):
    monkeypatch.setattr(views, "CHUNK", 24)
    pipeline, frozen = parts()
    images = jax.numpy.asarray(own_cnn.DATASET.train.images)
    seen, moments, _ = last(views.moments_of(pipeline, frozen, images, passes()))
    (stage,) = pipeline.stages
    sent = begin_stage(stage, frozen, {}, inputs_of(pipeline, images))
    results = stage_results(stage, frozen, {}, sent.queries)
    target = np.asarray(base_features(pipeline, frozen, images)).reshape(64, -1)
    x = np.moveaxis(np.asarray(results), 0, 1).reshape(64, -1)
    assert seen == moments.count == 64 and target.shape == (64, 4)
    np.testing.assert_allclose(moments.gram, x.T @ x, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.cross, x.T @ target, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(moments.target, target.sum(axis=0), rtol=1e-4)


def test_a_head_without_pooling_has_all_features_for_a_target():
    variables = own_cnn.make_variables()
    pipeline, _ = parts(own_cnn.head, variables)
    assert pipeline.stages[0].plan.features_shape == (6, 6, 4)
    assert pipeline.stages[0].plan.output_shape == (6, 4, 4)


def test_passes_that_were_stopped_go_on_to_the_same_bits(monkeypatch):
    monkeypatch.setattr(views, "CHUNK", 24)
    pipeline, frozen = parts()
    images = jax.numpy.asarray(own_cnn.DATASET.train.images)
    own = passes(1.5, "shift")
    every = [*views.moments_of(pipeline, frozen, images, own)]
    assert [sums.seen for sums in every] == [24, 48, 64, 88, 96]
    resumed = last(views.moments_of(pipeline, frozen, images, own, every[2]))
    for x, y in zip(every[-1].moments, resumed.moments, strict=True):
        np.testing.assert_array_equal(x, y)


def test_sums_are_kept_in_files(tmp_path):
    pipeline, frozen = parts()
    images = jax.numpy.asarray(own_cnn.DATASET.train.images)
    sums, file = (
        last(views.moments_of(pipeline, frozen, images, passes())),
        tmp_path / "0.npz",
    )
    assert views.read(file) is None
    file.write_bytes(views.write(sums))
    read = views.read(file)
    assert read is not None and read.seen == 64
    np.testing.assert_array_equal(read.moments.gram, sums.moments.gram)
    file.write_bytes(views.write(sums)[:-50])
    assert views.read(file) is None


def test_images_that_stay_as_they_are_are_seen_once():
    assert passes(10).images(64) == 64
    assert passes(0.5).images(64) == 32
    assert passes(1.5, "shift").images(64) == 96


def test_the_penalty_is_that_of_the_least_doubt():
    pipeline, frozen = parts()
    images = jax.numpy.asarray(own_cnn.DATASET.train.images)
    moments = last(views.moments_of(pipeline, frozen, images, passes())).moments
    validation = own_cnn.DATASET.validation
    arrays = {"images": validation.images, "labels": validation.labels}
    arrays = views.Validation.of(pipeline, frozen, arrays)
    choice = views.choose(pipeline, frozen, moments, arrays)
    assert set(choice.doubts) == set(views.RIDGES)
    assert choice.doubts[choice.ridge] == min(choice.doubts.values())
    alone = views.choose(pipeline, frozen, moments, arrays, (choice.ridge,))
    assert alone.doubts[choice.ridge] == pytest.approx(choice.doubts[choice.ridge])
    np.testing.assert_array_equal(
        alone.params[0]["weights"], choice.params[0]["weights"]
    )
    other = dataclasses.replace(
        validation, labels=1 - validation.labels
    )  # do not count
    images = {"images": validation.images, "labels": np.abs(other.labels)}
    others = views.Validation.of(pipeline, frozen, images)
    doubts = views.choose(pipeline, frozen, moments, others).doubts
    assert doubts == pytest.approx(choice.doubts)


def test_a_run_says_that_answers_are_estimates(tmp_path):
    model = protect(tmp_path / "run")
    results = model.results
    assert results["split"]["exact"] is False
    assert results["split"]["views"] == ["0-12x0-8", "0-12x4-12", "0-12x0-12"]
    assert not results["recovery"]["code"]["systematic"]
    assert set(results["baselines"]) == {"mean_of_views", "no_parity"}
    assert len(results["costs"]["code"]["rounds"]) == 1
    assert results["costs"]["code"]["uncoded"] == 0
    # A view is sent as bytes, and comes back pooled.
    (trip,) = results["costs"]["code"]["rounds"]
    assert trip["bytes_in"] == 12 * 8 and trip["bytes_out"] == 4 * 4
    images = own_cnn.DATASET.test.images
    loaded = coded_jax.load(
        tmp_path / "run", blocks=own_cnn.f_conv, head=head, variables=make_variables()
    )
    for lost in ((), (1,), (0, 2)):  # any results make an answer
        expected = model.logits(images, lost)
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(loaded.logits(images, lost), expected, rtol=1e-5)
    again = protect(tmp_path / "run")
    assert again.results["summary"] == results["summary"]
    # A service stops at the first results that reach some accuracy.
    drops = {
        tuple(own["lost"]): results["base"]["validation_accuracy"] - own["accuracy"]
        for own in results["sets"]
    }
    assert len(drops) == 7
    least = min(drops, key=drops.get)
    rule = model.stops_within(100 * drops[least]).pipeline.stages[0].code.quorum
    arrived = {0, 1, 2} - {*least}
    assert quorum.suffices(rule, 2, arrived)
    with pytest.raises(ValueError, match="^within: .* or more, in points, accepted"):
        model.stops_within(100 * drops[least] - 1)


@pytest.mark.parametrize("decoder", ["low_rank", "mlp"])
def test_other_decoders_are_fitted_and_loaded(tmp_path, decoder):
    settings = {"decoder": decoder, "decoder_width": 3, "epochs": 2}
    model = protect(tmp_path / "run", **settings)
    loaded = coded_jax.load(
        tmp_path / "run", blocks=own_cnn.f_conv, head=head, variables=make_variables()
    )
    images = own_cnn.DATASET.test.images
    for lost in ((), (2,), (0, 1)):
        expected = model.logits(images, lost)
        np.testing.assert_allclose(loaded.logits(images, lost), expected, rtol=1e-5)
    assert set(model.params[0]) >= {"low_rank": {"basis"}, "mlp": {"network"}}[decoder]
    alone = protect(**settings)  # without a folder, from memory
    assert alone.results["summary"] == model.results["summary"]
    assert not [*(tmp_path / "run" / "moments").glob("*/*.npy")]
    more = protect(tmp_path / "run", **settings, seeds=2)  # the first one is there
    seeds = more.results["seeds"]["code"]
    assert seeds[0] == model.results["summary"] or len(seeds) == 2


def test_a_network_is_trained_from_the_least_squares_on():
    least = protect(baselines=())
    model = protect(decoder="mlp", epochs=20, batch_size=16, baselines=())
    np.testing.assert_array_equal(
        model.params[0]["weights"], least.params[0]["weights"]
    )
    kernel = model.params[0]["network"]["params"]["Dense_1"]["kernel"]
    assert np.abs(kernel).max() > 0


def gated(variables, images):
    """A whole network with a gate, which no exact split can compute piece by piece."""
    x = own_cnn.f_conv(variables, images)
    gates = jax.nn.sigmoid(x.mean((1, 2)) @ variables["gate"])
    return head(variables, x * gates[:, None, None])


def test_a_whole_network_is_cut_at_its_pooling():
    variables = {**make_variables(), "gate": np.eye(4, dtype="f")}
    model = coded_jax.protect(
        model=gated, variables=variables, dataset=own_cnn.DATASET, **SETTINGS
    )
    assert model.pipeline.stages[0].plan.features_shape == (1, 1, 4)
    dataset = own_cnn.DATASET
    x = (dataset.test.images / np.float32(255) - 0.5) / np.float32(0.3)
    logits = gated(variables, jax.numpy.asarray(x, "f"))
    expected = (np.asarray(logits).argmax(1) == dataset.test.labels).mean()
    assert model.results["base"]["test_accuracy"] == pytest.approx(expected)


def test_a_network_that_does_not_pool_is_refused():
    model = lambda variables, x: own_cnn.head(variables, own_cnn.f_conv(variables, x))
    with pytest.raises(ValueError, match="^model: one that does not pool all"):
        coded_jax.protect(
            model=model,
            variables=own_cnn.make_variables(),
            dataset=own_cnn.DATASET,
            **SETTINGS,
        )


def test_two_seeds_of_an_augmentation_are_two_fits():
    model = protect(seeds=2, code_augmentation="shift", passes=2, baselines=())
    assert len(model.results["seeds"]["code"]) == 2


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            {"decoder": "conv"},
            "decoder: 'conv' given, one of .* with split=views accepted",
        ),
        ({"code": "mds"}, "code: 'mds' given, one of .* with split=views accepted"),
        ({"parity_views": ("whole", "centre")}, "parity_views: .* given, r=1 views"),
        ({"views": ("0-12x0-8",)}, "views: .* given, k=2 views accepted"),
        ({"views": ("left", "right")}, "views: .* given, views, each whole, centre"),
        ({"stages": ((1, 1),)}, "stages: .* given, none with split=views accepted"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    views_given = {"halo": 0} if "views" in settings else {}
    with pytest.raises(ValueError, match=f"^{message}"):
        protect(**settings, **views_given)


def test_a_stopped_fit_is_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(views, "CHUNK", 24)
    monkeypatch.setattr(coded_jax.runs.phases, "stop_requests", _StopsAtOnce)
    with pytest.raises(Interrupted):
        protect(tmp_path / "run")
    assert views.read(tmp_path / "run" / "moments" / "0" / "sums.npz").seen == 24
    monkeypatch.undo()
    monkeypatch.setattr(views, "CHUNK", 24)
    assert protect(tmp_path / "run").results["steps"]["code"] == 4


class _StopsAtOnce:
    def __enter__(self):
        return lambda: True

    def __exit__(self, *error):
        pass

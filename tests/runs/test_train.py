"""Training without a run: the parameters of a run, and nothing left behind."""

import dataclasses
import functools
import importlib
import tempfile

import jax
import numpy as np
import pytest

import coded_jax
from coded_jax.inference.pixels import normalise
from coded_jax.training.loop import FitConfig
from coded_jax.types import Split
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables
from tests.runs.test_coded_model import scaled_sum

NETWORK = {"blocks": f_conv, "head": head, "variables": make_variables()}
CONFIG = coded_jax.TrainConfig(epochs=2, batch_size=16)


def make_pipeline(mean=DATASET.mean, std=DATASET.std, **settings):
    return coded_jax.make_pipeline(
        **NETWORK,
        image_shape=DATASET.image_shape,
        classes=CLASSES,
        mean=mean,
        std=std,
        **{"k": 2, "r": 1, "decoder_width": 8, **settings},
    )


def train(data=DATASET, config=CONFIG, pipeline=None, variables=None, **options):
    pipeline = pipeline or make_pipeline()
    variables = make_variables() if variables is None else variables
    return coded_jax.train(pipeline, variables, data, config, **options)


def test_it_multiplies_what_its_setting_says(monkeypatch):
    seen, module = [], importlib.import_module("coded_jax.runs.train")
    fit = module.fit

    def spied(*args, **options):
        seen.extend(a.products for a in args if isinstance(a, FitConfig))
        return fit(*args, **options)

    monkeypatch.setattr(module, "fit", spied)
    train(config=dataclasses.replace(CONFIG, products="bfloat16"))
    train()
    assert seen == ["bfloat16", "default"]


def scaled_sum_of_all(shape):
    return scaled_sum(shape)._replace(systematic=False)


@pytest.mark.parametrize(
    "settings",
    [
        {"decoder_width": 8},
        # The rate decays by the recipe, whatever the code.
        {"code": scaled_sum_of_all},
        {"code": "parity_model", "recipe": "paper"},
    ],
)
def test_the_parameters_are_those_of_a_run(tmp_path, monkeypatch, settings):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = train(pipeline=make_pipeline(**settings))
    assert list(tmp_path.iterdir()) == []
    run = coded_jax.protect(
        **NETWORK,
        dataset=DATASET,
        devices=1,
        epochs=2,
        batch_size=16,
        baselines=(),
        **settings,
    )
    jax.tree.map(np.testing.assert_array_equal, model.params, run.params)
    assert coded_jax.evaluate(model, DATASET.test).mean[1] == pytest.approx(
        run.results["summary"]["1"]["mean"]
    )


def test_a_stream_is_as_good_as_arrays():
    rows = [slice(start, start + 10) for start in range(0, 64, 10)]
    part = DATASET.train
    arrays = train((part.images, part.labels))
    stream = train((part.images[r], part.labels[r]) for r in rows)
    jax.tree.map(np.testing.assert_array_equal, arrays.params, stream.params)
    # Float images, taken as they are, by a pipeline that knows no mean.
    images = np.asarray(normalise(part.images, DATASET.mean, DATASET.std))
    taken = train((images, part.labels), pipeline=make_pipeline(None, None))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
        taken.params,
        arrays.params,
    )


def test_a_code_of_ones_own_learns():
    pipeline = make_pipeline(code=scaled_sum)
    model = train(pipeline=pipeline)
    (params,) = model.params
    assert params["scale"] != 1
    assert train(pipeline=make_pipeline(code="addition")).params == ({},)
    filled = train(pipeline=make_pipeline(code="mean_fill"))
    assert len(jax.tree.leaves(filled.params)) == 1


def test_a_folder_is_gone_on_from_and_is_that_of_one_training(tmp_path):
    first = train(workdir=tmp_path)
    again = train(workdir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)
    others = [
        {"config": coded_jax.TrainConfig(epochs=3, batch_size=16)},
        {"data": DATASET.train},
        {"pipeline": make_pipeline(code=scaled_sum)},
    ]
    for arguments in others:
        with pytest.raises(ValueError, match="^workdir: .* made with other settings"):
            train(workdir=tmp_path, **arguments)


def test_a_folder_is_that_of_one_pipeline(tmp_path):
    part = DATASET.train  # has no mean and deviation of its own
    train(part, workdir=tmp_path)
    others = {
        "mean=0.5 there and 0.1 now": {"mean": (0.1,)},
        "std=0.3 there and 0.1 now": {"std": (0.1,)},
        "precision=float32 there and bfloat16 now": {"precision": "bfloat16"},
        "k=2 there and 3 now": {"k": 3},
        "r=1 there and 2 now": {"r": 2},
        "recipe=systematic there and paper now": {"recipe": "paper"},
        "fingerprint_of_split=.* there": {"grid": (1, 2)},
        "split=image there and group now": {"split": "group"},
    }
    for differing, changes in others.items():
        with pytest.raises(
            ValueError, match=rf"other settings \(.*{differing}"
        ) as error:
            train(part, workdir=tmp_path, pipeline=make_pipeline(**changes))
        assert "--" not in str(error.value) and "\n" not in str(error.value)


def test_a_folder_is_that_of_one_tail(tmp_path):
    config = coded_jax.TrainConfig(epochs=2, batch_size=16, supervision=1)
    run = functools.partial(train, DATASET.train, config=config, workdir=tmp_path)
    run(pipeline=make_pipeline(tail="tuned"))
    for now, tail in {
        "frozen": {},
        "intact 0.1": {"tail": "intact"},
        "tuned 0.02": {"tail": "tuned", "tail_step": 0.02},
    }.items():
        with pytest.raises(ValueError, match=f"tail=tuned 0.1 there and {now} now"):
            run(pipeline=make_pipeline(**tail))


def test_an_intact_tail_is_not_trained_by_distillation_alone():
    config = coded_jax.TrainConfig(epochs=2, batch_size=16, distillation=1)
    with pytest.raises(ValueError, match="^config: .* with supervision, for the tail"):
        train(DATASET.train, config=config, pipeline=make_pipeline(tail="intact"))


def test_a_tail_that_is_settled_is_not_trained():
    config = coded_jax.TrainConfig(epochs=2, batch_size=16, supervision=1)
    model = train(DATASET.train, config=config, pipeline=make_pipeline(tail="tuned"))
    with pytest.raises(ValueError, match="^pipeline: 'a settled one' given, one whose"):
        train(DATASET.train, config=config, pipeline=model.settled().pipeline)


def test_a_folder_from_before_a_setting_counts_with_its_default(tmp_path):
    first = train(workdir=tmp_path)
    flags = tmp_path / "flags.txt"
    lines = flags.read_text().splitlines()
    old = [x for x in lines if not x.startswith(("--tail=", "--parity_moves="))]
    assert len(old) == len(lines) - 2
    flags.write_text("\n".join(old) + "\n")
    again = train(workdir=tmp_path)
    jax.tree.map(np.testing.assert_array_equal, first.params, again.params)


def test_a_tail_for_no_code_is_refused():
    with pytest.raises(ValueError, match="tail: 'tuned' given, frozen for a code"):
        make_pipeline(tail="tuned", code="mean_fill")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"config": coded_jax.TrainConfig(seeds=2)}, "seeds: 2 given, 1, and other"),
        (
            {"config": coded_jax.TrainConfig(batch_size=65)},
            r"batch_size: 65 given, 1\.\.",
        ),
        (
            {"data": Split(DATASET.train.images, DATASET.train.labels + 1)},
            "data.labels: 3",
        ),
        ({"data": []}, "data: 0 given"),
        ({"config": {"epochs": 2}}, "config: 'dict' given, a TrainConfig"),
        ({"pipeline": f_conv}, "pipeline: 'function' given, a Pipeline"),
        ({"variables": {"kernel": 1}}, r"variables: .* \("),
        ({"variables": {}}, r"variables: .* \('kernel'\)"),
        ({"workdir": 3}, "workdir: 3 given, the path of a folder"),
        (
            {"pipeline": make_pipeline(None, None)},
            r"images: uint8 \[1, .* given, float32",
        ),
        (
            {"pipeline": make_pipeline(std=(0.1,))},
            r"mean, std: \(\(0.5,\), \(0.3,\)\) given, \(\(0.5,\), \(0.1,\)\), those",
        ),
        ({"config": coded_jax.TrainConfig(l=2)}, r"l: 2 given, 0\.\.r, here 0\.\.1"),
        (
            {"config": coded_jax.TrainConfig(pattern_weights=(((0, 1), 2),))},
            "pattern_weights: .* given, patterns that lose a data piece and at most 1",
        ),
        (
            {"pipeline": make_pipeline(nonnegative=True)},
            "nonnegative: True given, False accepted where features are negative",
        ),
    ],
)
def test_what_is_wrong_is_one_line(options, message):
    with pytest.raises(ValueError, match=f"^{message}") as error:
        train(**options)
    assert "\n" not in str(error.value)


def test_statistics_are_compared_as_images_are_normalised():
    """In float32; `mds` has nothing to train."""
    rounded = tuple(map(np.float32, DATASET.mean)), tuple(map(np.float32, DATASET.std))
    train(pipeline=make_pipeline(*rounded, code="mds"))
    with pytest.raises(ValueError, match=r"^mean, std: .* those of the pipeline"):
        train(pipeline=make_pipeline((0.1,), DATASET.std, code="mds"))


def test_a_pipeline_made_by_hand_says_its_image_shape():
    pipeline = make_pipeline()._replace(image_shape=(0, 0, 0))
    with pytest.raises(ValueError, match=r"^pipeline.image_shape: \(0, 0, 0\) given"):
        train(pipeline=pipeline)

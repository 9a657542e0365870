"""Settings that are out of range are refused in one line that names them."""

import dataclasses
import json

import pytest

from coded_jax.config import Config


@pytest.mark.parametrize(
    "field, value, accepted",
    [
        ("dataset", "mnits", "mnist_5k"),
        ("base_model", "lenet6", "lenet5"),
        ("recipe", "papr", "systematic"),
        ("encoder", "cnn", "conv"),
        ("decoder", "MLP", "mlp"),
        ("decoder_channels", "both", "independent"),
        ("k", 1, r"2\.\.11"),
        ("k", 16, r"2\.\.11"),
        ("r", 0, r"1\.\.10"),
        ("r", 11, r"1\.\.10"),
        ("l", 2, r"0\.\.r, here 0\.\.1"),
        ("l", -1, r"0\.\.r"),
        ("grid", (2, 2), "product of k=2"),
        ("grid", (2,), "rows x columns"),
        ("grid", (-1, -2), "rows x columns"),
        ("encoder_width", 0, r"1\.\.65536"),
        ("decoder_width", 10**12, r"1\.\.65536"),
        ("dilations", (), r"1\.\.1024"),
        ("dilations", (1, 0), r"1\.\.1024"),
        ("dilations", (10**20,), r"1\.\.1024"),
        ("epochs", 0, "more than 0"),
        ("epochs", 1e300, "at most"),
        ("base_epochs", float("nan"), "more than 0"),
        ("learning_rate", float("inf"), "more than 0"),
        ("weight_decay", -1e-5, "0 or more"),
        ("batch_size", 0, "1 or more"),
        ("seed", -1, r"0\.\."),
    ],
)
def test_out_of_range(field, value, accepted):
    with pytest.raises(ValueError, match=rf"^{field}: .* given, .*{accepted}") as error:
        Config(**{field: value})
    assert repr(value) in str(error.value) and "\n" not in str(error.value)


def test_defaults_that_depend_on_others():
    config = Config(k=4, r=2)
    assert (config.n, config.most_lost, config.pieces) == (6, 2, (4, 1))
    assert Config(k=4, r=2, l=0, grid=(2, 2)).most_lost == 0


def test_survives_json():
    config = Config(k=4, grid=(2, 2), dilations=(1, 2), l=0)
    assert (
        Config.from_json(json.loads(json.dumps(dataclasses.asdict(config)))) == config
    )


def test_flags_leave_out_what_is_unset():
    flags = Config(k=4, grid=(2, 2), epochs=0.5).to_flags()
    assert flags["grid"] == "2x2" and flags["epochs"] == "0.5"
    assert flags["dilations"] == "1,1,2,4,8,1"
    assert not {"l", "encoder_width", "decoder_channels"} & flags.keys()

"""What `results.json` says of a code."""

from coded_jax.runs.reading import code_name, code_title, patterns_of


def test_patterns_of_a_code():
    ours, theirs = [{"lost": [0]}], [{"lost": [1]}]
    results = {"config": {"code": "some"}, "patterns": ours}
    assert patterns_of(results, "some") == ours
    assert patterns_of(results, "rival") is None
    results["patterns_of_baselines"] = {"rival": theirs}
    assert patterns_of(results, "rival") == theirs


def test_names_of_codes_say_that_parity_is_a_smaller_image():
    config = {
        "code": "learned",
        "recipe": "systematic",
        "encoder": "linear",
        "decoder": "sharpen",
        "encoder_width": None,
        "decoder_width": 16,
    }
    assert code_name(config, "learned") == "systematic linear / sharpen 16"
    smaller = config | {"parity_pieces": "smaller"}
    assert code_name(smaller, "learned") == "systematic smaller / sharpen 16"
    title = "systematic recipe, smaller + conv encoder, sharpen decoder"
    assert code_title(smaller | {"encoder": "conv"}) == title

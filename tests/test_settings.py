"""Settings are declared once: checks, forms in flags and documentation agree."""

import dataclasses
import json

import jax.numpy as jnp
import numpy as np
import pytest

from coded_jax import settings
from coded_jax.settings import (
    FLOAT,
    INTEGER,
    INTEGERS,
    at_least,
    integers,
    more_than,
    one_of,
    setting,
)


@dataclasses.dataclass(frozen=True)
class Sizes:
    k: int = setting(2, "data pieces", integers(1, 11))
    rate: float = setting(0.5, "of steps", more_than(0))
    decay: float = setting(0.0, "L2 factor", at_least(0, below=1))
    kind: str = setting("a", "of code", one_of(("a", "b")))
    steps: tuple = setting((), "numbers", form=INTEGERS)
    width: int | None = setting(None, "k if not given", integers(1), INTEGER)
    fast: bool = setting(False, "whether to hurry")
    other: int = 7  # not declared

    def __post_init__(self):
        settings.check(self)


@pytest.mark.parametrize(
    "name, value, accepted",
    [
        ("k", 0, "1..11"),
        ("k", 12, "1..11"),
        ("k", 2.0, "1..11"),
        ("k", True, "1..11"),
        ("k", None, "1..11"),
        ("rate", 0, "more than 0"),
        ("rate", float("nan"), "more than 0"),
        ("decay", 1.0, "0 or more, below 1"),
        ("kind", "c", "one of ['a', 'b']"),
        ("width", 0, "1 or more"),
    ],
)
def test_values_that_are_not_accepted(name, value, accepted):
    with pytest.raises(ValueError) as error:
        Sizes(**{name: value})
    assert str(error.value) == f"{name}: {value!r} given, {accepted} accepted"


def test_values_at_the_ends_are_accepted():
    Sizes(k=1), Sizes(k=11), Sizes(decay=0), Sizes(width=1), Sizes(width=None)


@pytest.mark.parametrize(
    "name, value, plain",
    [
        ("k", np.int64(3), 3),
        ("k", jnp.int32(3), 3),
        ("rate", jnp.asarray(0.25), 0.25),
        ("kind", np.str_("b"), "b"),
        ("steps", np.array([[1, 2], [3, 4]]), ((1, 2), (3, 4))),
        ("fast", np.bool_(True), True),
    ],
)
def test_scalars_and_arrays_become_plain_values(name, value, plain):
    record = Sizes(**{name: value})
    same = Sizes(**{name: plain})
    assert record == same and hash(record) == hash(same)
    fields = dataclasses.asdict(record)
    assert json.loads(json.dumps(fields)) == json.loads(
        json.dumps(dataclasses.asdict(same))
    )
    assert settings.to_flags(record) == settings.to_flags(same)


@pytest.mark.parametrize("name", ["k", "rate"])
def test_arrays_of_several_numbers_are_no_number(name):
    with pytest.raises(ValueError, match=rf"^{name}: \(1, 2\) given, "):
        Sizes(**{name: np.array([1, 2])})


def test_a_registry_accepts_later_entries():
    registry = {"a": 1}
    accepted = one_of(registry)
    assert not accepted.holds("b")
    registry["b"] = 2
    assert accepted.holds("b") and accepted.text == "one of ['a', 'b']"


@pytest.mark.parametrize(
    "form, text, value",
    [
        (INTEGER, "3", 3),
        (FLOAT, "1e-05", 1e-5),
        (INTEGERS, "", ()),
        (settings.tuple_of(settings.TEXT, ",", "texts"), "a,b", ("a", "b")),
        (settings.BOOL, "True", True),
        (settings.tuple_of(INTEGERS, ";", "lists"), "1,2;3", ((1, 2), (3,))),
    ],
)
def test_forms_are_read_as_they_are_written(form, text, value):
    assert form.parse(text) == value and form.show(value) == text


@pytest.mark.parametrize(
    "name, text, accepted",
    [
        ("k", "two", "an integer"),
        ("steps", "1,x", "integers as 1,2,4"),
        ("fast", "maybe", "true or false"),
    ],
)
def test_texts_of_another_form(name, text, accepted):
    declared = {field.name: field for field in settings.settings(Sizes)}[name]
    with pytest.raises(ValueError) as error:
        declared.parse(text)
    assert str(error.value) == f"{name}: {text!r} given, {accepted} accepted"


def test_flags_leave_out_what_is_unset_or_not_declared():
    assert settings.to_flags(Sizes(steps=(1, 2))) == {
        "k": "2",
        "rate": "0.5",
        "decay": "0.0",
        "kind": "a",
        "steps": "1,2",
        "fast": "False",
    }

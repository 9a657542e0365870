"""Fingerprints are other ones for other functions, variables, data and codes."""

import dataclasses

import jax.numpy as jnp
import numpy as np

import coded_jax
from coded_jax.runs import provenance
from coded_jax.types import BaseModel, Quorum
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables
from tests.runs.test_coded_model import scaled_sum

VARIABLES = make_variables()


def of_network(f=f_conv, variables=VARIABLES):
    base = BaseModel(lambda *_: None, (f,), head)
    return provenance.of_network(base, variables, DATASET.image_shape)


def closing_over(table):
    return lambda variables, x: f_conv(variables, x) + jnp.asarray(table)


def test_networks():
    tables = [np.zeros((1, 1, 1, 4), "f"), np.ones((1, 1, 1, 4), "f")]
    marks = [of_network(), *(of_network(closing_over(table)) for table in tables)]
    assert len({mark["functions"] for mark in marks}) == 3
    assert len({mark["variables"] for mark in marks}) == 1
    more = of_network(variables={**VARIABLES, "more": np.zeros(1)})
    assert more["variables"] != marks[0]["variables"]
    assert of_network() == of_network(lambda v, x: f_conv(v, x)) == marks[0]


def test_data():
    mark = provenance.of_data(DATASET)
    assert mark == provenance.of_data(dataclasses.replace(DATASET))
    changes = ({"test": DATASET.validation}, {"std": (0.31,)}, {"classes": 4})
    others = [dataclasses.replace(DATASET, **change) for change in changes]
    assert len({mark, *map(provenance.of_data, others)}) == 4


def of_code(code):
    pipeline = coded_jax.make_pipeline(
        blocks=f_conv,
        head=head,
        variables=VARIABLES,
        image_shape=DATASET.image_shape,
        classes=CLASSES,
        code=code,
    )
    return provenance.of_codes(pipeline, VARIABLES)


def with_field(**fields):
    return lambda shape: scaled_sum(shape)._replace(**fields)


def times(factor):
    """Its decoder multiplies by a constant, which is no parameter."""

    def make(shape):
        code = scaled_sum(shape)._replace(systematic=False)
        return code._replace(decode=lambda *x: code.decode(*x) * np.float32(factor))

    return make


def test_codes():
    codes = [
        scaled_sum,
        "addition",
        times(1),
        times(2),
        with_field(systematic=False),
        with_field(quorum=Quorum("all_data")),
    ]
    marks = [of_code(code) for code in codes]
    assert len(set(marks)) == len(codes) and of_code(scaled_sum) == marks[0]

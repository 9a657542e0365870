"""Fingerprints are other ones for other functions, variables, data and codes."""

import dataclasses

import jax.numpy as jnp
import numpy as np

import coded_jax
from coded_jax.runs import fingerprints
from coded_jax.types import BaseModel
from tests.own_cnn import CLASSES, DATASET, f_conv, head, make_variables
from tests.runs.test_coded_model import scaled_sum

VARIABLES = make_variables()


def of_network(f=f_conv, variables=VARIABLES):
    base = BaseModel(lambda *_: None, (f,), head)
    return fingerprints.of_network(base, variables, DATASET.image_shape)


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
    mark = fingerprints.of_data(DATASET)
    assert mark == fingerprints.of_data(dataclasses.replace(DATASET))
    changes = ({"test": DATASET.validation}, {"std": (0.31,)}, {"classes": 4})
    others = [
        fingerprints.of_data(dataclasses.replace(DATASET, **change))
        for change in changes
    ]
    assert len({mark, *others}) == 4


def test_codes():
    def of(code):
        pipeline = coded_jax.make_pipeline(
            blocks=f_conv,
            head=head,
            variables=VARIABLES,
            image_shape=DATASET.image_shape,
            classes=CLASSES,
            code=code,
        )
        return fingerprints.of_codes(pipeline)

    def with_table(factor):
        def make(shape):
            code = scaled_sum(shape)._replace(systematic=False)
            return code._replace(decode=lambda *x: code.decode(*x) * np.float32(factor))

        return make

    marks = [of(scaled_sum), of("addition"), of(with_table(1)), of(with_table(2))]
    assert len(set(marks)) == 4 and of(scaled_sum) == marks[0]

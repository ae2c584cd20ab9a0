"""The distribution scale: labels -> expected draws of each row -> exact plan of an epoch. Arrays in, arrays out.

A sampler (sampler.py, samplers.py) sorts the rows into strata (strata.py, rarest.py: classes, or bins of a continuous
label) and says how often each row is expected in an epoch (shares.py); one drawer for all of them (plan.py, order.py)
turns that into whole draws. report.py says what it did (measure.py), prior.py takes it back out of probabilities.
"""

from cinefeed.balance.plan import Plan, draw
from cinefeed.balance.prior import class_weights, correct_prior, kept_prior
from cinefeed.balance.report import BalanceReport
from cinefeed.balance.sampler import Balancing, Sampler
from cinefeed.balance.samplers import BalancedClasses, Natural, UniformLabels
from cinefeed.balance.strata import Strata

__all__ = [
    "BalanceReport",
    "BalancedClasses",
    "Balancing",
    "Natural",
    "Plan",
    "Sampler",
    "Strata",
    "UniformLabels",
    "class_weights",
    "correct_prior",
    "draw",
    "kept_prior",
]

"""The distribution scale: labels -> expected draws of each row -> exact plan of an epoch. Arrays in, arrays out.

A sampler (samplers.py) sorts the rows into strata (strata.py: classes, or bins of a continuous label) and says how
often each row is expected in an epoch; one drawer for all of them (plan.py, order.py) turns that into whole draws.
"""

from cinefeed.balance.plan import Plan, draw
from cinefeed.balance.samplers import BalancedClasses, BalanceReport, Natural, Sampler, UniformLabels, class_weights
from cinefeed.balance.strata import Strata

__all__ = [
    "BalanceReport",
    "BalancedClasses",
    "Natural",
    "Plan",
    "Sampler",
    "Strata",
    "UniformLabels",
    "class_weights",
    "draw",
]

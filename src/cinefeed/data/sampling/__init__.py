"""Balanced sampling: labels -> expected draws of each row -> exact plan of an epoch, on arrays.

A sampler (sampler.py, samplers.py) groups rows into strata (strata.py, rarest.py), which are classes or bins of a
continuous label, and computes the expected draws of each row in an epoch (shares.py). The planner (plan.py, order.py)
converts expected draws of all samplers to integer draws. report.py describes the result with the measures of
measure.py. prior.py corrects predicted probabilities for balanced training.
"""

from cinefeed.data.sampling.base import Balancing, Sampler
from cinefeed.data.sampling.plan import Plan, draw
from cinefeed.data.sampling.prior import class_weights, correct_prior, prior_from_report
from cinefeed.data.sampling.report import BalanceReport
from cinefeed.data.sampling.samplers import BalancedClasses, Natural, UniformLabels
from cinefeed.data.sampling.strata import Strata

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
    "prior_from_report",
]

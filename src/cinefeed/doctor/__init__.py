"""Examination of the machine and advice about slow or missing parts: `cinefeed doctor`."""

from cinefeed.doctor.advice import Advice, advise
from cinefeed.doctor.look import examine

__all__ = ["Advice", "advise", "examine"]

"""What cinefeed finds on this machine, and what is slow here: `cinefeed doctor`."""

from cinefeed.doctor.advice import Advice, advise
from cinefeed.doctor.look import examine

__all__ = ["Advice", "advise", "examine"]

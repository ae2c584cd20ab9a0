"""The type of a label column, classes or numbers. Feed, init, check, split, balancing and metrics use this rule.

text, booleans, categories                                  classes; with a notice if nearly all are numbers
numbers, all of them 0 or 1                                 the classes "0" and "1"
other numbers                                               numbers (a regression)
integers 0..k or 1..k, k <= 1000, each at least twice       numbers, with a notice that they may be classes
dates, times and lists                                      neither: refused

The rule is applied to the whole column, before any split or filter, and the result is stored in the manifest: a part
that only contains zeros still has two classes. An explicit task overrides the rule.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import did_you_mean

Kind = Literal["classes", "numbers"]

_HIGHEST_CLASS = 1000  # larger integers are numbers, whatever they are of
# Different numbers in text that was meant as numbers; with fewer, all are classes, such as 0, 1, 2 and "unclear".
_FEWEST_NUMBERS = 8
_MOST_OTHERS = 0.2  # share of the values of such text that are no numbers, such as "72y"
_NUMBER = r"^\s*[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?\s*$"
_MAX_EXACT = 2**53  # floats represent all integers up to here exactly
TASKS = ("regression", "binary", "multiclass")


@dataclass(frozen=True, kw_only=True)
class LabelType:
    """The kind of a label column; `grades` are the lowest and highest of integers that may be classes.

    For text whose values are numbers but for a few, `others` are these, in `others_in_words`.
    """

    kind: Kind
    grades: tuple[int, int] | None = None
    others: tuple[str, ...] = ()
    others_in_words: str = ""

    @property
    def is_classes(self) -> bool:
        """Whether the labels are classes."""
        return self.kind == "classes"

    def notice(self, name: str, *, use: str = "used as numbers (a regression)") -> str:
        """Return a notice for numbers that may be classes, or text that may be numbers; "" for other labels.

        `use` is how numbers are used.
        """
        if self.others:
            return f"{self.text_notice(name)}: then set task='multiclass' (--task multiclass)"
        if self.grades is None:
            return ""
        low, high = self.grades
        return (
            f"{name!r} contains the integers {low} to {high}, each at least twice; they are {use}; "
            "if they are classes, set task='multiclass' (--task multiclass)"
        )

    def text_notice(self, name: str) -> str:
        """Return a notice for text that may be numbers, "" for other labels."""
        if not self.others:
            return ""
        return (
            f"{name!r} is text, and each value a class, but {self.others_in_words}; write these as numbers, or leave "
            "them empty, in the table of labels and scan again, unless all are classes"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {"kind": self.kind} | ({} if self.grades is None else {"grades": list(self.grades)})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "LabelType":
        """Return the label type from the result of `as_dict`."""
        grades = values.get("grades")
        return cls(kind=values["kind"], grades=None if grades is None else (grades[0], grades[1]))


CLASSES, NUMBERS = LabelType(kind="classes"), LabelType(kind="numbers")


def label_type(values: Any) -> LabelType:
    """Return the type of a whole label column, an Arrow array or values that can be converted to one.

    >>> [label_type(each).kind for each in (["a", "b"], [True, False], [0, 1, None], [0.0, 1.0], [61.5, 40.0])]
    ['classes', 'classes', 'classes', 'classes', 'numbers']
    >>> label_type([0, 1, 2, 2, 1, 0]).grades
    (0, 2)
    """
    column = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
    if pa.types.is_string(column.type):
        return _type_of_text(column)
    if not is_number(column.type):
        return CLASSES
    numbers = column.drop_null().cast(pa.float64(), safe=False)  # ids may be larger than 2**53
    numbers = numbers.filter(pc.invert(pc.is_nan(numbers)))
    if len(numbers) == 0:
        return NUMBERS
    low, high = pc.min_max(numbers).as_py().values()
    if low < 0 or high > _HIGHEST_CLASS or not pc.all(pc.equal(numbers, pc.floor(numbers))).as_py():
        return NUMBERS
    if high <= 1:
        return CLASSES
    counts = numbers.value_counts().field("counts").to_numpy()
    is_graded = low <= 1 and len(counts) == high - low + 1 and counts.min() > 1
    return LabelType(kind="numbers", grades=(int(low), int(high))) if is_graded else NUMBERS


def _type_of_text(column: Any) -> LabelType:
    """Return classes, with the values that are no numbers if these are few.

    >>> _type_of_text(pa.array([*map(str, range(9)), "72y", None])).others_in_words
    "all but 1 of 10 values are numbers: '72y'"
    """
    values = column.drop_null()
    unique = values.unique()
    is_number = pc.match_substring_regex(unique, _NUMBER)
    others = unique.filter(pc.invert(is_number))
    if len(unique) - len(others) < _FEWEST_NUMBERS or not 0 < len(others) <= _MOST_OTHERS * len(unique):
        return CLASSES
    count = pc.sum(pc.is_in(values, value_set=others)).as_py()
    names = ", ".join(map(repr, others[:3].to_pylist())) + " ..." * (len(others) > 3)
    words = f"all but {count} of {len(values)} values are numbers: {names}"
    return LabelType(kind="classes", others=tuple(others.to_pylist()), others_in_words=words)


def task_hint(task: object, tasks: Sequence[str]) -> str:
    """Return a hint for a name that is no task.

    >>> task_hint("classification", TASKS), task_hint("regresion", TASKS)
    ("give 'binary' for two classes, 'multiclass' for more", "did you mean 'regression'?")
    """
    if str(task).lower().startswith("classif"):
        return "give 'binary' for two classes, 'multiclass' for more"
    return did_you_mean(str(task), tasks)


def why_no_label(kind: Any) -> str:
    """Return why a column of an Arrow type cannot be a label, and what to do; "" if it can be one.

    >>> why_no_label(pa.date32())[:51], why_no_label(pa.int64())
    ('date32[day], and a date or time is neither a class ', '')
    """
    if pa.types.is_nested(kind):
        return (
            f"{kind}, and a label is one number or text per row; use one column per label, and name several targets "
            "(target=[...], --target a,b)"
        )
    if pa.types.is_temporal(kind):
        return (
            f"{kind}, and a date or time is neither a class nor a number; convert it, for example to the days since "
            "a first date, or to the year as text"
        )
    return ""


def is_number(kind: Any) -> bool:
    """Return whether an Arrow type is numeric; booleans are not."""
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind))


def class_name(value: object) -> str:
    """Return the name of a class in settings and reports; integers have no decimal point.

    >>> class_name(1.0), class_name("covid"), class_name(True)
    ('1', 'covid', 'True')
    """
    if isinstance(value, float | np.floating) and float(value).is_integer():
        return str(int(value))
    return str(value)


def class_names(column: Any) -> Any:
    """Return the class names of a label column as an Arrow text column; 1 and 1.0 are both "1".

    >>> class_names(pa.array([0.0, 1.0, None])).to_pylist(), class_names(pa.array([False, True])).to_pylist()
    (['0', '1', None], ['false', 'true'])
    """
    if pa.types.is_floating(column.type) and column.null_count < len(column):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)
        is_integer = pc.and_(pc.equal(column, pc.floor(column)), pc.less_equal(pc.abs(column), _MAX_EXACT))
        if pc.all(is_integer).as_py():
            column = column.cast(pa.int64())
    return column.cast(pa.string())

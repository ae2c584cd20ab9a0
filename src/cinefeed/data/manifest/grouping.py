"""Groups of samples from a table with one row per sample id, such as that of `cinefeed check --groups`."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.core.errors import ColumnError, TableError, did_you_mean
from cinefeed.core.text import count_having
from cinefeed.data.manifest.label_keys import first_names
from cinefeed.data.manifest.read_table import read_table

GROUP = "check_group"  # column name


def groups_of_ids(source: object, ids: Any, *, private: bool) -> Any:
    """Return the group of each id from a table with the columns `id` and `check_group`, as text.

    Raises ColumnError if the table lacks one of them, TableError if an id is missing or occurs twice.
    """
    table = read_table(source)
    for name in ("id", GROUP):
        if name not in table.schema.names:
            raise ColumnError(
                f"a table of groups needs a column {name!r}; {did_you_mean(name, table.schema.names)}; "
                "'cinefeed check --groups groups.csv' writes one"
            )
    keys = table.column("id").combine_chunks().cast(pa.string())
    if len(keys.unique()) < len(keys):
        raise TableError(
            f"the table of groups has {len(keys) - len(keys.unique())} ids more than once; keep one row per id"
        )
    groups = table.column(GROUP).combine_chunks().cast(pa.string()).take(pc.index_in(ids, value_set=keys))
    unknown = ids.filter(groups.is_null())
    if len(unknown):
        first = first_names(unknown, private=private)
        raise TableError(
            f"{count_having(len(unknown), len(ids), 'row')} no group in the table (first: {first}); "
            "check the same rows again with --groups, and use the table that it writes"
        )
    return groups

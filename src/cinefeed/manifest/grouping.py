"""Groups from a table, such as those of `cinefeed check --groups`: a row for each sample, by its id."""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cinefeed.errors import ColumnError, TableError, did_you_mean
from cinefeed.manifest.label_keys import first_names
from cinefeed.manifest.reading import read_table

GROUP = "check_group"  # the column


def groups_of_ids(source: object, ids: Any, *, private: bool) -> Any:
    """Return the group of each id from a table with the columns `id` and `check_group`, as text.

    Raises ColumnError where the table lacks one of them, TableError for an id that it lacks or has twice.
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
            f"the table of groups has {len(keys) - len(keys.unique())} ids more than once; keep one row each"
        )
    groups = table.column(GROUP).combine_chunks().cast(pa.string()).take(pc.index_in(ids, value_set=keys))
    unknown = ids.filter(groups.is_null())
    if len(unknown):
        first = first_names(unknown, private=private)
        raise TableError(
            f"{len(unknown)} of {len(ids)} rows have no group in the table (first: {first}); "
            "check the same rows again with --groups, and take what it writes"
        )
    return groups

"""Self-contained HTML pages of runs, tables of predictions and feeds. The extra `report` is imported when needed."""

from cinefeed.reports.card import write_card
from cinefeed.reports.data import PageData
from cinefeed.reports.page import inspect_page, run_page, table_page, write_report

__all__ = ["PageData", "inspect_page", "run_page", "table_page", "write_card", "write_report"]

"""Run, table or feed -> one self-contained HTML page. The extra `report`, matplotlib and jinja2, is imported late."""

from cinefeed.report.data import PageData
from cinefeed.report.page import inspect_page, run_page, table_page, write_report

__all__ = ["PageData", "inspect_page", "run_page", "table_page", "write_report"]

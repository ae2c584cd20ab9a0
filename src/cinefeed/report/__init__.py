"""Run or feed -> one self-contained HTML page. matplotlib and jinja2, the extra `report`, are imported where used."""

from cinefeed.report.data import PageData
from cinefeed.report.page import inspect_page, run_page, write_report

__all__ = ["PageData", "inspect_page", "run_page", "write_report"]

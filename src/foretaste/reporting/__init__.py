"""One HTML file about one run or several, for people who were not there."""

from foretaste.reporting.writing import write_report

__all__ = ["write_report"]

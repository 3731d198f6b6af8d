"""Draw saved records: JSON in, one offline page out; knows no room and needs no torch.

`write_report` is all that a user needs. A recipe that draws something new adds a figure of one
of the four kinds listed in this folder's README to its record.
"""

from lowland.report.write import write_report

__all__ = ["write_report"]

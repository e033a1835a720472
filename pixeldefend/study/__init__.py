"""What the paper measured: its grid of conditions, records of what was measured here, figures and tables."""

from .conditions import PROFILES, Condition
from .lab import Lab
from .records import Record, load_record, save_record

__all__ = ["PROFILES", "Condition", "Lab", "Record", "load_record", "save_record"]

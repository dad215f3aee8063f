"""The ledger: a sampled, bounded record of what a run contrasted with what, in `RUN/ledger/part-000000.parquet` ..."""

from onca.ledger.look import FLAGS
from onca.ledger.parts import COLUMNS, read
from onca.ledger.record import Ledger

__all__ = ["COLUMNS", "FLAGS", "Ledger", "read"]

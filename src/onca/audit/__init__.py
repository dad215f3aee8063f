"""Who the negatives were: of a run, a checkpoint, a file of embeddings, or anyone's loss."""

from onca.audit.audit import Audit
from onca.audit.embeddings import audit_embeddings
from onca.audit.finding import Finding, alarms, exit_code, read_audit, text, write_audit
from onca.audit.looks import Call, bank, handed_back
from onca.audit.run import FILE, audit_run, finish, of_run
from onca.audit.watch import Watch, watch

__all__ = [
    "FILE",
    "Audit",
    "Call",
    "Finding",
    "Watch",
    "alarms",
    "audit_embeddings",
    "audit_run",
    "bank",
    "exit_code",
    "finish",
    "handed_back",
    "of_run",
    "read_audit",
    "text",
    "watch",
    "write_audit",
]

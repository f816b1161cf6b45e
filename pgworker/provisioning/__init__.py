"""What a job does: workflow, phases and the ledger of their effects."""

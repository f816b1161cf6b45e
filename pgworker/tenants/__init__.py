"""What a job does: phases, providers, schema, secrets."""

"""How a job is claimed, kept, repeated, ended. Knows no tenants."""

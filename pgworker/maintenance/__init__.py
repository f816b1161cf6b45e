"""What people run over many tenants."""

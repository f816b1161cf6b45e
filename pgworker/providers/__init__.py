"""Where tenants come from."""

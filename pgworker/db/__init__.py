"""Pool, named queries, migrations of our own schema, LISTEN, the embedded server."""

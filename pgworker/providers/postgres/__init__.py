"""Databases of their own on a PostgreSQL server."""

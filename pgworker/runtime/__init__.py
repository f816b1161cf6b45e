"""Puts a process together."""

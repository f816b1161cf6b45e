"""The command line: a module for each group of commands. It holds no logic of its own.

A command reads its input, calls the library once, and shows what comes back. The library doesn't
know this package: a program that embeds pgworker never imports it.
"""

"""The command line. It reads input, calls the library, shows the result."""

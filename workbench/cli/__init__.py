"""The command line: one module per subcommand, put together in `main`."""

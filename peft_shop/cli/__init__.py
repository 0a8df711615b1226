"""The command line: options <-> question, exit codes; one file a command."""

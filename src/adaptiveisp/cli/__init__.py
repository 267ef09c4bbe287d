"""The command line: parser, commands, console, exit codes."""

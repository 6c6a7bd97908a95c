"""What the program stands on: threads, memory, signals, files and their names, settings, machine code of loops."""

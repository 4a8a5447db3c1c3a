"""From C to machine code: the compiler, what it is told, and a cache of what it made."""

"""Language models beside llama.cpp: speed, memory, and what quantizing costs."""

"""From prompts to text with a compiled decoder; numpy alone."""

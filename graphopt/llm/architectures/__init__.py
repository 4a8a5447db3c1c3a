"""Classes of language models, a file each: names in every format, and what their layers compute."""

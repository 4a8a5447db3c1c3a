"""From token ids to words, marks and times; hotwords; all of it by FunASR's rules."""

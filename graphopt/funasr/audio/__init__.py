"""From recordings to the features of a model, and from scores of frames to speech."""

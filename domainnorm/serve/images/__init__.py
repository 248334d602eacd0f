"""Images that a finished run is shown: which there are, what is told of them, how they are read."""

"""Other sequences that a history could have been, made where the history lies."""

"""What all recommenders share: the contract, the training loop, files, ranking."""

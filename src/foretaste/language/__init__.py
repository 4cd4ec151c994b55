"""Item text to vectors: TF-IDF with SVD, sentence models, any embeddings endpoint."""

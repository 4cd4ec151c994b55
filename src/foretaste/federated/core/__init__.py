"""What all federated methods share."""

"""Answers in milliseconds: a trained run as a service, and what it keeps of every user."""

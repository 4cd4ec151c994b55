"""Networks' parts: plain modules and functions that know nothing of data, serving or federation."""

"""Where nodes run: in this process, in Flower's simulation, in a Flower deployment."""

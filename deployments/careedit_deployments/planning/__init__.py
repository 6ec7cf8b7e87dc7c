"""How many replicas, GPUs and how much money a load takes: the serving graph as a discrete-event simulation."""

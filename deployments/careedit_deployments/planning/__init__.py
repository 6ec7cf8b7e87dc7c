"""Replicas, GPUs and cost for a load, by a discrete-event simulation of the served platform."""

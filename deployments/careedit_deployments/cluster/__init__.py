"""What uses Ray Serve: the ingress and router deployments, their handles, and the lifecycle of an application."""

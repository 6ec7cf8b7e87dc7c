"""Ray Serve's side: the deployments, their handles, and how an application starts and ends."""

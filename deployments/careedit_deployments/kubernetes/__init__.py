"""Manifests for Kubernetes, generated from `deployments/config` and `k8s/overlays/*/cluster.yaml`: `careedit k8s render`."""

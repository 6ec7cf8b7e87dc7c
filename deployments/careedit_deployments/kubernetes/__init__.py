"""Manifests for Kubernetes, made from `deployments/config` and `k8s/overlays/*/cluster.yaml`: `careedit k8s render`."""

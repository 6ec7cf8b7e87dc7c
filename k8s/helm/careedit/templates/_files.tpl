{{/*
The objects of a file of Kustomize's base or components, changed as an overlay changes them: namespace, image, region, storage
class, secret store, networks, address. The file is the only copy; a change of it changes the overlays and this chart.
Takes root and path.
*/}}
{{- define "careedit.file" -}}
{{- $root := .root }}
{{- $values := .root.Values }}
{{- $text := $root.Files.Get (printf "files/%s" .path) | required (printf "The chart lacks files/%s." .path) }}
{{- $text = regexReplaceAll "kubernetes.io/metadata.name: kuberay\\b" $text (printf "kubernetes.io/metadata.name: %s" $values.namespaces.operator) }}
{{- $text = regexReplaceAll "kubernetes.io/metadata.name: monitoring\\b" $text (printf "kubernetes.io/metadata.name: %s" $values.namespaces.monitoring) }}
{{- $text = regexReplaceAll "kubernetes.io/metadata.name: istio-system\\b" $text (printf "kubernetes.io/metadata.name: %s" $values.namespaces.gateway) }}
{{- $private := list }}
{{- range $values.private_networks }}{{ $private = append $private (dict "ipBlock" (dict "cidr" .)) }}{{ end }}
{{- $stores := list }}
{{- range $values.store_networks }}{{ $stores = append $stores (dict "ipBlock" (dict "cidr" .)) }}{{ end }}
{{- range $document := splitList "\n---\n" $text }}
{{- $one := fromYaml $document }}
{{- if $one.Error }}{{ fail (printf "files/%s: %s" $.path $one.Error) }}{{ end }}
{{- $name := $one.metadata.name }}
{{- $id := printf "%s/%s" $one.kind $name }}
{{- if eq $one.kind "Namespace" }}
{{- $_ := set $one.metadata "name" $root.Release.Namespace }}
{{- else if ne $one.kind "PriorityClass" }}
{{- $_ := set $one.metadata "namespace" $root.Release.Namespace }}
{{- end }}
{{- if eq $one.kind "RoleBinding" }}
{{- range $one.subjects }}{{ $_ := set . "namespace" $root.Release.Namespace }}{{ end }}
{{- else if has $one.kind (list "Job" "StatefulSet") }}
{{- $spec := $one.spec.template.spec }}
{{- range concat ($spec.initContainers | default list) $spec.containers }}
{{- if eq .image "careedit" }}{{ $_ := set . "image" $values.image }}{{ end }}
{{- end }}
{{- with $values.region }}{{ $_ := set $spec "nodeSelector" (dict "topology.kubernetes.io/region" .) }}{{ end }}
{{- if and (eq $id "Job/pull-models") $values.hub_endpoint }}
{{- $models := first $spec.containers }}
{{- $_ := set $models "env" (append $models.env (dict "name" "HF_ENDPOINT" "value" $values.hub_endpoint)) }}
{{- end }}
{{- with $values.storage_class }}
{{- range $one.spec.volumeClaimTemplates }}{{ $_ := set .spec "storageClassName" $values.storage_class }}{{ end }}
{{- end }}
{{- else if eq $one.kind "PersistentVolumeClaim" }}
{{- with $values.storage_class }}{{ $_ := set $one.spec "storageClassName" . }}{{ end }}
{{- else if eq $one.kind "ExternalSecret" }}
{{- $_ := set $one.spec.secretStoreRef "name" $values.secret_store }}
{{- else if eq $one.kind "Gateway" }}
{{- $_ := set $one.spec "gatewayClassName" ($values.edge.gateway_class | default "istio") }}
{{- range $one.spec.listeners }}{{ $_ := set . "hostname" $values.edge.hostname }}{{ end }}
{{- else if eq $one.kind "HTTPRoute" }}
{{- $_ := set $one.spec "hostnames" (list $values.edge.hostname) }}
{{- if kindIs "map" $values.upgrade }}
{{- $gateway := dict "name" (printf "careedit-gateway-%s" ($values.upgrade.gateway_class | default "istio")) "port" 80 }}
{{- $_ := set (first $one.spec.rules) "backendRefs" (list $gateway) }}
{{- end }}
{{- else if eq $id "NetworkPolicy/kubernetes-api" }}
{{- $_ := set (first $one.spec.egress) "to" $private }}
{{- else if and (eq $id "NetworkPolicy/pull-models") (not $values.internet) }}
{{- $_ := set (first $one.spec.egress) "to" $private }}
{{- else if and (eq $id "NetworkPolicy/to-stores") (eq $values.stores "managed") }}
{{- $_ := set (first $one.spec.egress) "to" $stores }}
{{- end }}
{{- if or $values.internet (ne $id "NetworkPolicy/webhooks") }}
---
{{ toYaml $one }}
{{- end }}
{{- end }}
{{- end }}

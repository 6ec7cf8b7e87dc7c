{{/* Labels of a component, for the selectors of policies, budgets and monitors. */}}
{{- define "careedit.labels" -}}
app.kubernetes.io/part-of: careedit
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* metadata of an object: root, name, component. */}}
{{- define "careedit.metadata" -}}
name: {{ .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "careedit.labels" .component | nindent 2 }}
{{- end }}

{{- define "careedit.containerSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "careedit.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{/* Requests and limits, which are equal: a mapping of amounts. */}}
{{- define "careedit.amounts" -}}
requests:
  {{- toYaml . | nindent 2 }}
limits:
  {{- toYaml . | nindent 2 }}
{{- end }}

{{/* Requests and limits of a Ray pod: cpus, gpus, memory, disk. */}}
{{- define "careedit.resources" -}}
{{- $amounts := dict "cpu" (.cpus | toString) "memory" .memory "ephemeral-storage" (.disk | default "10Gi") }}
{{- if .gpus }}{{ $_ := set $amounts "nvidia.com/gpu" (.gpus | toString) }}{{ end }}
{{- include "careedit.amounts" $amounts }}
{{- end }}

{{/* The annotation with which checkov accepts a pod that has a Kubernetes token. */}}
{{- define "careedit.withToken" -}}
checkov.io/skip1: CKV_K8S_38=it talks to Kubernetes, and its Role allows little
{{- end }}

{{/* Words of a command as one line of a shell. */}}
{{- define "careedit.shell" -}}
{{- $words := list }}
{{- range . }}
{{- $word := . }}
{{- if not (regexMatch "^[a-zA-Z0-9@%+=:,./_-]+$" $word) }}{{ $word = printf "'%s'" (replace "'" "'\"'\"'" $word) }}{{ end }}
{{- $words = append $words $word }}
{{- end }}
{{- join " " $words }}
{{- end }}

{{/* What the schema cannot say: groups that exist, pods and times in their order. */}}
{{- define "careedit.check" -}}
{{- range $part, $group := .Values.placement }}
{{- if not (hasKey $.Values.groups $group) }}
{{- fail (printf "placement puts %s into the group %q, which does not exist; choose one of %s." $part $group (keys $.Values.groups | sortAlpha | join ", ")) }}
{{- end }}
{{- end }}
{{- range $name, $group := .Values.groups }}
{{- $min := hasKey $group "min_pods" | ternary $group.min_pods 1 | int }}
{{- if gt $min ($group.max_pods | default 1 | int) }}
{{- fail (printf "groups.%s: min_pods is %d and max_pods %d; min_pods must not be larger." $name $min ($group.max_pods | default 1 | int)) }}
{{- end }}
{{- end }}
{{- if not (.Files.Get (printf "files/config/%s" .Values.config)) }}
{{- fail (printf "config is %q, and the chart has no such file in files/config." .Values.config) }}
{{- end }}
{{- with .Values.nightly }}
{{- if and (eq (.kind | default "RayCronJob") "RayCronJob") (ge (.deadline_s | default 21600 | int) 86400) }}
{{- fail (printf "deadline_s of nightly is %d; give less than a day, or two runs overlap." (.deadline_s | int)) }}
{{- end }}
{{- end }}
{{- end }}

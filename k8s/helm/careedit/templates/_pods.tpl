{{/* One container of Ray: root, name, pod (its size), ports, ready (probe), failures (of readiness), stores, mounts. */}}
{{- define "careedit.container" -}}
{{- $values := .root.Values }}
{{- $environment := dict
  "DO_NOT_TRACK" "true"
  "HOME" "/tmp"
  "RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH" "careedit_deployments.cluster.proxy:middlewares"
  "RAY_SERVE_PROXY_HEALTH_CHECK_PERIOD_S" "1"
  "RAY_SERVE_PROXY_HEALTH_CHECK_TIMEOUT_S" "60"
  "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S" "60"
  "RAY_SERVE_REPLICA_GRPC_MAX_MESSAGE_LENGTH" "2147483647"
  "RAY_SERVE_REQUEST_LATENCY_BUCKETS_MS" "5,10,25,50,100,250,500,750,1000,1500,2000,3000,4000,5000,6000,8000,10000,12500,15000,20000,25000,30000,40000,50000,60000,90000,120000,180000,300000,600000"
  "RAY_SERVE_USE_GRPC_BY_DEFAULT" "1"
  "RAY_USAGE_STATS_ENABLED" "0"
  "RAY_USAGE_STATS_REPORT_URL" "http://127.0.0.1:9/"
  "RAY_worker_niceness" "0" }}
{{- if $values.models }}{{ $environment = merge $environment (dict "HF_HOME" "/models/hf" "HF_HUB_OFFLINE" "1") }}{{ end -}}
name: {{ .name }}
image: {{ $values.image }}
imagePullPolicy: IfNotPresent
env:
  {{- range $name, $value := $environment }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
  {{- if .stores }}
  {{- range $name, $value := $values.environment }}
  - {name: {{ $name }}, value: {{ $value | quote }}}
  {{- end }}
envFrom:
  - secretRef: {name: careedit-stores}
  {{- end }}
ports:
  {{- range $port := .ports }}
  - {name: {{ first $port }}, containerPort: {{ last $port }}}
  {{- end }}
resources:
  {{- include "careedit.resources" .pod | nindent 2 }}
securityContext:
  {{- include "careedit.containerSecurity" . | nindent 2 }}
startupProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: 60
readinessProbe:
  httpGet: {{ toJson .ready }}
  periodSeconds: 5
  timeoutSeconds: 5
  failureThreshold: {{ .failures }}
livenessProbe:
  httpGet: {path: /api/healthz, port: 52365}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 12
volumeMounts:
  - {name: tmp, mountPath: /tmp}
  - {name: shm, mountPath: /dev/shm}
  {{- if $values.models }}
  - {name: models, mountPath: /models, readOnly: true}
  {{- end }}
  {{- range .mounts }}
  - {{ toJson . }}
  {{- end }}
{{- end }}

{{/* Volumes and tolerations of a Ray pod: root, pod, volumes (more of them). */}}
{{- define "careedit.volumes" -}}
volumes:
  - {name: tmp, emptyDir: {sizeLimit: {{ .pod.disk | default "10Gi" }}}}
  - {name: shm, emptyDir: {medium: Memory, sizeLimit: {{ .pod.shared_memory | default "2Gi" }}}}
  {{- if .root.Values.models }}
  - {name: models, persistentVolumeClaim: {claimName: model-cache, readOnly: true}}
  {{- end }}
  {{- range .volumes }}
  - {{ toJson . }}
  {{- end }}
{{- if .pod.gpus }}
tolerations:
  - {key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}
{{- end }}
{{- end }}

{{/* nodeSelector of a pod: root, selector (labels of a group). The region has priority. */}}
{{- define "careedit.nodeSelector" -}}
{{- $selector := .selector | default dict | deepCopy }}
{{- with .root.Values.region }}{{ $_ := set $selector "topology.kubernetes.io/region" . }}{{ end }}
{{- with $selector -}}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Spec of a head: root, pod, account, priority, token, and what its container takes. */}}
{{- define "careedit.headSpec" -}}
{{- $ports := list (list "gcs" 6379) (list "dashboard" 8265) (list "metrics" 8080) }}
{{- $ready := dict "path" "/api/healthz" "port" 52365 -}}
serviceAccountName: {{ .account }}
automountServiceAccountToken: {{ .token }}
priorityClassName: {{ .priority }}
securityContext:
  {{- include "careedit.podSecurity" . | nindent 2 }}
containers:
  -
    {{- include "careedit.container" (merge (dict "name" "ray-head" "ports" $ports "ready" $ready "failures" 10) .) | nindent 4 }}
{{ include "careedit.volumes" . }}
{{- with include "careedit.nodeSelector" . }}{{ . | nindent 0 }}{{ end }}
{{- end }}

{{/* One worker group: root, name, group, serves (has a Serve proxy), account, priority, mounts, volumes. */}}
{{- define "careedit.workerGroup" -}}
{{- $group := .group }}
{{- $min := hasKey $group "min_pods" | ternary $group.min_pods 1 }}
{{- $entry := eq .name (.root.Values.placement.ingress | default "") }}
{{- $mounts := .mounts | default list }}
{{- $volumes := .volumes | default list }}
{{- if $entry }}
{{- $mounts = prepend $mounts (dict "name" "config" "mountPath" "/etc/careedit/serving" "readOnly" true) }}
{{- $volumes = prepend $volumes (dict "name" "config" "configMap" (dict "name" "careedit-config")) }}
{{- end }}
{{- $ports := list (list "metrics" 8080) }}
{{- $ready := dict "path" "/api/healthz" "port" 52365 }}
{{- if .serves }}
{{- $ports = prepend $ports (list "serve" 8000) }}
{{- $ready = dict "path" "/-/healthz" "port" 8000 }}
{{- end }}
{{- $container := dict "root" .root "name" "ray-worker" "pod" $group.pod "ports" $ports "ready" $ready "failures" 1 "stores" $entry "mounts" $mounts -}}
groupName: {{ .name }}
replicas: {{ $min }}
minReplicas: {{ $min }}
maxReplicas: {{ $group.max_pods | default 1 }}
idleTimeoutSeconds: {{ $group.idle_s | default 300 }}
resources:
  CPU: {{ $group.pod.cpus | toString | quote }}
  {{ printf "group-%s" .name }}: "1"
  {{- if $group.pod.gpus }}
  GPU: {{ $group.pod.gpus | toString | quote }}
  {{- end }}
rayStartParams:
  metrics-export-port: "8080"
template:
  metadata:
    labels:
      {{- include "careedit.labels" .name | nindent 6 }}
  spec:
    serviceAccountName: {{ .account }}
    automountServiceAccountToken: false
    priorityClassName: {{ .priority }}
    securityContext:
      {{- include "careedit.podSecurity" . | nindent 6 }}
    containers:
      -
        {{- include "careedit.container" $container | nindent 8 }}
    {{- include "careedit.volumes" (dict "root" .root "pod" $group.pod "volumes" $volumes) | nindent 4 }}
    terminationGracePeriodSeconds: {{ add (int .root.Values.longest_edit_s) 60 }}
    {{- with include "careedit.nodeSelector" (dict "root" .root "selector" $group.node_selector) }}{{ . | nindent 4 }}{{ end }}
    topologySpreadConstraints:
      {{- range $key := list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
      - maxSkew: 1
        topologyKey: {{ $key }}
        whenUnsatisfiable: ScheduleAnyway
        labelSelector:
          matchLabels:
            {{- include "careedit.labels" $.name | nindent 12 }}
      {{- end }}
{{- end }}

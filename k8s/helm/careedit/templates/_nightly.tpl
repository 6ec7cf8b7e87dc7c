{{/* A RayJob: a small cluster that runs one command. */}}
{{- define "careedit.rayJob" -}}
{{- $nightly := .Values.nightly }}
{{- $mounts := list (dict "name" "results" "mountPath" "/results") }}
{{- $volumes := list (dict "name" "results" "persistentVolumeClaim" (dict "claimName" "careedit-results")) -}}
entrypoint: {{ include "careedit.shell" $nightly.command | quote }}
submissionMode: K8sJobMode # the submitter pod has the log and exit code of the run
backoffLimit: 0 # a second try would judge other traffic; `careedit eval` itself resumes
activeDeadlineSeconds: {{ $nightly.deadline_s | default 21600 | int }}
shutdownAfterJobFinishes: true
ttlSecondsAfterFinished: {{ $nightly.keep_s | default 604800 | int }}
submitterConfig:
  backoffLimit: 0
submitterPodTemplate:
  metadata:
    labels:
      {{- include "careedit.labels" "nightly" | nindent 6 }}
  spec:
    serviceAccountName: careedit-nightly
    automountServiceAccountToken: false
    restartPolicy: Never
    securityContext:
      {{- include "careedit.podSecurity" . | nindent 6 }}
    containers:
      - name: ray-job-submitter
        image: {{ .Values.image }}
        imagePullPolicy: IfNotPresent
        env:
          - {name: HOME, value: /tmp}
        resources:
          {{- include "careedit.amounts" (dict "cpu" "500m" "memory" "512Mi" "ephemeral-storage" "1Gi") | nindent 10 }}
        securityContext:
          {{- include "careedit.containerSecurity" . | nindent 10 }}
        volumeMounts:
          - {name: tmp, mountPath: /tmp}
    volumes:
      - {name: tmp, emptyDir: {sizeLimit: 1Gi}}
    {{- with include "careedit.nodeSelector" (dict "root" .) }}{{ . | nindent 4 }}{{ end }}
rayClusterSpec:
  rayVersion: 2.60.0
  authOptions:
    mode: token
  {{- if and .Values.ray_tls (eq ($nightly.kind | default "RayCronJob") "RayCronJob") }}
  tlsOptions:
    enabled: true
  {{- end }}
  headGroupSpec:
    rayStartParams:
      dashboard-host: 0.0.0.0
    template:
      metadata:
        labels:
          {{- include "careedit.labels" "nightly" | nindent 10 }}
      spec:
        {{- include "careedit.headSpec" (dict "root" . "pod" $nightly.head "account" "careedit-nightly" "priority" "careedit-batch" "token" false "stores" true "mounts" $mounts "volumes" $volumes) | nindent 8 }}
  workerGroupSpecs:
    {{- if $nightly.workers }}
    -
      {{- include "careedit.workerGroup" (dict "root" . "name" "nightly" "group" $nightly.workers "serves" false "account" "careedit-nightly" "priority" "careedit-batch" "mounts" $mounts "volumes" $volumes) | nindent 6 }}
    {{- else }} []
    {{- end }}
{{- end }}

{{/* A container that runs kubectl: name, args. Its image has no shell. */}}
{{- define "careedit.kubectl" -}}
name: {{ .name }}
image: registry.k8s.io/kubectl:v1.34.2
imagePullPolicy: IfNotPresent
args: {{ toJson .args }}
resources:
  {{- include "careedit.amounts" (dict "cpu" "50m" "memory" "64Mi") | nindent 2 }}
securityContext:
  {{- include "careedit.containerSecurity" . | nindent 2 }}
volumeMounts:
  - {name: job, mountPath: /job, readOnly: true}
{{- end }}

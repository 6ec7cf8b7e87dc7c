{{/*
Changes `below` by `above`, key by key; other values are replaced, also by 0, false and null, which Sprig's `mergeOverwrite`
may leave out.
*/}}
{{- define "careedit.merge" -}}
{{- range $key, $value := .above }}
{{- $old := get $.below $key }}
{{- if and (kindIs "map" $value) (kindIs "map" $old) }}
{{- include "careedit.merge" (dict "below" $old "above" $value) }}
{{- else }}
{{- $_ := set $.below $key $value }}
{{- end }}
{{- end }}
{{- end }}

{{/* The `ServeConfig` of this cluster as YAML: the file, changed by `settings`, with each replica tied to its group. */}}
{{- define "careedit.serveArgs" -}}
{{- $args := fromYaml (.Files.Get (printf "files/config/%s" .Values.config)) }}
{{- include "careedit.merge" (dict "below" $args "above" (.Values.settings | toYaml | fromYaml)) }}
{{- if ne (hasKey .Values.placement "encoder") (not (empty $args.encoder)) }}
{{- fail (printf "placement and %s must both name the encoder, or neither; add `encoder` to one, or remove it." .Values.config) }}
{{- end }}
{{- range $part, $group := .Values.placement }}
{{- $tie := dict "resources" (dict (printf "group-%s" $group) 0.001) }}
{{- $ties := eq $part "scorer" | ternary (dict "scorer" (dict "deployment" $tie)) (dict $part $tie) }}
{{- include "careedit.merge" (dict "below" $args "above" (deepCopy $ties)) }}
{{- if eq $part "expert" }}
{{- range $arm := $args.arms }}
{{- range $name, $_ := $arm.experts }}
{{- include "careedit.merge" (dict "below" $arm.experts "above" (dict $name (deepCopy $tie))) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- toYaml $args }}
{{- end }}

{{/* Serve's own configuration: the application and where it listens. */}}
{{- define "careedit.serveConfig" -}}
{{- $args := fromYaml (include "careedit.serveArgs" .) }}
proxy_location: EveryNode
http_options:
  host: 0.0.0.0 # the network policy `serve` restricts access
  port: 8000
  request_timeout_s: {{ addf (dig "limits" "deadline_s" 300 $args) 30 }} # longer than an edit's own deadline
  keep_alive_timeout_s: 75 # longer than a gateway's, which would otherwise send into a closed connection
logging_config:
  encoding: JSON
  log_level: {{ dig "telemetry" "log_level" "INFO" $args }}
  enable_access_log: true
applications:
  - name: {{ $args.name | default "careedit" }}
    route_prefix: /
    import_path: careedit_deployments.app:build_app
    args:
      {{- toYaml $args | nindent 6 }}
{{- end }}

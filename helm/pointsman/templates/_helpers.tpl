{{/* Names, labels, images: what every object shares. */}}

{{- define "pointsman.name" -}}
{{ .Values.nameOverride | default .Chart.Name | trunc 63 | trimSuffix "-" }}
{{- end -}}

{{- define "pointsman.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{ .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else -}}
{{- $name := include "pointsman.name" . -}}
{{ (contains $name .Release.Name | ternary .Release.Name (printf "%s-%s" .Release.Name $name)) | trunc 40 | trimSuffix "-" }}
{{- end -}}
{{- end -}}

{{- define "pointsman.selector" -}}
app.kubernetes.io/name: {{ include "pointsman.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{/* Of the pods that have the data and the admin port. */}}
{{- define "pointsman.routerSelector" -}}
{{ include "pointsman.selector" . }}
app.kubernetes.io/component: router
{{- end -}}

{{- define "pointsman.labels" -}}
{{ include "pointsman.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: pointsman
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- with .Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of a pod. (dict "root" $ "component" "router"). No version: an upgrade of the chart alone restarts nothing. */}}
{{- define "pointsman.podLabels" -}}
{{ include "pointsman.selector" .root }}
app.kubernetes.io/component: {{ .component }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- with .root.Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pointsman.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- define "pointsman.serviceAccount" -}}
{{ .Values.serviceAccount.name | default (.Values.serviceAccount.create | ternary (include "pointsman.fullname" .) "default") }}
{{- end -}}

{{- define "pointsman.configMap" -}}
{{ .Values.config.existingConfigMap | default (printf "%s-config" (include "pointsman.fullname" .)) }}
{{- end -}}

{{- define "pointsman.dataClaim" -}}
{{ .Values.data.existingClaim | default (printf "%s-data" (include "pointsman.fullname" .)) }}
{{- end -}}

{{/* "true" where something is kept on the data volume. */}}
{{- define "pointsman.keepsData" -}}
{{- if or .Values.decisionLog.enabled (eq .Values.ledger.type "file") -}}true{{- end -}}
{{- end -}}

{{- define "pointsman.kind" -}}
{{- if eq .Values.engine "ray" -}}RayService{{- else if eq .Values.role "edge" -}}DaemonSet{{- else -}}Deployment{{- end -}}
{{- end -}}

{{/* "true" where there may be more than one router pod. */}}
{{- define "pointsman.severalPods" -}}
{{- $kind := include "pointsman.kind" . -}}
{{- if or (eq $kind "DaemonSet") (and (eq $kind "RayService") (or (gt (int .Values.ray.router.replicas) 1) .Values.ray.autoscaler)) (and (eq $kind "Deployment") (or .Values.autoscaling.enabled (gt (int .Values.replicas) 1))) -}}true{{- end -}}
{{- end -}}

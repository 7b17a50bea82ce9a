{{- define "pointsman.servez" -}}
Whether it takes requests. Not /readyz: a router whose backends are all down still says so clearly, and must not be taken out.
{{- end -}}

{{/* The pod of the local engine, for Deployment and DaemonSet alike. */}}
{{- define "pointsman.flags" -}}
{{- $settings := include "pointsman.settings" . | fromYaml -}}
- serve
- /etc/pointsman
- --engine=local
{{- range $name, $value := $settings }}
{{- /* YAML's numbers are floats here, and a large one would be written as 2e+07. */ -}}
{{- if and (kindIs "float64" $value) (eq $value (floor $value)) }}
{{- $value = int64 $value }}
{{- end }}
{{- if eq (toString $value) "true" }}
- --{{ $name | replace "_" "-" }}
{{- else }}
- {{ printf "--%s=%v" ($name | replace "_" "-") $value | quote }}
{{- end }}
{{- end }}
{{- end -}}

{{- define "pointsman.localPod" -}}
metadata:
  labels:
    {{- include "pointsman.podLabels" (dict "root" . "component" "router") | nindent 4 }}
  {{- with .Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "pointsman.podSpec" . | nindent 2 }}
  automountServiceAccountToken: false
  volumes:
    {{- include "pointsman.volumes" . | nindent 4 }}
  initContainers:
    {{- include "pointsman.initContainers" . | nindent 4 }}
  containers:
    - name: router
      {{- include "pointsman.container" . | nindent 6 }}
      command: [pointsman]
      args:
        {{- include "pointsman.flags" . | nindent 8 }}
      env:
        {{- include "pointsman.env" . | nindent 8 }}
      ports:
        - name: data
          containerPort: 8000
          {{- if and (eq .Values.role "edge") .Values.edge.hostPort }}
          hostPort: {{ .Values.edge.hostPort | int }}
          {{- end }}
        - {name: admin, containerPort: 8001}
      # A start reads models, so it may take two minutes. After it, liveness asks whether the process answers.
      startupProbe:
        httpGet: {path: /healthz, port: data}
        periodSeconds: 2
        failureThreshold: 60
      livenessProbe:
        httpGet: {path: /healthz, port: admin}
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 6
      # {{ include "pointsman.servez" . }}
      readinessProbe:
        httpGet: {path: /servez, port: data}
        periodSeconds: 2
        timeoutSeconds: 2
        failureThreshold: 1
      resources:
        {{- toYaml .Values.resources | nindent 8 }}
      volumeMounts:
        {{- include "pointsman.mounts" . | nindent 8 }}
{{- end -}}

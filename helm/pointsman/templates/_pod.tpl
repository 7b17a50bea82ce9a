{{/* What all pods share: settings of the router, variables, volumes, containers that check first. */}}

{{/*
What `pointsman serve` is told, by the names of its flags with underscores; as a list of flags it is the local engine's command line,
as a mapping the arguments of the application that Ray Serve builds.
*/}}
{{- define "pointsman.adminToken" -}}
/run/secrets/pointsman/admin/{{ .Values.adminToken.key }}
{{- end -}}

{{- define "pointsman.settings" -}}
{{- $v := .Values -}}
host: 0.0.0.0
port: 8000
admin_host: 0.0.0.0
admin_port: 8001
admin_token_file: {{ include "pointsman.adminToken" . }}
{{- if $v.serve.allowAnonymous }}
allow_anonymous: true
{{- end }}
drain_delay: {{ $v.serve.drainDelay }}
drain: {{ $v.serve.drain }}
deadline: {{ $v.serve.deadline }}
watch: {{ $v.serve.watch }}
max_body: {{ $v.serve.maxBody }}
max_bodies: {{ $v.serve.maxBodies }}
seed: {{ $v.serve.seed | int64 }}
log_format: {{ $v.serve.logFormat }}
log_level: {{ $v.serve.logLevel }}
{{- with $v.serve.candidate }}
candidate: /etc/pointsman/{{ . }}
{{- end }}
{{- if $v.decisionLog.enabled }}
decision_log: /var/lib/pointsman/log
decision_log_size: {{ $v.decisionLog.fileSize }}
decision_log_keep: {{ $v.decisionLog.keepFiles | int64 }}
{{- end }}
{{- if eq $v.ledger.type "file" }}
ledger: /var/lib/pointsman/ledger/ledger
{{- else if and (eq $v.ledger.type "redis") $v.ledger.redis.existingSecret }}
ledger_env: POINTSMAN_LEDGER_URL
{{- else if eq $v.ledger.type "redis" }}
ledger: {{ $v.ledger.redis.url }}
{{- end }}
{{- with $v.telemetry.otlp.endpoint }}
otlp_endpoint: {{ . }}
trace_share: {{ $v.telemetry.otlp.share }}
{{- end }}
{{- end -}}

{{/* Of every container: nothing of it is secret. */}}
{{- define "pointsman.plainEnv" -}}
- {name: HOME, value: /tmp}
- {name: PYTHONDONTWRITEBYTECODE, value: "1"}
- name: POD_NAME
  valueFrom: {fieldRef: {fieldPath: metadata.name}}
{{- range $name, $value := .Values.config.env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{/* Of containers that hold the configuration: with the keys. */}}
{{- define "pointsman.env" -}}
{{ include "pointsman.plainEnv" . }}
{{- range $name, $from := .Values.secrets.env }}
- name: {{ $name }}
  valueFrom: {secretKeyRef: {name: {{ $from.secret }}, key: {{ $from.key | quote }}}}
{{- end }}
{{- if and (eq .Values.ledger.type "redis") .Values.ledger.redis.existingSecret }}
- name: POINTSMAN_LEDGER_URL
  valueFrom: {secretKeyRef: {name: {{ .Values.ledger.redis.existingSecret }}, key: {{ .Values.ledger.redis.key | quote }}}}
{{- end }}
{{- with .Values.telemetry.otlp.headers }}
- name: OTEL_EXPORTER_OTLP_HEADERS
  valueFrom: {secretKeyRef: {name: {{ .secret }}, key: {{ .key | quote }}}}
{{- end }}
{{- end -}}

{{- define "pointsman.plainMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* Of the containers that only read the configuration. */}}
{{- define "pointsman.checkMounts" -}}
- {name: config, mountPath: /etc/pointsman, readOnly: true}
{{ include "pointsman.plainMounts" . }}
{{- end -}}

{{- define "pointsman.mounts" -}}
{{ include "pointsman.checkMounts" . }}
- {name: admin-token, mountPath: /run/secrets/pointsman/admin, readOnly: true}
{{- range concat .Values.secrets.files .Values.secrets.csi }}
- {name: secret-{{ .name | replace "." "-" }}, mountPath: /run/secrets/pointsman/{{ .name }}, readOnly: true}
{{- end }}
{{- if .Values.decisionLog.enabled }}
# A folder for each pod: two that wrote to one would break its chain.
- {name: data, mountPath: /var/lib/pointsman/log, subPathExpr: log/$(POD_NAME)}
{{- end }}
{{- if eq .Values.ledger.type "file" }}
- {name: data, mountPath: /var/lib/pointsman/ledger, subPath: ledger}
{{- end }}
{{- end -}}

{{- define "pointsman.plainVolumes" -}}
- name: tmp
  emptyDir: {sizeLimit: {{ .Values.tmpSize }}}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "pointsman.volumes" -}}
{{ include "pointsman.plainVolumes" . }}
# A folder and never a subPath: only so do changes of the ConfigMap arrive.
- name: config
  configMap: {name: {{ include "pointsman.configMap" . }}}
- name: admin-token
  secret: {secretName: {{ .Values.adminToken.existingSecret }}, defaultMode: 0440}
{{- range .Values.secrets.files }}
- name: secret-{{ .name | replace "." "-" }}
  secret: {secretName: {{ .secret }}, defaultMode: 0440}
{{- end }}
{{- range .Values.secrets.csi }}
- name: secret-{{ .name | replace "." "-" }}
  csi:
    driver: secrets-store.csi.k8s.io
    readOnly: true
    volumeAttributes: {secretProviderClass: {{ .secretProviderClass }}}
{{- end }}
{{- if include "pointsman.keepsData" . }}
- name: data
  {{- if eq .Values.data.type "pvc" }}
  persistentVolumeClaim: {claimName: {{ include "pointsman.dataClaim" . }}}
  {{- else }}
  emptyDir: {sizeLimit: {{ .Values.data.size }}}
  {{- end }}
{{- end }}
{{- end -}}

{{- define "pointsman.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ .Values.runAsUser | int64 }}
runAsGroup: {{ .Values.runAsUser | int64 }}
fsGroup: {{ .Values.fsGroup | int64 }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "pointsman.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
runAsNonRoot: true
capabilities: {drop: [ALL]}
seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{/* What every container has. */}}
{{- define "pointsman.container" -}}
image: {{ include "pointsman.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "pointsman.containerSecurity" . | nindent 2 }}
{{- end -}}

{{/* Before anything serves: the files are right, and the policy does what its tests say. Their logs hold the reasons. */}}
{{- define "pointsman.initContainers" -}}
{{ include "pointsman.checkContainer" . }}
{{- if .Values.config.check.requireTests }}
{{ include "pointsman.testContainer" . }}
{{- end }}
{{- end -}}

{{/* To check, a key need not be there: only what the files name as ${NAME}, and a missing one of those is told. */}}
{{- define "pointsman.checkEnv" -}}
{{ include "pointsman.env" . | replace "secretKeyRef: {" "secretKeyRef: {optional: true, " }}
{{- end -}}

{{- define "pointsman.checkContainer" -}}
- name: check
  {{- include "pointsman.container" . | nindent 2 }}
  command: [pointsman]
  args: [check, {{ if .Values.config.check.strict }}--strict, {{ end }}/etc/pointsman]
  env:
    {{- include "pointsman.checkEnv" . | nindent 4 }}
  resources:
    {{- toYaml .Values.checkResources | nindent 4 }}
  volumeMounts:
    {{- include "pointsman.checkMounts" . | nindent 4 }}
{{- end -}}

{{- define "pointsman.testContainer" -}}
{{- $check := .Values.config.check -}}
- name: test
  {{- include "pointsman.container" . | nindent 2 }}
  command: [pointsman]
  args: [test, --coverage{{ if $check.coverage }}, --fail-under, {{ $check.coverage | quote }}{{ end }}, /etc/pointsman]
  env:
    {{- include "pointsman.checkEnv" . | nindent 4 }}
  resources:
    {{- toYaml .Values.checkResources | nindent 4 }}
  volumeMounts:
    {{- include "pointsman.checkMounts" . | nindent 4 }}
{{- end -}}

{{/* The files, as a ConfigMap holds them. */}}
{{- define "pointsman.configData" -}}
{{- range $name, $content := .Values.config.files }}
{{ $name }}: {{ if kindIs "string" $content }}{{ toJson $content }}{{ else }}{{ toYaml $content | toJson }}{{ end }}
{{- end }}
{{- end -}}

{{/* Of a pod's spec, what is the same everywhere. */}}
{{- define "pointsman.podSpec" -}}
serviceAccountName: {{ include "pointsman.serviceAccount" . }}
enableServiceLinks: false
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - name: {{ . }}
  {{- end }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
securityContext:
  {{- include "pointsman.podSecurity" . | nindent 2 }}
terminationGracePeriodSeconds: {{ add .Values.serve.drainDelay .Values.serve.drain 20 }}
{{- end -}}

{{- define "pointsman.spread" -}}
{{- with .Values.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- toYaml . | nindent 2 }}
{{- else }}
topologySpreadConstraints:
  {{- range list "topology.kubernetes.io/zone" "kubernetes.io/hostname" }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "pointsman.routerSelector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end -}}

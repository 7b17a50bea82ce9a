{{/* Parts of the RayService. */}}

{{/* Alike on the head and on workers: they must not be of two minds. */}}
{{- define "pointsman.rayEnv" -}}
{{- $own := dict "RAY_USAGE_STATS_ENABLED" "0" "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO" "0" "RAY_SERVE_LOG_TO_STDERR" "0" -}}
{{- range $name, $value := merge (dict) .Values.ray.env $own }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- end -}}

{{- define "pointsman.rayResource" -}}
{{- /* Ray wants JSON in quotes: the shell of KubeRay's start command takes the outer ones off. */ -}}
{{ printf "\"{\\\"%s\\\": 1}\"" . | squote }}
{{- end -}}

{{/* What Ray Serve is told: which application, with which settings, and where its replicas go. */}}
{{- define "pointsman.serveConfig" -}}
{{- $v := .Values -}}
# Ray's own proxy is off: each router replica has a listener of its own.
proxy_location: Disabled
# Nobody listens there. Not the routers' port: Ray would look whether it is free.
http_options: {host: 127.0.0.1, port: 18999}
logging_config: {log_level: WARNING, enable_access_log: false}
applications:
  - name: pointsman
    import_path: router.engines.ray.application:build
    route_prefix: null
    args:
      paths: [/etc/pointsman]
      {{- include "pointsman.settings" . | nindent 6 }}
      {{- with $v.ray.revision }}
      revision: {{ . | quote }}
      {{- end }}
    deployments:
      # One to a pod: the resource is there once in each pod of the router group, and nowhere else.
      - name: router
        {{- if $v.ray.autoscaler }}
        autoscaling_config:
          min_replicas: {{ $v.ray.router.replicas | int }}
          max_replicas: {{ max (int $v.ray.router.maxReplicas) (int $v.ray.router.replicas) }}
          target_ongoing_requests: {{ $v.ray.router.targetRequests }}
          # Ray Serve does not see the requests of routers with listeners of their own: they tell it.
          policy: {policy_function: "router.engines.ray.scaling:by_requests"}
          upscale_delay_s: 10
          downscale_delay_s: 300
        # A new version starts beside the old: the autoscaler makes room. Without it there is none, and one stops before the next starts.
        max_surge_percent: 100
        {{- else }}
        num_replicas: {{ $v.ray.router.replicas | int }}
        {{- end }}
        graceful_shutdown_timeout_s: {{ add $v.serve.drainDelay $v.serve.drain 5 }}
        ray_actor_options:
          num_cpus: 0.5
          resources: {pointsman_router: 1}
          # Ray builds the application on such a node as well, where the only selector of all deployments says so.
          label_selector: {pointsman-role: router}
      {{- range $group, $spec := $v.ray.groups }}
      {{- range $backend := $spec.backends }}
      - name: backend-{{ $backend }}
        num_replicas: {{ $spec.replicas | default 1 | int }}
        ray_actor_options:
          num_cpus: 0.1
          {{- with $spec.gpus }}
          # A share of the GPUs of a pod for each backend that runs there.
          num_gpus: {{ divf . (len $spec.backends) }}
          {{- end }}
          resources: {pointsman_{{ $group }}: {{ divf 1 (len $spec.backends) }}}
      {{- end }}
      {{- end }}
{{- end -}}

{{/* (dict "root" $ "component" … "nodeSelector" … "tolerations" …): metadata and the head of the spec of a pod of Ray. */}}
{{- define "pointsman.rayPod" -}}
metadata:
  labels:
    {{- include "pointsman.podLabels" . | nindent 4 }}
    pointsman/ray: "true"
  {{- with .root.Values.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- include "pointsman.podSpec" .root | nindent 2 }}
  {{- with .nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
{{- end -}}

{{/* Is Ray's own process well? KubeRay's probes would call a shell, and on workers ask Ray's proxy, which is off here. */}}
{{- define "pointsman.raylet" -}}
httpGet: {path: /api/healthz, port: 52365}
periodSeconds: 10
timeoutSeconds: 5
{{- end -}}

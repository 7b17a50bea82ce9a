{{/* What the schema cannot see: values that do not go together. All problems at once, each with what to do. */}}
{{- define "pointsman.validate" -}}
{{- $v := .Values -}}
{{- $kind := include "pointsman.kind" . -}}
{{- $wrong := list -}}
{{- if not $v.image.repository -}}
{{- $wrong = append $wrong "image.repository: no image is published. Build one and say where it is, such as registry.example.com/pointsman" -}}
{{- end -}}
{{- if not $v.adminToken.existingSecret -}}
{{- $wrong = append $wrong (printf "adminToken.existingSecret: the admin port listens beyond the pod and needs a token. Make a Secret and name it here: kubectl create secret generic pointsman-admin --namespace %s --from-literal=token=\"$(openssl rand -hex 32)\"" .Release.Namespace) -}}
{{- end -}}
{{- if and (eq $v.engine "ray") (eq $v.role "edge") -}}
{{- $wrong = append $wrong "role: edge needs engine: local. A DaemonSet of Ray is not built" -}}
{{- end -}}
{{- if and $v.config.files $v.config.existingConfigMap -}}
{{- $wrong = append $wrong "config: give either files or existingConfigMap" -}}
{{- end -}}
{{- if not (or $v.config.files $v.config.existingConfigMap) -}}
{{- $wrong = append $wrong "config.files: no fleet and no policy. Give your files: --set-file 'config.files.fleet\\.yaml=fleet.yaml', and so on" -}}
{{- end -}}
{{- $facts := include "pointsman.facts" . | fromYaml -}}
{{- $wrong = concat $wrong $facts.problems -}}
{{- if $v.config.files -}}
{{- if not $facts.fleets -}}
{{- if not $facts.problems -}}
{{- $wrong = append $wrong "config.files: no document of kind Fleet" -}}
{{- end -}}
{{- end -}}
{{- if and $facts.fleets (not $facts.tenants) (not $v.serve.allowAnonymous) -}}
{{- $wrong = append $wrong "config.files: no document of kind Tenants, and the router listens beyond its pod. Add tenants with keys (`pointsman key new`), or set serve.allowAnonymous" -}}
{{- end -}}
{{- if and $v.config.check.requireTests (not $facts.tests) -}}
{{- $wrong = append $wrong "config.files: no *_test.yaml. Add the tests of your policy, or set config.check.requireTests: false" -}}
{{- end -}}
{{- if and $v.serve.candidate (not (hasKey $v.config.files $v.serve.candidate)) -}}
{{- $wrong = append $wrong (printf "serve.candidate: no %s in config.files" $v.serve.candidate) -}}
{{- end -}}
{{- end -}}
{{- range $name, $text := $v.config.files -}}
{{- if and (not (kindIs "string" $text)) (not (regexMatch "[.]ya?ml([.]candidate)?$" $name)) -}}
{{- $wrong = append $wrong (printf "config.files.%s: a mapping is written as YAML, so its name must end in .yaml" $name) -}}
{{- end -}}
{{- end -}}
{{- $secret := dict -}}
{{- range $name := $facts.secretNames -}}
{{- if hasKey $v.config.env $name -}}
{{- $wrong = append $wrong (printf "config.env.%s: the files take a key from this variable, so it belongs in a Secret, under secrets.env" $name) -}}
{{- else if not (hasKey $v.secrets.env $name) -}}
{{- $wrong = append $wrong (printf "secrets.env.%s: the files take a key from this variable. Name the Secret that holds it: {secret: NAME, key: KEY}" $name) -}}
{{- end -}}
{{- end -}}
{{- range $name, $_ := $v.secrets.env -}}
{{- if hasKey $v.config.env $name -}}
{{- $wrong = append $wrong (printf "secrets.env.%s: also in config.env; which one wins would be luck" $name) -}}
{{- end -}}
{{- end -}}
{{- $folders := dict -}}
{{- range concat $v.secrets.files $v.secrets.csi -}}
{{- if hasKey $folders .name -}}
{{- $wrong = append $wrong (printf "secrets: two folders have the name %s" .name) -}}
{{- end -}}
{{- $_ := set $folders .name true -}}
{{- end -}}
{{- if has "admin" (keys $folders) -}}
{{- $wrong = append $wrong "secrets: the name admin is the admin token's" -}}
{{- end -}}
{{- if and (eq $v.ledger.type "file") (include "pointsman.severalPods" .) -}}
{{- $wrong = append $wrong "ledger.type: a file has one owner, and there may be several pods. Take redis, or replicas: 1" -}}
{{- end -}}
{{- if and (eq $v.ledger.type "redis") (not (or $v.ledger.redis.url $v.ledger.redis.existingSecret)) -}}
{{- $wrong = append $wrong "ledger.redis: give its url, or existingSecret where the URL has a password" -}}
{{- end -}}
{{- if and $v.ledger.redis.url $v.ledger.redis.existingSecret -}}
{{- $wrong = append $wrong "ledger.redis: give either url or existingSecret" -}}
{{- end -}}
{{- if and (eq $v.ledger.type "redis") $v.ledger.redis.existingSecret $v.networkPolicy.enabled (not $v.ledger.redis.address) -}}
{{- $wrong = append $wrong "ledger.redis.address: the network policy cannot see into the Secret. Give HOST:PORT of its URL" -}}
{{- end -}}
{{- if and (eq $v.data.type "pvc") (include "pointsman.keepsData" .) (include "pointsman.severalPods" .) (ne $v.data.accessMode "ReadWriteMany") (not $v.data.existingClaim) -}}
{{- $wrong = append $wrong "data.accessMode: several pods share the claim, so it must be ReadWriteMany" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (ne $kind "Deployment") -}}
{{- $wrong = append $wrong "autoscaling.enabled: only for engine local and role site. With engine ray use ray.autoscaler" -}}
{{- end -}}
{{- if and $v.autoscaling.enabled (lt (int $v.autoscaling.maxReplicas) (int $v.autoscaling.minReplicas)) -}}
{{- $wrong = append $wrong "autoscaling.maxReplicas: less than minReplicas" -}}
{{- end -}}
{{- if $v.ingress.enabled -}}
{{- if not $v.ingress.hosts -}}
{{- $wrong = append $wrong "ingress.hosts: for which names?" -}}
{{- end -}}
{{- if not (or $v.ingress.tlsSecret $v.ingress.allowPlaintext) -}}
{{- $wrong = append $wrong "ingress.tlsSecret: without TLS the callers' keys travel in clear. Name the Secret with the certificate, or set ingress.allowPlaintext" -}}
{{- end -}}
{{- end -}}
{{- if and $v.httpRoute.enabled (not $v.httpRoute.parentRefs) -}}
{{- $wrong = append $wrong "httpRoute.parentRefs: at which Gateway?" -}}
{{- end -}}
{{- if eq $v.engine "ray" -}}
{{- range $name, $_ := $v.ray.groups -}}
{{- if has $name (list "router" "head") -}}
{{- $wrong = append $wrong (printf "ray.groups.%s: this name is the chart's own" $name) -}}
{{- end -}}
{{- end -}}
{{- if $v.config.files -}}
{{- $placed := list -}}
{{- range $name, $group := $v.ray.groups -}}
{{- range $backend := $group.backends -}}
{{- if not (has $backend $facts.torch) -}}
{{- $wrong = append $wrong (printf "ray.groups.%s.backends: the fleet has no backend %s with protocol torch" $name $backend) -}}
{{- end -}}
{{- if has $backend $placed -}}
{{- $wrong = append $wrong (printf "ray.groups: the backend %s is in two of them" $backend) -}}
{{- end -}}
{{- $placed = append $placed $backend -}}
{{- end -}}
{{- end -}}
{{- range $backend := $facts.torch -}}
{{- if not (has $backend $placed) -}}
{{- $wrong = append $wrong (printf "ray.groups: none has the backend %s, which runs in a process of its own (torch)" $backend) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if eq $v.ledger.type "file" -}}
{{- $wrong = append $wrong "ledger.type: on Ray a file would be one node's. Take redis, or memory: then replicas share what lasts as long as the application" -}}
{{- end -}}
{{- if and $v.ray.gcsFaultTolerance.enabled (not $v.ray.gcsFaultTolerance.redisAddress) -}}
{{- $wrong = append $wrong "ray.gcsFaultTolerance.redisAddress: which Redis?" -}}
{{- end -}}
{{- if and $v.ray.autoscaler $v.networkPolicy.enabled (not $v.networkPolicy.apiServer) -}}
{{- $wrong = append $wrong "networkPolicy.apiServer: with ray.autoscaler the head asks the API server. Give its addresses as CIDRs: kubectl get endpointslices -n default -l kubernetes.io/service-name=kubernetes" -}}
{{- end -}}
{{- if eq $v.ray.upgrade.strategy "NewClusterWithIncrementalUpgrade" -}}
{{- if not $v.ray.autoscaler -}}
{{- $wrong = append $wrong "ray.upgrade.strategy: KubeRay wants ray.autoscaler for an incremental upgrade" -}}
{{- end -}}
{{- if not $v.ray.upgrade.gatewayClassName -}}
{{- $wrong = append $wrong "ray.upgrade.gatewayClassName: an incremental upgrade moves traffic through a Gateway; of which class?" -}}
{{- end -}}
{{- if $v.ray.groups -}}
{{- $wrong = append $wrong "ray.upgrade.strategy: KubeRay's Gateway sends requests to every worker pod, and pods of ray.groups have no data port. Take NewCluster" -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if $wrong -}}
{{- fail (printf "\n\nThese values do not go together:\n  - %s\n" (join "\n  - " (uniq $wrong))) -}}
{{- end -}}
{{- end -}}

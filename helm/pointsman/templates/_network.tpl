{{/*
Where the router may connect to, as egress rules. A network policy knows addresses and pods, and no names; so each host is one of:
  loopback                     another container of the pod: needs no rule
  an address                   ipBlock
  NAME.NAMESPACE.svc…          the pods of that namespace, or those that networkPolicy.services says
  NAME (no dot)                the same, in the release's namespace
  anything else                the CIDRs of networkPolicy.hosts, or a problem
*/}}

{{/* (dict "root" $ "who" … "url" … "out" (dict "rules" list "missing" list "problems" list)) adds to out. */}}
{{- define "pointsman.destination" -}}
{{- $np := .root.Values.networkPolicy -}}
{{- $out := .out -}}
{{- $parts := regexFind "^[a-z]+://(\\[[0-9a-fA-F:.]+\\]|[^/:?#@\\[\\]]+)(:[0-9]+)?(/|$|[?#])" .url -}}
{{- if not $parts -}}
{{- $_ := set $out "problems" (append $out.problems (printf "%s: '%s' is no URL that the network policy can be made from" .who (regexReplaceAll "//[^/]*@" .url "//…@"))) -}}
{{- else -}}
{{- $scheme := regexFind "^[a-z]+" $parts -}}
{{- $authority := regexReplaceAll "[/?#]$" (regexReplaceAll "^[a-z]+://" $parts "") "" -}}
{{- $host := regexReplaceAll ":[0-9]+$" $authority "" | lower | trimSuffix "." -}}
{{- $port := regexFind "[0-9]+$" (regexFind ":[0-9]+$" $authority) | default (get (dict "http" "80" "https" "443" "redis" "6379" "rediss" "6379") $scheme) | int -}}
{{- if hasPrefix "[" $host -}}
{{- $host = $host | trimPrefix "[" | trimSuffix "]" -}}
{{- end -}}
{{- $peers := list -}}
{{- $namespace := "" -}}
{{- if regexMatch "^[a-z0-9-]+$" $host -}}
{{- $namespace = .root.Release.Namespace -}}
{{- end -}}
{{- if regexMatch "^[a-z0-9-]+\\.[a-z0-9-]+\\.svc(\\.[a-z0-9.-]+)?$" $host -}}
{{- $namespace = index (splitList "." $host) 1 -}}
{{- end -}}
{{- if or (eq $host "localhost") (eq $host "::1") (regexMatch "^127\\.[0-9.]+$" $host) -}}
{{- /* the pod itself */ -}}
{{- else if regexMatch "^[0-9]+(\\.[0-9]+){3}$" $host -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (printf "%s/32" $host))) -}}
{{- else if contains ":" $host -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" (printf "%s/128" $host))) -}}
{{- else if hasKey $np.hosts $host -}}
{{- range get $np.hosts $host -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- else if or $namespace (hasKey $np.services $host) -}}
{{- $service := get $np.services $host | default dict -}}
{{- $namespace = $service.namespace | default $namespace -}}
{{- $peer := dict -}}
{{- if not $namespace -}}
{{- $_ := set $out "problems" (append $out.problems (printf "networkPolicy.services.%s: say its namespace, which its name does not" $host)) -}}
{{- else -}}
{{- $_ := set $peer "namespaceSelector" (dict "matchLabels" (dict "kubernetes.io/metadata.name" $namespace)) -}}
{{- end -}}
{{- with $service.podLabels -}}
{{- $_ := set $peer "podSelector" (dict "matchLabels" .) -}}
{{- end -}}
{{- $port = $service.port | default $port | int -}}
{{- $peers = append $peers $peer -}}
{{- else -}}
{{- $_ := set $out "missing" (append $out.missing (printf "%s (%s)" $host .who)) -}}
{{- end -}}
{{- if $peers -}}
{{- $rule := dict "to" $peers "ports" (list (dict "protocol" "TCP" "port" $port)) -}}
{{- if not (has $rule $out.rules) -}}
{{- $_ := set $out "rules" (append $out.rules $rule) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* The router's egress rules, but for DNS: backends, issuers' keys, the ledger's Redis, the collector of traces. */}}
{{- define "pointsman.egress" -}}
{{- $root := . -}}
{{- $v := .Values -}}
{{- $out := dict "rules" list "missing" list "problems" list -}}
{{- $facts := include "pointsman.facts" . | fromYaml -}}
{{- range $facts.urls -}}
{{- include "pointsman.destination" (dict "root" $root "who" .who "url" .url "out" $out) -}}
{{- end -}}
{{- if eq $v.ledger.type "redis" -}}
{{- $url := $v.ledger.redis.url | default (printf "redis://%s" $v.ledger.redis.address) -}}
{{- include "pointsman.destination" (dict "root" $root "who" "ledger.redis" "url" $url "out" $out) -}}
{{- end -}}
{{- with $v.telemetry.otlp.endpoint -}}
{{- include "pointsman.destination" (dict "root" $root "who" "telemetry.otlp.endpoint" "url" . "out" $out) -}}
{{- end -}}
{{- include "pointsman.refuse" $out -}}
{{- toYaml (dict "rules" (concat $out.rules $v.networkPolicy.extraEgress)) -}}
{{- end -}}

{{/* The head's, with its state in Redis and the autoscaler. */}}
{{- define "pointsman.headEgress" -}}
{{- $v := .Values -}}
{{- $out := dict "rules" list "missing" list "problems" list -}}
{{- if $v.ray.gcsFaultTolerance.enabled -}}
{{- include "pointsman.destination" (dict "root" . "who" "ray.gcsFaultTolerance.redisAddress" "url" (printf "redis://%s" $v.ray.gcsFaultTolerance.redisAddress) "out" $out) -}}
{{- end -}}
{{- include "pointsman.refuse" $out -}}
{{- $rules := $out.rules -}}
{{- if $v.ray.autoscaler -}}
{{- $peers := list -}}
{{- range $v.networkPolicy.apiServer -}}
{{- $peers = append $peers (dict "ipBlock" (dict "cidr" .)) -}}
{{- end -}}
{{- $rules = append $rules (dict "to" $peers "ports" (list (dict "protocol" "TCP" "port" 443) (dict "protocol" "TCP" "port" 6443))) -}}
{{- end -}}
{{- toYaml (dict "rules" $rules) -}}
{{- end -}}

{{- define "pointsman.refuse" -}}
{{- if .problems -}}
{{- fail (printf "\n\nThe network policy cannot be made:\n  - %s\n" (join "\n  - " .problems)) -}}
{{- end -}}
{{- if .missing -}}
{{- fail (printf "\n\nA network policy knows addresses and no names, and these hosts have no entry in networkPolicy.hosts:\n  - %s\n\nGive each its addresses: `networkPolicy: {hosts: {%s: [203.0.113.0/24]}}` with those that the host really has. If it is a Service of\nthis cluster, write NAME.NAMESPACE.svc in the fleet, or add it to networkPolicy.services. networkPolicy.enabled: false turns all of it off.\n" (join "\n  - " (uniq .missing)) (index (splitList " " (first .missing)) 0)) -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.dnsRule" -}}
{{- $dns := .Values.networkPolicy.dns -}}
- to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {{ $dns.namespace }}
      {{- with $dns.podLabels }}
      podSelector:
        matchLabels:
          {{- toYaml . | nindent 10 }}
      {{- end }}
    {{- range $dns.cidrs }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
  ports:
    - {protocol: UDP, port: 53}
    - {protocol: TCP, port: 53}
{{- end -}}

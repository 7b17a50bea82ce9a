{{/*
What the files of config.files say that Kubernetes must know: where the router connects to, and where it takes keys from.
Helm reads them as YAML; variables are those of config.env. Nothing is decided here: `pointsman check` in the init container is
the judge of the files.
*/}}

{{/* All of it, as YAML: fleets, tenants, tests (booleans), secretNames, torch (names of backends), urls (list of {who, url}), problems. */}}
{{- define "pointsman.facts" -}}
{{- $root := . -}}
{{- $found := dict "fleets" false "tenants" false "tests" false "secretNames" list "torch" list "urls" list "problems" list -}}
{{- range $name, $content := .Values.config.files -}}
{{- if regexMatch "_test[.]ya?ml$" $name -}}
{{- $_ := set $found "tests" true -}}
{{- else if regexMatch "[.]ya?ml$" $name -}}
{{- $texts := list -}}
{{- if kindIs "string" $content -}}
{{- $texts = regexSplit "(?m)^---[ \\t]*(#.*)?$" $content -1 -}}
{{- else -}}
{{- $texts = list (toYaml $content) -}}
{{- end -}}
{{- range $text := $texts -}}
{{- $document := fromYaml $text -}}
{{- if hasKey $document "Error" -}}
{{- if regexMatch "(?m)^kind:[ \\t]*[\"']?(Fleet|Tenants)" $text -}}
{{- $_ := set $found "problems" (append $found.problems (printf "config.files.%s: Helm cannot read this YAML: %s" $name (index $document "Error"))) -}}
{{- end -}}
{{- else if eq (toString $document.kind) "Fleet" -}}
{{- $_ := set $found "fleets" true -}}
{{- include "pointsman.ofFleet" (dict "root" $root "file" $name "fleet" $document "found" $found) -}}
{{- else if eq (toString $document.kind) "Tenants" -}}
{{- $_ := set $found "tenants" true -}}
{{- include "pointsman.ofTenants" (dict "root" $root "file" $name "tenants" $document "found" $found) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- range $backend, $url := .Values.networkPolicy.urls -}}
{{- if $root.Values.config.existingConfigMap -}}
{{- $_ := set $found "urls" (append $found.urls (dict "who" (printf "backend %s" $backend) "url" $url)) -}}
{{- end -}}
{{- end -}}
{{- if and .Values.config.existingConfigMap .Values.networkPolicy.enabled (not .Values.networkPolicy.urls) -}}
{{- $_ := set $found "problems" (append $found.problems "networkPolicy.urls: the fleet is in a ConfigMap that Helm does not read. Give the URL of each of its backends by name, or set networkPolicy.enabled: false") -}}
{{- end -}}
{{- toYaml $found -}}
{{- end -}}

{{- define "pointsman.ofFleet" -}}
{{- $found := .found -}}
{{- $root := .root -}}
{{- $file := .file -}}
{{- if not (kindIs "slice" .fleet.backends) -}}
{{- $_ := set $found "problems" (append $found.problems (printf "config.files.%s: backends is no list. What another file holds (include) the network policy cannot see: write the backends here" $file)) -}}
{{- else -}}
{{- range $backend := .fleet.backends -}}
{{- if not (kindIs "map" $backend) -}}
{{- $_ := set $found "problems" (append $found.problems (printf "config.files.%s: a backend is no mapping" $file)) -}}
{{- else if and (hasKey $backend "include") (not (hasKey $backend "name")) -}}
{{- $_ := set $found "problems" (append $found.problems (printf "config.files.%s: what another file holds (include) the network policy cannot see: write the backends here" $file)) -}}
{{- else -}}
{{- $key := $backend.api_key -}}
{{- if eq (toString $backend.protocol) "torch" -}}
{{- $_ := set $found "torch" (append $found.torch (toString $backend.name)) -}}
{{- end -}}
{{- if kindIs "map" $key -}}
{{- with $key.env -}}
{{- $_ := set $found "secretNames" (append $found.secretNames (toString .)) -}}
{{- end -}}
{{- else if $key -}}
{{- $_ := set $found "problems" (append $found.problems (printf "config.files.%s: api_key of %s must say where the key is, {env: NAME} or {file: PATH}, and never be the key" $file $backend.name)) -}}
{{- end -}}
{{- $given := get $root.Values.networkPolicy.urls (toString $backend.name) -}}
{{- with $given | default $backend.url -}}
{{- $who := printf "backend %s" (toString $backend.name) -}}
{{- include "pointsman.resolve" (dict "root" $root "found" $found "who" $who "url" (toString .) "file" $file "hint" (printf "networkPolicy.urls.%s" (toString $backend.name))) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "pointsman.ofTenants" -}}
{{- $found := .found -}}
{{- range $tenant := (kindIs "slice" .tenants.tenants | ternary .tenants.tenants list) -}}
{{- if kindIs "map" $tenant -}}
{{- range $key := (kindIs "slice" $tenant.keys | ternary $tenant.keys list) -}}
{{- if kindIs "map" $key -}}
{{- with $key.env -}}
{{- $_ := set $found "secretNames" (append $found.secretNames (toString .)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if kindIs "map" .tenants.jwt -}}
{{- if kindIs "map" .tenants.jwt.jwks -}}
{{- with .tenants.jwt.jwks.url -}}
{{- include "pointsman.resolve" (dict "root" $.root "found" $found "who" "jwt.jwks" "url" (toString .) "file" $.file "hint" "config.env") -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Puts {who, url} into found.urls, its variables replaced by config.env; or says what is missing. */}}
{{- define "pointsman.resolve" -}}
{{- $url := .url -}}
{{- $env := .root.Values.config.env -}}
{{- $found := .found -}}
{{- $missing := list -}}
{{- range $variable := regexFindAll "[$][{][^}]*[}]" $url -1 -}}
{{- $inside := trimSuffix "}" (trimPrefix "${" $variable) -}}
{{- $name := regexReplaceAll ":-.*$" $inside "" -}}
{{- if hasKey $env $name -}}
{{- $url = replace $variable (get $env $name) $url -}}
{{- else if hasKey $.root.Values.secrets.env $name -}}
{{- if $.root.Values.networkPolicy.enabled -}}
{{- $missing = append $missing $name -}}
{{- end -}}
{{- else if contains ":-" $inside -}}
{{- $url = replace $variable (regexReplaceAll "^[^:]*:-" $inside "") $url -}}
{{- else -}}
{{- $missing = append $missing $name -}}
{{- end -}}
{{- end -}}
{{- if $missing -}}
{{- $_ := set $found "problems" (append $found.problems (printf "config.files.%s: the URL of %s has ${%s}, and config.env has no %s. Set it there; where it is in a Secret, give the URL in %s, for the network policy" .file .who (first $missing) (first $missing) .hint)) -}}
{{- else -}}
{{- $_ := set $found "urls" (append $found.urls (dict "who" .who "url" $url)) -}}
{{- end -}}
{{- end -}}

{{- define "governed.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "governed.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else if contains (include "governed.name" .) .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name (include "governed.name" .) | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- define "governed.selector" -}}
app.kubernetes.io/name: {{ include "governed.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: operator
{{- end -}}

{{- define "governed.labels" -}}
{{ include "governed.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}

{{- /* repository, tag and digest of an image → its reference; a digest outweighs the tag, and none may be refused. */ -}}
{{- define "governed.image" -}}
{{- if and .requireDigest (not .digest) -}}
{{- fail (printf "%s: expected a digest (sha256:…) since images.requireDigests is true, found the tag %s; set it, or install with a release's values-release.yaml" .value .tag) -}}
{{- end -}}
{{- if .digest -}}{{ .repository }}@{{ .digest }}{{- else -}}{{ .repository }}:{{ .tag }}{{- end -}}
{{- end -}}

{{- define "governed.operatorImage" -}}
{{- include "governed.image" (dict "repository" .Values.image.repository "tag" (.Values.image.tag | default .Chart.AppVersion) "digest" .Values.image.digest "requireDigest" .Values.images.requireDigests "value" "image.digest") -}}
{{- end -}}

{{- /* CIDR:port of the API server, comma-separated: as set, else as found (a Service's address and those behind it: what
a NetworkPolicy sees of them differs by network plug-in), else nothing. */ -}}
{{- define "governed.apiServers" -}}
{{- $found := list -}}
{{- if .Values.apiServers -}}
{{- $found = .Values.apiServers -}}
{{- else if .Values.networkPolicy.findApiServers -}}
{{- $slice := lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes" | default dict -}}
{{- range $endpoint := (get $slice "endpoints" | default list) -}}
{{- range $address := $endpoint.addresses -}}
{{- range $port := (get $slice "ports" | default list) -}}
{{- $found = append $found (printf "%s/%s:%d" $address (ternary "128" "32" (contains ":" $address)) (int $port.port)) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- $service := lookup "v1" "Service" "default" "kubernetes" | default dict -}}
{{- if $found -}}
{{- range $address := (dig "spec" "clusterIPs" list $service) -}}
{{- range $port := (dig "spec" "ports" list $service) -}}
{{- $found = append $found (printf "%s/%s:%d" $address (ternary "128" "32" (contains ":" $address)) (int $port.port)) -}}
{{- end -}}
{{- end -}}
{{- $found = $found | uniq | sortAlpha -}}
{{- end -}}
{{- end -}}
{{- join "," $found -}}
{{- end -}}

{{- define "governed.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "governed.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- required "serviceAccount.name: expected the name of an existing ServiceAccount since serviceAccount.create is false, found nothing" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- /* VKEY URL, one a line. */}}
{{- define "governed.witnesses" -}}
{{- range $index, $witness := .Values.archive.witnesses -}}
{{- if $index }}{{ "\n" }}{{ end }}{{ $witness.key }} {{ $witness.url }}
{{- end -}}
{{- end -}}

{{- define "governed.objects" -}}
{{- with .Values.archive.objects -}}
{{- if .url -}}
{{ .url }}?region={{ .region }}{{ if .endpoint }}&endpoint={{ .endpoint | urlquery }}{{ end }}{{ if .allowHttp }}&http=allowed{{ end }}{{ if ne .ledger "stored" }}&ledger={{ .ledger }}{{ end }}
{{- end -}}
{{- end -}}
{{- end -}}

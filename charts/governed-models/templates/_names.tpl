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

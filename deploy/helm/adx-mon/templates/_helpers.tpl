{{/* Labels of an object. In: root, component, name. */}}
{{- define "adx-mon.labels" -}}
{{ include "adx-mon.selector" . }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: adx-mon
{{- end -}}

{{/* Labels that the pods of one component have and no others. In: component, name. */}}
{{- define "adx-mon.selector" -}}
app.kubernetes.io/name: {{ .component }}
app.kubernetes.io/instance: {{ .name }}
{{- end -}}

{{/* Metadata of an object in the namespace of the release. In: root, component, name, object (default: name). */}}
{{- define "adx-mon.meta" -}}
name: {{ .object | default .name }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "adx-mon.labels" . | nindent 2 }}
  helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{/* The image of a component. In: root, component, image. */}}
{{- define "adx-mon.image" -}}
{{- $image := .root.Values.image -}}
{{- .image | default (printf "%s/%s:%s" (trimSuffix "/" $image.prefix) .component ($image.tag | default .root.Chart.AppVersion)) -}}
{{- end -}}

{{/* PodDisruptionBudgets came late to v1. */}}
{{- define "adx-mon.policy" -}}
policy/{{ ternary "v1beta1" "v1" (semverCompare "<1.21-0" .Capabilities.KubeVersion.Version) }}
{{- end -}}

{{- define "adx-mon.region" -}}
{{- .Values.clusterLabels.region | default "default" -}}
{{- end -}}

{{/* Bytes of a quantity such as 20Gi, times a factor. In: size, factor. */}}
{{- define "adx-mon.bytes" -}}
{{- $units := dict "" 1 "k" 1e3 "M" 1e6 "G" 1e9 "T" 1e12 "P" 1e15 "Ki" 1024 "Mi" 1048576 "Gi" 1073741824 "Ti" 1099511627776 "Pi" 1125899906842624 -}}
{{- $unit := regexFind "[kMGTP]?i?$" .size -}}
{{- $number := trimSuffix $unit .size -}}
{{- if not (and (hasKey $units $unit) (regexMatch "^[0-9]+([.][0-9]+)?$" $number)) -}}
{{- fail (printf "%q is no size of a volume; write it like 20Gi" .size) -}}
{{- end -}}
{{- int64 (mulf (float64 $number) (get $units $unit) .factor) -}}
{{- end -}}

{{/* URL of Kusto, for `mode: components`. */}}
{{- define "adx-mon.kusto" -}}
{{- $cluster := .Values.adxCluster -}}
{{- if not $cluster.enabled -}}
{{- fail "with mode components, ingestor, alerter and exporter need adxCluster.enabled, with spec.endpoint or spec.local" -}}
{{- end -}}
{{- if hasKey $cluster.spec "local" -}}
http://{{ $cluster.name }}.{{ .Release.Namespace }}.svc.cluster.local:8080
{{- else -}}
{{- required "adxCluster.spec has neither local nor endpoint: mode components makes no clusters in Azure" $cluster.spec.endpoint -}}
{{- end -}}
{{- end -}}

{{/* `database=url`, one on each line, of databases of some types. In: root, types (none: all). */}}
{{- define "adx-mon.endpoints" -}}
{{- $url := include "adx-mon.kusto" .root -}}
{{- $types := .types -}}
{{- if not .root.Values.adxCluster.spec.databases -}}{{- fail "adxCluster.spec.databases is empty: name the databases" -}}{{- end -}}
{{- range .root.Values.adxCluster.spec.databases -}}
{{- if or (not $types) (has .telemetryType $types) -}}
{{ .databaseName }}={{ $url }}{{ "\n" }}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Criteria are expressions that the operator evaluates. In: kind, spec. */}}
{{- define "adx-mon.noCriteria" -}}
{{- if .spec.criteriaExpression -}}{{- fail (printf "%s.spec.criteriaExpression needs the operator" .kind) -}}{{- end -}}
{{- end -}}

{{/*
A service account and what is bound to it. In: root, component, name, object, identity, everywhere (dict: suffix to role),
within (role in the namespace).
*/}}
{{- define "adx-mon.account" -}}
{{- $in := . -}}
{{- $account := .object | default .name -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  {{- include "adx-mon.meta" . | nindent 2 }}
  {{- with .identity }}
  annotations:
    azure.workload.identity/client-id: {{ . }}
  {{- end }}
automountServiceAccountToken: false
{{- with .within }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata:
  {{- include "adx-mon.meta" $in | nindent 2 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ quote . }}}
subjects:
  - {kind: ServiceAccount, name: {{ $account }}, namespace: {{ $in.root.Release.Namespace }}}
{{- end }}
{{- range $suffix, $role := .everywhere }}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata:
  name: {{ printf "%s:%s%s" $in.root.Release.Namespace $account $suffix | quote }}
  labels:
    {{- include "adx-mon.labels" $in | nindent 4 }}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: {{ quote $role }}}
subjects:
  - {kind: ServiceAccount, name: {{ $account }}, namespace: {{ $in.root.Release.Namespace }}}
{{- end }}
{{- end -}}

{{/* Documents of a file with rights, in the namespace of the release. In: root, file, identity. */}}
{{- define "adx-mon.rights" -}}
{{- $namespace := .root.Release.Namespace -}}
{{- $identity := .identity -}}
{{- range splitList "\n---\n" (.root.Files.Get .file) }}
{{- $object := fromYaml . -}}
{{- if $object.metadata.namespace }}{{ $_ := set $object.metadata "namespace" $namespace }}{{ end -}}
{{- range $object.subjects }}{{ $_ := set . "namespace" $namespace }}{{ end -}}
{{- if and $identity (eq $object.kind "ServiceAccount") -}}
{{- $_ := set $object.metadata "annotations" (dict "azure.workload.identity/client-id" $identity) -}}
{{- end -}}
{{- $_ := set $object.metadata "labels" (dict "app.kubernetes.io/part-of" "adx-mon") }}
---
{{ toYaml $object }}
{{- end }}
{{- end -}}

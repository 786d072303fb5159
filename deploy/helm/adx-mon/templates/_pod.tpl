{{/*
A pod template. In: root, name (of the resource), pod: component, options (as `pods` of the resources), account, image, command,
args, ports, probes, resources, annotations, labels, env, volumes, mounts, init, tolerations, affinity, grace, security, token.

It is the one that the operator makes, which a test compares.
*/}}
{{- define "adx-mon.template" -}}
{{- $pod := .pod -}}
{{- $options := $pod.options | default dict -}}
{{- $own := fromYaml (include "adx-mon.labels" (dict "root" .root "component" $pod.component "name" .name)) -}}
{{- $labels := merge $own ($pod.labels | default dict) ($options.labels | default dict) -}}
{{- $annotations := merge (dict) ($options.annotations | default dict) ($pod.annotations | default dict) -}}
{{- $env := list (dict "name" "LOG_LEVEL" "value" ($options.logLevel | default "INFO")) -}}
{{- with $options.identityClientId -}}
{{- $_ := set $labels "azure.workload.identity/use" "true" -}}
{{- $env = append $env (dict "name" "AZURE_CLIENT_ID" "value" .) -}}
{{- end -}}
{{- $env = concat $env ($pod.env | default list) -}}
{{- $resources := $options.resources | default dict -}}
metadata:
  labels:
    {{- toYaml $labels | nindent 4 }}
  {{- with $annotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ $pod.account }}
  automountServiceAccountToken: {{ ne (toString $pod.token) "false" }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    runAsGroup: 3000
    seccompProfile: {type: RuntimeDefault}
    {{- with $pod.security }}{{ toYaml . | nindent 4 }}{{ end }}
  {{- with $pod.init }}
  initContainers:
    - {{- toYaml . | nindent 6 }}
  {{- end }}
  containers:
    - name: {{ $pod.component }}
      image: {{ quote $pod.image }}
      command: [{{ $pod.command }}]
      args:
        {{- toYaml $pod.args | nindent 8 }}
      env:
        {{- toYaml $env | nindent 8 }}
      ports:
        {{- toYaml $pod.ports | nindent 8 }}
      {{- toYaml $pod.probes | nindent 6 }}
      resources:
        requests:
          {{- toYaml (merge (dict) ($resources.requests | default dict) $pod.resources.requests) | nindent 10 }}
        limits:
          {{- toYaml (merge (dict) ($resources.limits | default dict) $pod.resources.limits) | nindent 10 }}
      securityContext:
        {{- include "adx-mon.security" . | nindent 8 }}
      {{- with $pod.mounts }}
      volumeMounts:
        {{- toYaml . | nindent 8 }}
      {{- end }}
  terminationGracePeriodSeconds: {{ $pod.grace }}
  {{- with $pod.volumes }}
  volumes:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $pod.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $options.tolerations | default $pod.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $options.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $options.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  {{- with $options.imagePullSecrets }}
  imagePullSecrets:
    {{- range . }}
    - name: {{ . }}
    {{- end }}
  {{- end }}
{{- end -}}

{{- define "adx-mon.security" -}}
allowPrivilegeEscalation: false
privileged: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end -}}

{{/* A probe over HTTP. In: path, port, scheme, failures. */}}
{{- define "adx-mon.probe" -}}
httpGet: {path: {{ .path }}, port: {{ .port }}, scheme: {{ .scheme | default "HTTP" }}}
periodSeconds: 10
timeoutSeconds: 5
failureThreshold: {{ .failures }}
{{- end -}}

{{/* Annotations by which collectors scrape a pod and read its logs. In: port, table. */}}
{{- define "adx-mon.observed" -}}
adx-mon/scrape: "true"
adx-mon/port: {{ quote .port }}
adx-mon/path: /metrics
adx-mon/log-destination: Logs:{{ .table }}
adx-mon/log-parsers: json
{{- end -}}

{{/* The claim of a StatefulSet's volume, unless the data are in a folder of the node. In: storage, size, component, name. */}}
{{- define "adx-mon.claim" -}}
{{- if not .storage.hostPath -}}
volumeClaimTemplates:
  - apiVersion: v1
    kind: PersistentVolumeClaim
    metadata:
      name: data
      labels:
        {{- include "adx-mon.selector" . | nindent 8 }}
    spec:
      accessModes: [ReadWriteOnce]
      {{- with .storage.storageClassName }}
      storageClassName: {{ . }}
      {{- end }}
      resources:
        requests:
          storage: {{ .storage.size | default .size }}
{{- end -}}
{{- end -}}

{{/* The folder of the node, where the data are in one. In: storage. */}}
{{- define "adx-mon.folder" -}}
{{- with .storage.hostPath -}}
- name: data
  hostPath: {path: {{ . }}, type: DirectoryOrCreate}
{{- end -}}
{{- end -}}

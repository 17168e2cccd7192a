{{/* Labels of one program: (list $ "status"). */}}
{{- define "jpki.labels" -}}
{{ include "jpki.selector" . }}
app.kubernetes.io/managed-by: {{ (index . 0).Release.Service }}
helm.sh/chart: {{ printf "%s-%s" (index . 0).Chart.Name (index . 0).Chart.Version }}
{{- end }}

{{- define "jpki.selector" -}}
app.kubernetes.io/name: jpki
app.kubernetes.io/instance: {{ (index . 0).Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{- define "jpki.image" -}}
image: {{ printf "%s:%s" .Values.image.repository .Values.image.tag | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end }}

{{/* The port of an address as in 0.0.0.0:8081. */}}
{{- define "jpki.port" -}}
{{ regexFind "[0-9]+$" . }}
{{- end }}

{{/* A change of the configuration is a change of the pods: (list $ config admin-address). */}}
{{- define "jpki.podAnnotations" -}}
checksum/config: {{ toYaml (index . 1) | sha256sum }}
{{- if (index . 0).Values.metrics.annotations }}
prometheus.io/scrape: "true"
prometheus.io/port: {{ include "jpki.port" (index . 2) | quote }}
{{- end }}
{{- end }}

{{- define "jpki.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ . }}
runAsGroup: {{ . }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "jpki.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
privileged: false
capabilities: {drop: [ALL]}
{{- end }}

{{/* A process that is alive is left alone: what it waits for may come back tomorrow. */}}
{{- define "jpki.probes" -}}
startupProbe: {httpGet: {path: /healthz, port: admin}, periodSeconds: 5, failureThreshold: 60}
livenessProbe: {httpGet: {path: /healthz, port: admin}, periodSeconds: 10, failureThreshold: 6}
readinessProbe: {httpGet: {path: /readyz, port: admin}, periodSeconds: 2, failureThreshold: 2}
{{- end }}

{{- define "jpki.spread" -}}
- maxSkew: 1
  topologyKey: kubernetes.io/hostname
  whenUnsatisfiable: ScheduleAnyway
  labelSelector:
    matchLabels:
      {{- include "jpki.selector" . | nindent 6 }}
{{- end }}

{{/*
Secrets, for one user only: Kubernetes makes them readable to a group, and keys that others than their owner may read are refused.
(list $ "name" "volume"), followed by more volumes whose entries of the pod's name are taken as responder.*.
*/}}
{{- define "jpki.secrets" -}}
- name: {{ index . 1 }}
  {{- include "jpki.image" (index . 0) | nindent 2 }}
  {{- if gt (len .) 3 }}
  command: [sh, -ceu, "umask 077; cp -fL /run/laid/* /etc/jpki/secret/; for kind in pem key; do cp -fL /run/responders/$POD_NAME.$kind /etc/jpki/secret/responder.$kind; done"]
  env:
    - name: POD_NAME
      valueFrom: {fieldRef: {fieldPath: metadata.name}}
  {{- else }}
  command: [sh, -ceu, "umask 077; cp -fL /run/laid/* /etc/jpki/secret/"]
  {{- end }}
  securityContext:
    {{- include "jpki.containerSecurity" (index . 0) | nindent 4 }}
    {{- if eq (index . 2) "signer-secret" }}
    runAsUser: 1002
    runAsGroup: 1002
    {{- end }}
  resources: {requests: {cpu: 10m, memory: 16Mi}, limits: {memory: 32Mi}}
  volumeMounts:
    - {name: {{ index . 2 }}-laid, mountPath: /run/laid, readOnly: true}
    - {name: {{ index . 2 }}, mountPath: /etc/jpki/secret}
    {{- if gt (len .) 3 }}
    - {name: {{ index . 3 }}, mountPath: /run/responders, readOnly: true}
    {{- end }}
{{- end }}

{{/* The volumes to it: (list "volume" "name of the secret"). */}}
{{- define "jpki.secretVolumes" -}}
- name: {{ index . 0 }}-laid
  secret: {secretName: {{ index . 1 }}, defaultMode: 0440}
- name: {{ index . 0 }}
  emptyDir: {medium: Memory, sizeLimit: 1Mi}
{{- end }}

"""Every check of overlays is seen to fail, each on breaks that are planted in rendered files and built objects."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.manifests.built import Object, Overlay, build, read, with_files
from tests.manifests.policy import lifted, scan
from tests.manifests.test_overlays import CHECKS

BY_NAME = {check.__name__: check for check in CHECKS}
GONE = object()
RAY, SERVER = "RayService/text-service", "Deployment/text-service"
HPA = "HorizontalPodAutoscaler/text-service"
WORKERS_BUDGET, HEAD_BUDGET = "PodDisruptionBudget/text-service", "PodDisruptionBudget/text-service-head"
HEALTH, BACKENDS = "HealthCheckPolicy/text-service", "BackendConfig/text-service"
C = ("spec", "rayClusterConfig")
HEAD = (*C, "headGroupSpec")
GROUP = (*C, "workerGroupSpecs", 0)
HEAD_POD, POD = (*HEAD, "template", "spec"), (*GROUP, "template", "spec")
HEAD_BOX, BOX = (*HEAD_POD, "containers", 0), (*POD, "containers", 0)
INDEX, INDEX_POLICY = "RayJob/text-service-index-a1b2c3", "NetworkPolicy/text-service-index"
BACKUP, NODES = "CronJob/qdrant-backup", "StatefulSet/qdrant"
MONITOR, BUDGET, DATABASE_POLICY = "ServiceMonitor/qdrant", "PodDisruptionBudget/qdrant", "NetworkPolicy/qdrant"
SUBMITTER, BACKUP_POD = ("spec", "submitterPodTemplate"), ("spec", "jobTemplate", "spec", "template")
BACKUP_BOX = (*BACKUP_POD, "spec", "containers", 0)
RULE, EGRESS, KEY_OF = ("spec", "groups", 0, "rules", 0), ("spec", "egress", 0), ("valueFrom", "secretKeyRef", "key")
SERVER_POD = ("spec", "template", "spec")
SERVER_BOX = (*SERVER_POD, "containers", 0)
ROUTE = ("spec", "rules", 0, "backendRefs", 0)
INGRESS = ("spec", "rules", 0, "http", "paths", 0, "backend", "service")
LABELS = ("template", "metadata", "labels")
NAME, COMPONENT = "app.kubernetes.io/name", "app.kubernetes.io/component"
CI, FLUX = ".github/workflows/kubernetes.yml", "deploy/gitops/flux-production.yaml"
OPEN = [{"from": [{"ipBlock": {"cidr": "0.0.0.0/0"}}], "ports": [{"port": 8000}]}]
Path_ = tuple[str | int, ...]

# (check, render, object, path in it, planted value, words of the fault). MORE(x) adds x to the list that is there.


class More:
    def __init__(self, value: Any) -> None:
        self.value = value


OBJECTS: list[tuple[str, str, str, Path_, Any, str]] = [
    ("schemas", "ray", RAY, (*C, "rayVersions"), "2.60.0", "'rayVersions' was unexpected"),
    ("schemas", "ray", RAY, (*POD, "terminationGraceSeconds"), 30, "'terminationGraceSeconds' was unexpected"),
    ("schemas", "ray", RAY, (*GROUP, "minReplicas"), "one", "'one' is not of type 'integer'"),
    ("schemas", "ray", "HTTPRoute/text-service", (*ROUTE, "prot"), 80, "'prot' was unexpected"),
    ("schemas", "ray", "PodMonitor/text-service-head", ("spec", "interval"), "5s", "'interval' was unexpected"),
    ("schemas", "container", SERVER, (*SERVER_POD, "containers", 0, "readinesProbe"), {}, "readinesProbe"),
    ("operator_rules", "ray", RAY, (*GROUP, "minReplicas"), 9, "rule 15 does not hold"),
    ("operator_rules", "ray", RAY, (*HEAD_POD, "restartPolicy"), "Always", "rule 45 does not hold"),
    ("operator_rules", "ray", RAY, ("spec", "upgradeStrategy", "type"), "NewClusters", "rule 80 does not hold"),
    ("one_version_of_ray", "ray", RAY, (*C, "rayVersion"), "2.59.0", "rayVersion is 2.59.0"),
    ("one_image", "ray", RAY, (*HEAD_BOX, "image"), "registry.example.com/ml/text-service:0.0.9", "images differ"),
    (
        "one_image",
        "ray",
        RAY,
        (*POD, "containers"),
        [{"name": "logs", "image": "logs:1.0.0"}],
        "first container is logs",
    ),
    ("one_serve_config", "ray", RAY, ("spec", "serveConfigV2"), "applications: []\n", "is not config/serve.yaml"),
    ("written_out", "ray", RAY, (*C, "authOptions"), {}, "authOptions.mode is not token"),
    ("written_out", "ray", RAY, (*C, "authOptions", "secretName"), GONE, "authOptions has no secretName"),
    ("written_out", "ray", RAY, (*C, "autoscalerOptions", "version"), GONE, "version is not v2"),
    ("written_out", "ray", RAY, (*C, "enableInTreeAutoscaling"), GONE, "enableInTreeAutoscaling is not true"),
    ("written_out", "ray", RAY, ("spec", "upgradeStrategy"), GONE, "upgradeStrategy.type is None"),
    ("written_out", "ray", RAY, (*GROUP, "maxReplicas"), GONE, "replicas are not between"),
    ("fault_tolerance", "ray", RAY, (*C, "gcsFaultToleranceOptions"), GONE, "gcsFaultToleranceOptions are None"),
    (
        "fault_tolerance",
        "ray",
        RAY,
        (*C, "gcsFaultToleranceOptions", "externalStorageNamespace"),
        "texts",
        "would share externalStorageNamespace",
    ),
    (
        "groups_have_names_of_their_own",
        "ray",
        RAY,
        (*C, "workerGroupSpecs"),
        More(lambda groups: groups[0]),
        "two groups of workers are called",
    ),
    ("head_works_for_nobody", "ray", RAY, (*HEAD, "rayStartParams"), {}, "num-cpus is not 0"),
    ("ports", "ray", RAY, (*HEAD_BOX, "ports"), GONE, "head: port serve is None, not 8000"),
    ("ports", "ray", RAY, (*BOX, "ports", 0, "name"), "http", "port serve is None, not 8000"),
    ("throughput", "ray", RAY, (*BOX, "env"), More({"name": "RAY_SERVE_ENABLE_HA_PROXY", "value": "0"}), "only some"),
    ("throughput", "ray", RAY, (*HEAD_BOX, "envFrom"), GONE, "switches differ between pods"),
    ("left_to_kuberay", "ray", RAY, (*BOX, "readinessProbe"), {"exec": {"command": ["true"]}}, "has probes"),
    ("left_to_kuberay", "ray", RAY, (*BOX, "volumeMounts"), More({"name": "tmp", "mountPath": "/dev/shm"}), "/dev/shm"),
    ("left_to_kuberay", "ray", RAY, ("spec", "serviceUnhealthySecondThreshold"), 300, "does nothing any more"),
    ("strings", "ray", RAY, (*HEAD, "rayStartParams", "num-cpus"), 0, "rayStartParams.num-cpus is no text"),
    ("room", "ray", RAY, (*GROUP, "maxReplicas"), 0, "and there is room for 0"),
    ("room", "ray", RAY, (*GROUP, "resources", "GPU"), "0.4", "there is room for"),
    ("cards", "ray", RAY, (*POD, "tolerations"), GONE, "does not tolerate the taint"),
    ("cards", "ray", RAY, (*POD, "nodeSelector"), GONE, "does not say which card"),
    ("cards", "ray", RAY, (*BOX, "resources", "limits", "nvidia.com/gpu"), "2", "asks for 2.0 cards"),
    ("cards", "ray", RAY, (*HEAD_POD, "tolerations"), [{"key": "nvidia.com/gpu"}], "takes a place beside cards"),
    ("cards", "ray", RAY, (*HEAD, "resources"), {"GPU": "1"}, "tells Ray of cards that it does not ask for"),
    ("cards", "claims", RAY, (*BOX, "resources", "claims"), GONE, "claims a card that its container does not use"),
    ("drain", "ray", RAY, (*POD, "terminationGracePeriodSeconds"), 5, "killed after 5 s, a replica may need"),
    ("drain", "ray", RAY, (*BOX, "env"), [], "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S is 0 s, not between"),
    ("drain", "ray", RAY, ("spec", "rayClusterDeletionDelaySeconds"), 1, "the old cluster is deleted after 1 s"),
    ("drain", "container", SERVER, (*SERVER_POD, "terminationGracePeriodSeconds"), 12, "its last request may end"),
    ("drain", "container", SERVER, (*SERVER_BOX, "lifecycle"), GONE, "preStop sleeps 0.0 s"),
    ("names_that_pods_use", "ray", RAY, (*BOX, "envFrom", 0, "configMapRef", "name"), "ray-env", "ConfigMap ray-env"),
    ("names_that_pods_use", "ray", RAY, (*POD, "serviceAccountName"), "default", "service account default"),
    ("names_that_pods_use", "ray", RAY, (*BOX, "volumeMounts", 0, "name"), "temp", "mounts temp, which is no volume"),
    ("names_that_pods_use", "ray", RAY, (*POD, "volumes"), More({"name": "x", "emptyDir": {}}), "mounts it nowhere"),
    (
        "names_that_pods_use",
        "ray",
        RAY,
        (*C, "autoscalerOptions", "volumeMounts"),
        [{"name": "other", "mountPath": "/tmp"}],
        "mounts other, which is no volume",
    ),
    (
        "names_that_pods_use",
        "container",
        SERVER,
        (*SERVER_BOX, "livenessProbe", "httpGet", "port"),
        8001,
        "livenessProbe asks port 8001",
    ),
    (
        "names_that_pods_use",
        "container",
        HPA,
        ("spec", "scaleTargetRef", "name"),
        "texts",
        "scales Deployment/texts",
    ),
    (
        "names_that_pods_use",
        "claims",
        RAY,
        (*POD, "resourceClaims", 0, "resourceClaimTemplateName"),
        "card",
        "the claim of a card card is not there",
    ),
    (
        "storage",
        "ray",
        "PersistentVolumeClaim/text-service-weights",
        ("spec", "accessModes"),
        ["ReadWriteOnce"],
        "not ReadWriteMany",
    ),
    (
        "storage",
        "ray/local",
        "PersistentVolumeClaim/text-service-weights",
        ("spec", "storageClassName"),
        "efs",
        "kind has",
    ),
    (
        "images",
        "ray/local",
        RAY,
        (*BOX, "image"),
        "registry.example.com/ml/text-service:0.1.0",
        "pinned as local needs",
    ),
    ("cards", "ray/local", RAY, (*POD, "tolerations"), [{"key": "nvidia.com/gpu"}], "looks for nodes with cards"),
    ("namespaces", "ray", RAY, ("metadata", "namespace"), "default", "objects are in the namespaces"),
    (
        "kept_local",
        "ray",
        RAY,
        ("metadata", "annotations", "config.kubernetes.io/local-config"),
        "true",
        "is meant for kustomize alone",
    ),
    ("secrets", "ray", RAY, (*C, "authOptions", "secretName"), "ray-token", "nobody makes the Secret ray-token"),
    ("secrets", "ray", RAY, (*BOX, "env"), More({"name": "API_KEY", "value": "0123"}), "API_KEY stands in the file"),
    (
        "secrets",
        "ray",
        RAY,
        (*C, "gcsFaultToleranceOptions", "redisPassword"),
        {"value": "0123"},
        "redisPassword stands in the file",
    ),
    ("secrets", "container", SERVER, ("kind",), "Secret", "a Secret does not belong in a file"),
    ("selectors", "ray", RAY, (*GROUP, *LABELS, COMPONENT), GONE, "PodMonitor/text-service-workers: selects"),
    ("selectors", "ray", RAY, (*GROUP, *LABELS, NAME), GONE, "is spread among pods of which it is none"),
    (
        "selectors",
        "ray",
        "PodDisruptionBudget/text-service",
        ("spec", "selector", "matchLabels"),
        {"app": "texts"},
        "PodDisruptionBudget/text-service: selects nobody, and means [",
    ),
    (
        "selectors",
        "ray",
        "PodDisruptionBudget/text-service",
        ("spec", "selector", "matchLabels", COMPONENT),
        GONE,
        "RayService/text-service, head', 'RayService/text-service, worker",
    ),
    ("selectors", "ray", "NetworkPolicy/text-service", ("metadata", "name"), "other", "is not said in"),
    ("selectors", "container", "Service/text-service", ("spec", "selector", NAME), "texts", "selects nobody"),
    ("budgets", "ray", WORKERS_BUDGET, ("spec", "minAvailable"), "50%", "says {'minAvailable': '50%', 'unh"),
    ("budgets", "ray", WORKERS_BUDGET, ("spec", "maxUnavailable"), 1, "'maxUnavailable': 1}, not {'minAvailable': 0"),
    ("budgets", "ray", WORKERS_BUDGET, ("spec", "unhealthyPodEvictionPolicy"), GONE, "says {'minAvailable': 0}, not"),
    ("budgets", "two-groups", WORKERS_BUDGET, ("spec", "minAvailable"), 2, "not {'minAvailable': 1"),
    ("budgets", "ray", HEAD_BUDGET, ("spec", "minAvailable"), 1, "says {'minAvailable': 1}, not {'minAvailable': 0}"),
    ("budgets", "claims", HEAD_BUDGET, ("spec", "minAvailable"), 0, "says {'minAvailable': 0}, not"),
    ("budgets", "container", WORKERS_BUDGET, ("spec", "maxUnavailable"), 2, "says {'maxUnavailable': 2, 'unh"),
    (
        "monitors",
        "ray",
        "PodMonitor/text-service-head",
        ("spec", "podMetricsEndpoints", 0, "port"),
        "metric",
        "reads port metric, which RayService/text-service, head does not name",
    ),
    (
        "monitors",
        "ray",
        "PodMonitor/text-service-head",
        ("spec", "podMetricsEndpoints", 1),
        GONE,
        "metrics are read at [8080, 44227], and are at [8080, 44217, 44227]",
    ),
    (
        "routes",
        "ray",
        "HTTPRoute/text-service",
        (*ROUTE, "name"),
        "text-service-head-svc",
        "leads from outside to port",
    ),
    ("routes", "ray", "HTTPRoute/text-service", (*ROUTE, "port"), 8265, "leads from outside to port 8265"),
    ("routes", "ray", "HTTPRoute/text-service", (*ROUTE, "name"), "text-service", "the Service text-service, which is"),
    ("routes", "ray", "HTTPRoute/text-service", ("kind",), "TCPRoute", "ways from outside are []"),
    ("routes", "ray", RAY, (*HEAD, "serviceType"), "LoadBalancer", "opens the dashboard to the outside"),
    ("routes", "ray", RAY, (*HEAD, "enableIngress"), True, "opens the dashboard to the outside by an Ingress"),
    ("routes", "container", "Ingress/text-service", (*INGRESS, "port"), {"number": 80}, "leads to port 80 of"),
    ("routes", "container", "Service/text-service", ("spec", "type"), "NodePort", "open to the outside by itself"),
    ("routes", "container", "Service/text-service", ("spec", "ports", 0, "targetPort"), "web", "leads to port web"),
    ("health_of_backends", "ray", HEALTH, ("spec", "targetRef", "name"), "text-service", "balancers are told {'Health"),
    (
        "health_of_backends",
        "ray",
        HEALTH,
        ("spec", "default", "config", "httpHealthCheck", "requestPath"),
        "/",
        "'requestPath': '/'}",
    ),
    ("health_of_backends", "container", BACKENDS, ("spec", "healthCheck", "path"), "/readyz", "balancers are told"),
    ("health_of_backends", "container", BACKENDS, ("spec", "timeoutSec"), 5, "balancers are told"),
    (
        "health_of_backends",
        "container",
        "Service/text-service",
        ("metadata", "annotations"),
        {},
        "backend-config of its Service is None",
    ),
    ("health_of_backends", "two-groups", RAY, ("spec", "serveService"), GONE, "cloud.google.com/neg of its Service is"),
    (
        "traffic",
        "ray",
        "NetworkPolicy/text-service",
        ("spec", "ingress", 0, "from"),
        [{"namespaceSelector": {}}],
        "an address outside does not get to port 8000",
    ),
    (
        "traffic",
        "claims",
        "NetworkPolicy/text-service",
        ("spec", "ingress", 0, "from"),
        GONE,
        "an address outside gets to port 8000",
    ),
    ("traffic", "ray", "NetworkPolicy/text-service", ("spec", "ingress"), [{}], "an address outside gets to port 8265"),
    ("traffic", "ray", "NetworkPolicy/text-service", ("spec", "ingress"), OPEN, "Prometheus does not get to port 8080"),
    (
        "traffic",
        "ray",
        "NetworkPolicy/text-service",
        ("spec", "ingress", 0, "ports"),
        More({"port": 8265}),
        "another pod of the namespace gets to port 8265",
    ),
    (
        "traffic",
        "ray",
        "NetworkPolicy/text-service",
        ("spec", "ingress", 0, "ports"),
        More({"port": 6000, "endPort": 7000}),
        "a pod of another namespace gets to port 6379",
    ),
    ("traffic", "ray", "NetworkPolicy/text-service", ("spec", "ingress", 1), GONE, "does not get to port 6379"),
    ("traffic", "ray", "NetworkPolicy/text-service", ("spec", "ingress", 2), GONE, "KubeRay does not get to port 8265"),
    ("traffic", "ray", "NetworkPolicy/text-service", ("spec", "policyTypes"), ["Egress"], "is not checked in"),
    ("traffic", "container", "NetworkPolicy/text-service-jobs", ("spec", "ingress"), [{}], "a job, and lets in"),
    ("traffic", "ray", INDEX_POLICY, ("spec", "ingress", 0), {}, "lets in Prometheus at 8080"),
    ("traffic", "ray", INDEX_POLICY, ("spec", "ingress", 1), GONE, "does not let in KubeRay at 8265"),
    (
        "traffic",
        "ray",
        INDEX_POLICY,
        ("spec", "ingress", 0),
        GONE,
        "does not let in RayJob/text-service-index-a1b2c3, subm",
    ),
    ("selectors", "ray", INDEX, (*SUBMITTER, "metadata", "labels"), {NAME: "text-service"}, "and means ['RayJob/"),
    ("selectors", "container", BACKUP, (*BACKUP_POD, "metadata", "labels", COMPONENT), "backup", "and means ['CronJob"),
    ("restricted", "ray", INDEX, (*SUBMITTER, "spec", "containers", 0, "securityContext"), GONE, "submitter, ray-job-"),
    ("writable", "container", NODES, (*SERVER_POD, "volumes", 2, "emptyDir"), {}, "at /qdrant/init has no sizeLimit"),
    (
        "resources",
        "container",
        NODES,
        (*SERVER_BOX, "resources", "limits", "cpu"),
        GONE,
        "no requests or limits of cpu",
    ),
    ("names_that_pods_use", "container", NODES, ("spec", "volumeClaimTemplates"), [], "mounts storage, which is no"),
    ("labels", "container", NODES, ("metadata", "labels", NAME), "text-service", "is text-service, not qdrant"),
    ("traffic", "container", "NetworkPolicy/text-service", ("kind",), "NetworkPolicies", "gets to port 9000"),
    ("restricted", "ray", RAY, (*POD, "securityContext", "runAsNonRoot"), GONE, "runs as root"),
    ("restricted", "ray", RAY, (*HEAD_POD, "securityContext", "seccompProfile"), GONE, "has no seccomp profile"),
    ("restricted", "ray", RAY, (*POD, "hostNetwork"), True, "shares a namespace of its machine"),
    ("restricted", "ray", RAY, (*POD, "automountServiceAccountToken"), GONE, "gets a token of the API"),
    ("restricted", "ray", RAY, (*POD, "volumes"), More({"name": "h", "hostPath": {"path": "/"}}), "volume that is not"),
    ("restricted", "ray", RAY, (*BOX, "securityContext", "privileged"), True, "may gain privileges"),
    ("restricted", "ray", RAY, (*BOX, "securityContext", "capabilities"), {"add": ["SYS_PTRACE"]}, "keeps capab"),
    ("restricted", "ray", RAY, (*BOX, "securityContext", "readOnlyRootFilesystem"), False, "may write to its image"),
    ("restricted", "ray", RAY, (*C, "autoscalerOptions", "securityContext"), GONE, "autoscaler: may gain privileges"),
    ("restricted", "ray", RAY, (*BOX, "ports", 0, "hostPort"), 8000, "opens a port of its machine"),
    (
        "restricted",
        "container",
        "ServiceAccount/text-service",
        ("automountServiceAccountToken",),
        True,
        "ServiceAccount/text-service: gets a token",
    ),
    ("resources", "ray", RAY, (*BOX, "resources", "limits", "memory"), "9Gi", "are not its limits"),
    ("resources", "ray", RAY, (*HEAD_BOX, "resources"), GONE, "has no requests or limits of cpu, memory"),
    ("images", "ray", RAY, (*BOX, "image"), "registry.example.com/ml/text-service:0.1.0", "not pinned as production"),
    ("images", "ray", RAY, (*BOX, "image"), "registry.example.com/ml/text-service:latest", "not pinned as production"),
    ("images", "ray", RAY, (*POD, "initContainers"), [{"name": "i", "image": "busybox"}], "busybox is not pinned"),
    ("writable", "ray", RAY, (*BOX, "volumeMounts"), [], "/tmp is on no emptyDir"),
    ("writable", "ray", RAY, (*BOX, "env"), [], "HOME, which is not set, is on no emptyDir"),
    ("writable", "ray", RAY, (*POD, "volumes", 0, "emptyDir"), {}, "has no sizeLimit"),
    ("probes", "container", SERVER, (*SERVER_BOX, "readinessProbe", "httpGet", "path"), "/", "does not ask /readyz"),
    ("scaling", "container", HPA, ("spec", "minReplicas"), 99, "minReplicas 99 is above maxReplicas"),
    ("scaling", "container", SERVER, ("spec", "replicas"), 2, "are set by it and by an autoscaler"),
    ("labels", "container", HPA, ("metadata", "labels"), GONE, "app.kubernetes.io/name is None"),
    ("labels", "ray", RAY, (*GROUP, *LABELS), {}, "app.kubernetes.io/name is kuberay"),
    (
        "jobs",
        "container",
        "CronJob/text-service-materialize",
        ("spec", "concurrencyPolicy"),
        "Allow",
        "two of it may run at once",
    ),
    (
        "jobs",
        "container",
        "CronJob/text-service-materialize",
        ("spec", "jobTemplate", "spec", "activeDeadlineSeconds"),
        GONE,
        "may hang, or be tried again, for ever",
    ),
    ("schemas", "container", NODES, ("spec", "replica"), 3, "'replica' was unexpected"),
    (
        "schemas",
        "container",
        NODES,
        (*SERVER_BOX, "readinessProbe", "httpGet", "schema"),
        "HTTPS",
        "'schema' was unexp",
    ),
    ("schemas", "container", MONITOR, ("spec", "endpoints", 0, "tls"), {}, "'tls' was unexpected"),
    ("schemas", "container", MONITOR, ("spec", "endpoints", 0, "interval"), "often", "does not match"),
    ("schemas", "container", "PrometheusRule/qdrant", (*RULE, "expr"), GONE, "'expr' is a required property"),
    ("schemas", "container", "PrometheusRule/qdrant", ("kind",), "PrometheusRules", "no CustomResourceDefinition"),
    ("schemas", "container", BACKUP, ("spec", "schedule"), 5, "5 is not of type 'string'"),
    (
        "names_that_pods_use",
        "container",
        BACKUP,
        (*BACKUP_POD, "spec", "serviceAccountName"),
        "backup",
        "the service account backup is not there",
    ),
    (
        "names_that_pods_use",
        "container",
        NODES,
        (*SERVER_POD, "volumes", 0, "configMap", "name"),
        "other",
        "the ConfigMap other",
    ),
    ("names_that_pods_use", "container", NODES, (*SERVER_BOX, "volumeMounts", 0, "name"), "data", "mounts data, which"),
    (
        "names_that_pods_use",
        "container",
        NODES,
        (*SERVER_BOX, "livenessProbe", "httpGet", "port"),
        "http",
        "livenessProbe asks port http",
    ),
    ("secrets", "container", NODES, (*SERVER_BOX, "env", 2, *KEY_OF), "key", "nobody makes the key key of the Secret"),
    (
        "secrets",
        "container",
        MONITOR,
        ("spec", "endpoints", 0, "tlsConfig", "ca", "secret", "name"),
        "tls",
        "nobody makes the Secret tls",
    ),
    (
        "secrets",
        "container",
        MONITOR,
        ("spec", "endpoints", 0, "authorization", "credentials", "key"),
        "token",
        "nobody makes the key token of the Secret qdrant-keys",
    ),
    (
        "secrets",
        "container",
        BACKUP,
        (*BACKUP_BOX, "envFrom", 0, "secretRef", "name"),
        "aws",
        "nobody makes the Secret",
    ),
    (
        "secrets",
        "container",
        NODES,
        (*SERVER_BOX, "env", 2),
        {"name": "API_KEY", "value": "0123"},
        "API_KEY stands in the file",
    ),
    ("selectors", "container", "Service/qdrant", ("spec", "selector", NAME), "q", "Service/qdrant: selects nobody"),
    ("selectors", "container", BUDGET, ("spec", "selector", "matchLabels", COMPONENT), "db", "/qdrant: selects nobody"),
    ("routes", "container", "Service/qdrant", ("spec", "ports", 0, "targetPort"), "http", "leads to port http, which"),
    ("budgets", "container", BUDGET, ("spec", "maxUnavailable"), 2, "/qdrant: says {'maxUnavailable': 2, 'unh"),
    ("restricted", "container", NODES, (*SERVER_POD, "securityContext", "runAsNonRoot"), GONE, "runs as root"),
    ("restricted", "container", NODES, (*SERVER_POD, "automountServiceAccountToken"), GONE, "gets a token of the API"),
    (
        "restricted",
        "container",
        NODES,
        (*SERVER_BOX, "securityContext", "capabilities", "add"),
        ["SYS_PTRACE"],
        "keeps capabilities",
    ),
    ("restricted", "container", BACKUP, (*BACKUP_BOX, "securityContext"), {}, "may write to its image"),
    (
        "restricted",
        "container",
        BACKUP,
        (*BACKUP_POD, "spec", "hostNetwork"),
        True,
        "shares a namespace of its machine",
    ),
    (
        "restricted",
        "container",
        BACKUP,
        (*BACKUP_POD, "spec", "volumes", 0),
        {"name": "tls", "hostPath": {"path": "/"}},
        "has a volume that is not allowed",
    ),
    ("images", "container", NODES, (*SERVER_BOX, "image"), "qdrant/qdrant", "qdrant/qdrant is not pinned"),
    ("resources", "container", NODES, (*SERVER_BOX, "resources", "requests", "memory"), "1Gi", "are not its limits"),
    ("jobs", "container", BACKUP, ("spec", "concurrencyPolicy"), "Allow", "two of it may run at once"),
    ("database_metrics", "container", MONITOR, ("spec", "endpoints", 0, "port"), "metrics", "port metrics is none"),
    ("database_metrics", "container", MONITOR, ("spec", "endpoints", 0, "authorization"), GONE, "need TLS and the key"),
    (
        "database_metrics",
        "container",
        MONITOR,
        ("spec", "selector", "matchLabels", "monitored"),
        "yes",
        "selects 0 Services",
    ),
    ("database_metrics", "container", MONITOR, ("spec", "jobLabel"), "monitored", "the alerts look for the job qdrant"),
    (
        "database_nodes",
        "container",
        "Service/qdrant-headless",
        ("spec", "publishNotReadyAddresses"),
        GONE,
        "gives nodes no name before they are ready",
    ),
    ("database_nodes", "container", NODES, ("spec", "serviceName"), "qdrant", "the Service qdrant gives nodes no name"),
    ("database_nodes", "container", NODES, (*SERVER_BOX, "ports", 1, "containerPort"), 6336, "has the ports"),
    (
        "database_nodes",
        "container",
        NODES,
        (*SERVER_BOX, "volumeMounts", 1, "mountPath"),
        "/snapshots",
        "is on no volume that stays",
    ),
    ("database_nodes", "container", NODES, (*SERVER_BOX, "volumeMounts", 3, "mountPath"), "/tls", "not in the Secret"),
    (
        "database_traffic",
        "container",
        DATABASE_POLICY,
        ("spec", "ingress", 0, "from", 0, "podSelector", "matchLabels"),
        {"app": "x"},
        "CronJob/qdrant-backup does not reach the nodes",
    ),
    (
        "database_traffic",
        "container",
        DATABASE_POLICY,
        ("spec", "ingress", 2, "from"),
        [{"podSelector": {}}],
        "reaches the port of the peers",
    ),
    (
        "database_traffic",
        "container",
        DATABASE_POLICY,
        ("spec", "ingress", 2, "ports"),
        [],
        "a rule holds for everybody, or for every port",
    ),
    ("database_traffic", "container", DATABASE_POLICY, (*EGRESS, "ports", 0, "port"), 6336, "do not reach each other"),
    ("database_outage", "container", NODES, ("spec", "replicas"), 1, "three nodes are the least"),
    (
        "database_outage",
        "container",
        NODES,
        (*SERVER_BOX, "readinessProbe", "httpGet", "path"),
        "/",
        "ask /readyz over",
    ),
    ("database_outage", "container", NODES, (*SERVER_BOX, "startupProbe"), GONE, "a probe is missing"),
    (
        "database_outage",
        "container",
        NODES,
        (*SERVER_POD, "affinity", "podAntiAffinity"),
        {"preferredDuringSchedulingIgnoredDuringExecution": []},
        "two nodes may run on one machine",
    ),
]

# (check, render, rendered file, text in it, planted text, words of the fault)
FILES: list[tuple[str, str, str, str, str, str]] = [
    (
        "strict_serve_config",
        "ray",
        "config/serve.yaml",
        "max_ongoing_requests:",
        "max_ongoing:",
        "Serve has no such key",
    ),
    ("strict_serve_config", "ray", "config/serve.yaml", "num_gpus:", "gpus:", "gpus: Serve has no such key"),
    ("strict_serve_config", "ray", "config/serve.yaml", "EveryNode", "Everynode", "serveConfigV2: 1 validation error"),
    ("strict_serve_config", "ray", "config/serve.yaml", "EveryNode", "HeadOnly", "proxy_location is not EveryNode"),
    ("strict_serve_config", "ray", "config/serve.yaml", "port: 8000", "port: 8001", "http_options.port is not 8000"),
    ("room", "ray", "config/serve.yaml", "num_gpus: 0.5", "num_gpus: 1.5", "there is room for 0"),
    (
        "room",
        "ray",
        "config/serve.yaml",
        "max_replicas: 2",
        "max_replicas: 20",
        "has max_replicas 20, and there is room",
    ),
    ("drain", "ray", "config/serve.yaml", "shutdown_timeout_s: 10", "shutdown_timeout_s: 3", "its replica is stopped"),
    (
        "drain",
        "ray",
        "config/serve.yaml",
        "  request_timeout_s: 7",
        "  request_timeout_s: 4",
        "Serve gives a request up",
    ),
    ("drain", "ray", "config/serve.yaml", "batch_wait_ms: 0", "batch_wait_ms: 9000", "a batch waits 9.0 s, a request"),
    ("one_version_of_ray", "ray", "constraints.txt", "ray==", "ray==1.", "constraints.txt pins 1."),
    ("one_version_of_ray", "ray", "deploy/Dockerfile", "--constraint constraints.txt", "ray[serve]", "its Ray is not"),
    ("image_for_kuberay", "ray", "deploy/Dockerfile", " wget=1.*", " curl=7.*", "has no wget"),
    ("throughput", "ray", "config/ray.env", "RAY_SERVE_LOG_TO_STDERR=1", "", "only some are set"),
    ("throughput", "ray", "config/ray.env", "RAY_SERVE_LOG_TO_STDERR=1", "RAY_SERVE_LOGS=1", "reads no RAY_SERVE_LOGS"),
    (
        "names_that_pods_use",
        "ray",
        "config/kustomization.yaml",
        "service-ray-env",
        "service-env",
        "ray-env is not there",
    ),
    ("secrets", "ray", "deploy/cloud/kustomization.yaml", "  - externalsecret-ray-auth.yaml\n", "", "nobody makes"),
    ("secrets", "ray", "config/ray.env", "RAY_worker", "HF_TOKEN=0123\nRAY_worker", "HF_TOKEN stands in the file"),
    (
        "selectors",
        "container",
        "deploy/base/kustomization.yaml",
        "  - networkpolicy-jobs.yaml\n",
        "",
        "-jobs: is missing",
    ),
    ("selectors", "ray", "deploy/base/kustomization.yaml", "  - poddisruptionbudget-head.yaml\n", "", "is missing"),
    (
        "monitors",
        "ray",
        "deploy/cloud/kustomization.yaml",
        "  - podmonitor-workers.yaml\n",
        "",
        "metrics are read at []",
    ),
    ("routes", "ray", "deploy/cloud/kustomization.yaml", "  - httproute.yaml\n", "", "ways from outside are []"),
    ("images", "ray", "deploy/overlays/production/kustomization.yaml", "digest: sha256:", "newTag: v", "not pinned"),
    ("namespaces", "container", "deploy/overlays/production/kustomization.yaml", "namespace: text", "# ", "namespaces"),
    (
        "secrets_in_ci",
        "claims/local",
        CI,
        " --from-literal=read-only-api-key=none",
        "",
        "makes the key read-only-api-key",
    ),
    (
        "secrets_in_ci",
        "claims/local",
        CI,
        "secret generic text-service-ray-auth",
        "",
        "the Secret text-service-ray-auth",
    ),
    ("health_of_backends", "ray", "deploy/cloud/kustomization.yaml", "  - healthcheckpolicy.yaml\n", "", "are told {}"),
    ("kept_while_used", "ray", "config/kustomization.yaml", "Prune=false", "Prune=true", "not {'argocd"),
    ("kept_while_used", "ray", "config/kustomization.yaml", "compare-options", "compares", "not {'argocd"),
    ("kept_while_used", "two-groups", "config/kustomization.yaml", "prune: disabled", "prunes: disabled", "not {'kust"),
    (
        "watched_by_gitops",
        "ray",
        "deploy/gitops/argocd-health.yaml",
        "InitializingTimeout",
        "",
        "does not look at Init",
    ),
    ("watched_by_gitops", "ray", "deploy/gitops/argocd-health.yaml", "observedGeneration", "", "does not look at obs"),
    ("watched_by_gitops", "two-groups", FLUX, "'ValidationFailed', ", "", "does not look at ValidationFailed"),
    ("watched_by_gitops", "two-groups", FLUX, "kind: RayService, name", "kind: RayCluster, name", "waits for [{"),
    ("watched_by_gitops", "two-groups", FLUX, "wait: false", "wait: true", "waits for [{"),
    (
        "watched_by_gitops",
        "container",
        FLUX,
        "healthChecks:",
        "checks:",
        "waits for None, not {'apiVersion': 'apps/v1'",
    ),
]


@pytest.fixture(scope="session")
def whole(samples: dict[str, Path]) -> dict[str, Overlay]:
    """Overlays that have, between them, every kind of object: `production` of a render, or the one that is named."""
    names = {name: (name, "production") for name in samples}
    names |= {f"{name}/local": (name, "local") for name in ("ray", "claims")}
    built = {
        name: Overlay(f"{folder}/{environment}", samples[folder], read(build(samples[folder], environment)))
        for name, (folder, environment) in names.items()
    }
    return {name: each if each.environment == "local" else with_files(each) for name, each in built.items()}


def test_without_a_planted_break_no_check_finds_one(whole: dict[str, Overlay]) -> None:
    faults = [(name, fault) for name, overlay in whole.items() for check in CHECKS for fault in check(overlay)]
    assert not faults, faults


def plant(thing: Object, where: Path_, value: Any) -> Object:
    broken: Any = copy.deepcopy(thing)
    place = broken
    for key in where[:-1]:
        place = place[key]
    if value is GONE:
        del place[where[-1]]
    elif isinstance(value, More):
        more = value.value(place[where[-1]]) if callable(value.value) else value.value
        place[where[-1]] = [*place[where[-1]], more]
    else:
        place[where[-1]] = value
    found: Object = broken
    return found


@pytest.mark.parametrize(
    ("check", "name", "key", "where", "value", "words"),
    OBJECTS,
    ids=[f"{row[0]}-{'.'.join(map(str, row[3][-2:]))}-{row[5][:20]}" for row in OBJECTS],
)
def test_a_break_in_an_object_is_found(
    check: str, name: str, key: str, where: Path_, value: Any, words: str, whole: dict[str, Overlay]
) -> None:
    overlay = whole[name]
    broken = replace(overlay, objects={**overlay.objects, key: plant(overlay.objects[key], where, value)})
    found = BY_NAME[check](broken)
    assert any(words in fault for fault in found), found


@pytest.mark.parametrize(
    ("check", "name", "file", "old", "new", "words"), FILES, ids=[f"{row[0]}-{row[4][:30] or 'gone'}" for row in FILES]
)
def test_a_break_in_a_rendered_file_is_found(
    check: str, name: str, file: str, old: str, new: str, words: str, samples: dict[str, Path], tmp_path: Path
) -> None:
    sample, _, environment = name.partition("/")
    folder = Path(shutil.copytree(samples[sample], tmp_path / sample))
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    built = Overlay(f"{sample}/{environment or 'production'}", folder, read(build(folder, environment or "production")))
    found = BY_NAME[check](built if environment else with_files(built))
    assert any(words in fault for fault in found), found


def test_every_check_has_been_seen_to_fail() -> None:
    assert {row[0] for row in [*OBJECTS, *FILES]} == BY_NAME.keys()
    print(f"\n{len(OBJECTS)} breaks in objects and {len(FILES)} in files, for {len(BY_NAME)} checks")


def test_the_scanner_sees_into_the_pods_of_a_rayservice(whole: dict[str, Overlay], tmp_path: Path) -> None:
    """As it stands it finds nothing; a container that may do all is found, and one that no NetworkPolicy guards."""
    policies = [policy for _, policy in whole["ray"].of_kind("NetworkPolicy")]
    head, worker, *_ = whole["ray"].pods()
    spoiled = plant(worker.spec, ("containers", 0, "securityContext"), {"privileged": True})
    low = plant(worker.spec, ("securityContext", "runAsUser"), 1000)
    found = scan(
        {
            "as it stands": lifted(head, policies),
            "privileged": lifted(replace(worker, spec=spoiled), policies),
            "unguarded": lifted(worker, []),
            "as Qdrant may": lifted(replace(worker, spec=low), policies),
        },
        tmp_path,
    )
    checks: dict[str, set[str]] = {}
    for case, check, _ in found:
        checks.setdefault(case, set()).add(check)
    assert {"CKV_K8S_16", "CKV_K8S_20", "CKV_K8S_22", "CKV_K8S_28"} <= checks.pop("privileged")
    assert checks == {"unguarded": {"CKV2_K8S_6"}, "as Qdrant may": {"CKV_K8S_40"}}

"""The Kubernetes and KServe manifests: they fit together, and what they start (command, arguments, configuration) is started here and
answers their probes. No cluster is used."""
import base64
import json
import os
import re
import shutil
import subprocess

from deploy import BUILD, CIFAR10, FOLDER, JPEG, ROOT, check, run_groups, skip
from daemon import PATIENCE, Daemon

try:
    import yaml
except ImportError:
    yaml = None
BASE = os.path.join(ROOT, "config/kubernetes")
LABELS = {"app.kubernetes.io/name": "hwgqd"}


def load(path):
    with open(os.path.join(ROOT, "config", path)) as stream:
        documents = list(yaml.safe_load_all(stream))
    assert len(documents) == 1, path
    return documents[0]


def resources():
    kustomization = load("kubernetes/kustomization.yaml")
    found = [load("kubernetes/" + name) for name in kustomization["resources"]]
    return kustomization, {document["kind"]: document for document in found}


def manifests():
    kustomization, kinds = resources()
    check("every kind", set(kinds) == {"Deployment", "Service", "PodDisruptionBudget", "HorizontalPodAutoscaler", "NetworkPolicy"}, kinds)
    names = {name for generator in kustomization["configMapGenerator"] for name in generator["files"]} | set(kustomization["resources"])
    others = set(os.listdir(BASE)) - names - {"kustomization.yaml", "prometheus-adapter.yaml"}
    check("every file is used", not others, others)
    deployment = kinds["Deployment"]["spec"]
    pod, container = deployment["template"]["spec"], deployment["template"]["spec"]["containers"][0]
    check("all select the pods", deployment["selector"]["matchLabels"] == deployment["template"]["metadata"]["labels"] == LABELS and
          kinds["Service"]["spec"]["selector"] == kinds["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"] ==
          kinds["NetworkPolicy"]["spec"]["podSelector"]["matchLabels"] == LABELS)
    scaler = kinds["HorizontalPodAutoscaler"]["spec"]
    target = scaler["scaleTargetRef"]
    check("the autoscaler scales the deployment", target["name"] == kinds["Deployment"]["metadata"]["name"] and
          target["kind"] == "Deployment" and "replicas" not in deployment and scaler["minReplicas"] > 1)
    metric = scaler["metrics"][0]["pods"]["metric"]["name"]
    rule = load("kubernetes/prometheus-adapter.yaml")["rules"]["custom"][0]
    check("its metric is what the adapter makes", metric == rule["name"]["as"] == rule["seriesQuery"].split("{")[0], metric)
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    used = [container[probe]["httpGet"]["port"] for probe in ("startupProbe", "readinessProbe", "livenessProbe")]
    used += [port["targetPort"] for port in kinds["Service"]["spec"]["ports"]]
    used += [port["port"] for rule in kinds["NetworkPolicy"]["spec"]["ingress"] for port in rule["ports"]]
    check("ports have names that exist", set(used) == set(ports) == {"http"}, used)
    check("the scrape port", deployment["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["http"]))
    check("no rights", pod["securityContext"]["runAsNonRoot"] and container["securityContext"]["readOnlyRootFilesystem"] and
          container["securityContext"]["capabilities"] == {"drop": ["ALL"]} and
          container["securityContext"]["allowPrivilegeEscalation"] is False and pod["automountServiceAccountToken"] is False)
    check("mounts have volumes", [mount["name"] for mount in container["volumeMounts"]] == [volume["name"] for volume in pod["volumes"]])
    with open(os.path.join(ROOT, "docker/Dockerfile")) as stream:
        dockerfile = stream.read()
    user = pod["securityContext"]["runAsUser"]
    check("user and program are the image's", "USER %d:%d" % (user, user) in dockerfile and container["command"][0] in dockerfile)
    with open(os.path.join(BASE, "hwgqd.json")) as stream:
        config = json.load(stream)
    drain = config["drain_delay_ms"] + config["queue_deadline_ms"]
    check("the drain fits into the grace period", drain + 10000 < 1000 * pod["terminationGracePeriodSeconds"])
    check("and is longer than two readiness checks",
          config["drain_delay_ms"] > 2000 * container["readinessProbe"]["periodSeconds"] * container["readinessProbe"]["failureThreshold"])


def kustomize():
    kubectl = shutil.which("kubectl") or shutil.which("kustomize")
    if not kubectl:
        skip("kubectl is not there: the kustomization is not built")
        return
    command = [kubectl, "kustomize" if "kubectl" in kubectl else "build", BASE]
    result = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    if not check("kustomize builds it", result.returncode == 0, result):
        return
    documents = list(yaml.safe_load_all(result.stdout))
    config = next(document for document in documents if document["kind"] == "ConfigMap")
    deployment = next(document for document in documents if document["kind"] == "Deployment")
    check("the deployment mounts the generated configuration",
          deployment["spec"]["template"]["spec"]["volumes"][0]["configMap"]["name"] == config["metadata"]["name"] != "hwgqd")
    check("everything is labelled", len(documents) == 6 and all(d["metadata"]["labels"] == LABELS for d in documents))


def start(container, replace):
    """The daemon as the container starts it, with paths and ports of this machine."""
    flags = []
    for argument in container["args"]:
        for old, new in replace.items():
            argument = argument.replace(old, new)
        flags.append(argument)
    return Daemon(BUILD, FOLDER, *flags)


def bytes_of(quantity):
    number, unit = re.fullmatch(r"(\d+)(Mi|Gi)", quantity).groups()
    return int(number) << {"Mi": 20, "Gi": 30}[unit]


def deployment_starts():
    container = resources()[1]["Deployment"]["spec"]["template"]["spec"]["containers"][0]
    with open(os.path.join(BASE, "hwgqd.json")) as stream:
        config = stream.read().replace("/usr/local/share/hwgqd/", ROOT + "/").replace("0.0.0.0:8080", "127.0.0.1:0")
    with open(os.path.join(FOLDER, "hwgqd.json"), "w") as stream:
        stream.write(re.sub(r'"drain_delay_ms": \d+', '"drain_delay_ms": 0', config))
    with start(container, {"/etc/hwgqd": FOLDER}) as daemon:
        for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
            check(probe, daemon.get(container[probe]["httpGet"]["path"]).status == 200)
        check("it classifies", daemon.post("/classify", JPEG).json["model"] == "cifar10")
        ceiling = next(event for event in daemon.events() if event["message"].startswith("memory ceiling"))["all"] << 20
        check("the memory limit is above the ceiling that the daemon states",
              ceiling < bytes_of(container["resources"]["limits"]["memory"]), ceiling)
    check("it stops", daemon.exit_code == 0)


def kserve():
    runtime, service = load("kserve/runtime.yaml"), load("kserve/inferenceservice.yaml")
    container = runtime["spec"]["containers"][0]
    wanted = service["spec"]["predictor"]["model"]
    check("the runtime serves what the service asks for", container["name"] == "kserve-container" and
          wanted["protocolVersion"] in runtime["spec"]["protocolVersions"] and
          any(f["name"] == wanted["modelFormat"]["name"] and f["version"] == wanted["modelFormat"]["version"] and f["autoSelect"]
              for f in runtime["spec"]["supportedModelFormats"]))
    mounted = os.path.join(FOLDER, "mnt/models")
    os.makedirs(os.path.join(mounted, "1"))
    shutil.copy(CIFAR10, os.path.join(mounted, "1/model.hwgq"))
    shutil.copy(CIFAR10, os.path.join(mounted, "2.hwgq"))
    name = service["metadata"]["name"]
    replace = {"{{.Name}}": name, "/mnt/models": mounted, "0.0.0.0:8080": "127.0.0.1:0", "5000": "0"}
    with start(container, replace) as daemon:
        for probe in ("readinessProbe", "livenessProbe"):
            check("KServe's " + probe, daemon.get(container[probe]["httpGet"]["path"]).status == 200)
        check("both versions", daemon.get("/v2/models/%s" % name).json["versions"] == ["2", "1"], daemon.get("/v2/models/%s" % name).json)
        body = {"inputs": [{"name": "image", "shape": [1], "datatype": "BYTES", "data": [base64.b64encode(JPEG).decode()]}]}
        reply = daemon.post("/v2/models/%s/infer" % name, json.dumps(body).encode(), "application/json")
        check("it infers", reply.status == 200 and reply.json["model_name"] == name and reply.json["model_version"] == "2", reply.body)
    check("it stops", daemon.exit_code == 0)


if yaml:
    run_groups(manifests, kustomize, deployment_starts, kserve)
else:
    skip("python3-yaml is not there (config/install-packages.sh test installs it)")
    run_groups()

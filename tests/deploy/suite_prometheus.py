"""A real Prometheus with config/prometheus.yml scrapes a real daemon: alerts fire under overload and resolve, and every query of the
dashboard gives data. Minutes in the rules are seconds here: tests/deploy/rules_test.yml tests the real times with promtool."""
import json
import os
import re
import subprocess

import dashboard
from deploy import BUILD, CIFAR10, FOLDER, JPEG, ROOT, Load, check, run_groups, skip, tool, wait_for
from daemon import PATIENCE, Daemon, form, free_port
from prometheus import CONFIG, PROMETHEUS, Prometheus, read

PROMTOOL = tool("promtool")


def promtool(*arguments):
    return subprocess.run([PROMTOOL, *arguments], capture_output=True, text=True, timeout=PATIENCE)


def rules():
    if not PROMTOOL:
        skip("promtool is not there (config/install-packages.sh test fetches it)")
        return
    names = [os.path.join(CONFIG, "prometheus", name) for name in ("records.yml", "alerts.yml")]
    result = promtool("check", "config", os.path.join(CONFIG, "prometheus.yml"))
    check("promtool check config", result.returncode == 0 and "2 rule files" in result.stdout, result)
    result = promtool("check", "rules", *names)
    check("promtool check rules", result.returncode == 0 and "FAILED" not in result.stdout + result.stderr, result)
    result = promtool("test", "rules", os.path.join(ROOT, "tests/deploy/rules_test.yml"))
    check("promtool test rules", result.returncode == 0, result.stdout + result.stderr)
    # The unit tests notice a threshold that is wrong.
    os.makedirs(os.path.join(FOLDER, "config/prometheus"))
    os.makedirs(os.path.join(FOLDER, "tests/deploy"))
    for name in ("records.yml", "alerts.yml"):
        with open(os.path.join(FOLDER, "config/prometheus", name), "w") as stream:
            stream.write(read("prometheus/" + name).replace("fullness > 0.5", "fullness > 0.9"))
    with open(os.path.join(FOLDER, "tests/deploy/rules_test.yml"), "w") as stream, \
            open(os.path.join(ROOT, "tests/deploy/rules_test.yml")) as source:
        stream.write(source.read())
    result = promtool("test", "rules", os.path.join(FOLDER, "tests/deploy/rules_test.yml"))
    check("and find a wrong one", result.returncode != 0 and "HwgqdQueueFilling" in result.stdout + result.stderr, result)


def dashboard_queries():
    """(where, query with the variables filled in) of panels and annotations, and the variables' own queries."""
    dashboard = json.loads(read("grafana/hwgqd.json"))
    fill = {"$__rate_interval": "10s", "$instance": ".*", "$model": ".*"}
    found = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel["targets"]]
    found += [("annotation " + a["name"], a["expr"]) for a in dashboard["annotations"]["list"]]
    queries = []
    for where, text in found:
        for name, value in fill.items():
            text = text.replace(name, value)
        queries.append((where, text))
    variables = [v["query"]["query"] for v in dashboard["templating"]["list"] if v["type"] == "query"]
    return queries, variables


def structure():
    dashboard = json.loads(read("grafana/hwgqd.json"))
    ids = [panel["id"] for panel in dashboard["panels"]]
    check("ids of the panels are unique", len(ids) == len(set(ids)) > 10)
    cells = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        mine = {(x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])}
        check("panel %s has its own place" % panel["title"], not mine & cells and place["x"] + place["w"] <= 24, place)
        cells |= mine
    try:
        import yaml
    except ImportError:
        skip("python3-yaml is not there")
        return
    compose = yaml.safe_load(open(os.path.join(ROOT, "docker/compose.yaml")))
    mounts = [v for service in compose["services"].values() for v in service.get("volumes", [])]
    check("compose mounts what is there", len(mounts) == 5 and
          all(os.path.exists(os.path.join(ROOT, "docker", mount.split(":")[0])) for mount in mounts), mounts)
    source = yaml.safe_load(read("grafana/datasource.yaml"))["datasources"][0]
    host, port = source["url"].split("//")[1].split(":")
    check("Grafana's data source is compose's Prometheus", source["type"] == "prometheus" and
          compose["services"][host]["ports"] == ["127.0.0.1:%s:%s" % (port, port)], source)
    path = yaml.safe_load(read("grafana/dashboards.yaml"))["providers"][0]["options"]["path"]
    check("its folder of dashboards is mounted", any(path in mount for mount in mounts), path)
    target = yaml.safe_load(read("prometheus.yml"))["scrape_configs"][0]["static_configs"][0]["targets"][0]
    check("Prometheus scrapes compose's daemon", target.split(":")[0] in compose["services"], target)


def has_data(prometheus, query, result):
    """Leaves the answer in `result`."""
    result.clear()
    result.update(prometheus.api("query", query=query))
    return result.get("result") and all(sample["value"][1] != "NaN" for sample in result["result"])


def is_drawn(prometheus, empty):
    """Whether no panel is empty; which are goes to `empty`."""
    drawn = dashboard.Dashboard(read("grafana/hwgqd.json"), prometheus, 10)
    svg = drawn.svg()
    empty[:] = drawn.empty
    return svg.count("</text>") > 100 and not empty and "nan" not in svg


def overload():
    if not PROMETHEUS:
        skip("prometheus is not there (config/install-packages.sh test fetches it)")
        return
    body = form([("image", JPEG)] * 40)
    flags = ("--models", "cifar10=" + CIFAR10, "--models", os.path.join(ROOT, "models/zoo/fashion-mnist.hwgq"), "--workers", "1",
             "--queue-capacity", "10")
    with Daemon(BUILD, FOLDER, *flags) as daemon, Prometheus(daemon) as prometheus:
        if not check("Prometheus scrapes", prometheus.scrapes(), prometheus.tail()):
            return
        with Load(daemon.port, 2, JPEG, "image/jpeg", pause=0.05):
            # A scrape that a busy machine is late with is an alert, too, while minutes are seconds; it does not stay.
            calm = wait_for(lambda: prometheus.query("instance_model:hwgqd_requests:rate5m > 0") and not prometheus.firing())
            check("no alert under a small load", calm, prometheus.firing())
        wanted = {"HwgqdQueueFilling", "HwgqdErrorShare"}
        with Load(daemon.port, 24, *body, pause=0.02) as load:
            fired = wait_for(lambda: wanted <= prometheus.firing())
            check("alerts fire under overload", fired, prometheus.firing())
            print("clients saw %s; firing: %s" % (load.seen, sorted(prometheus.firing())))
            queries, variables = dashboard_queries()
            for where, query in queries:
                result = {}
                if where == "annotation Starts":  # the daemon was started once, before the first scrape
                    result = prometheus.api("query", query=query)
                    check("dashboard: %s is valid" % where, result.get("result") == [], result)
                else:
                    check("dashboard: %s has data" % where, wait_for(lambda query=query: has_data(prometheus, query, result)), (query, result))
            for variable in variables:
                series, label = re.fullmatch(r"label_values\((.*), (\w+)\)", variable).groups()
                values = wait_for(lambda: {sample["metric"].get(label) for sample in prometheus.query(series)})
                check("dashboard: variable %s" % label, values and None not in values, (variable, values))
            print("%d queries of the dashboard" % (len(queries) + len(variables)))
            empty = []
            check("every panel can be drawn", wait_for(lambda: is_drawn(prometheus, empty)), empty)
        check("alerts resolve afterwards", wait_for(lambda: not prometheus.firing()), prometheus.firing())
        values = wait_for(lambda: prometheus.query("instance:hwgqd_queue:fullness == 0"))
        check("the queue is empty again", values, prometheus.query("instance:hwgqd_queue:fullness"))


def restarts():
    """A daemon that starts again and again, and one that is gone."""
    if not PROMETHEUS:
        return
    port = free_port()
    flags = ("--models", CIFAR10, "--listen", "127.0.0.1:%d" % port)
    daemon = Daemon(BUILD, FOLDER, *flags)
    os.rename(os.path.join(FOLDER, "prometheus"), os.path.join(FOLDER, "prometheus-1"))
    with Prometheus(daemon) as prometheus:
        if not check("Prometheus scrapes the second daemon", prometheus.scrapes(), prometheus.tail()):
            return
        started = 'process_start_time_seconds{job="hwgqd"}'
        for i in range(4):
            check("start %d is seen" % (i + 1),
                  wait_for(lambda: prometheus.query("%s and (up == 1) and changes(%s[15m]) >= %d" % (started, started, i))))
            if i < 3:
                check("stops", daemon.stop() == 0, daemon.log())
                daemon = Daemon(BUILD, FOLDER, *flags)
        check("restarts fire", wait_for(lambda: "HwgqdRestarts" in prometheus.firing()), prometheus.firing())
        daemon.stop()
        check("a daemon that is gone fires", wait_for(lambda: "HwgqdDown" in prometheus.firing()), prometheus.firing())
        daemon = Daemon(BUILD, FOLDER, *flags)
        check("and resolves", wait_for(lambda: "HwgqdDown" not in prometheus.firing()), prometheus.firing())
    daemon.stop()


run_groups(rules, structure, overload, restarts)

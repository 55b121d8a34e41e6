"""A Prometheus with this project's configuration that scrapes one daemon."""
import json
import os
import re
import subprocess
import urllib.parse
import urllib.request

from deploy import FOLDER, ROOT, tool, wait_for
from daemon import PATIENCE, free_port

PROMETHEUS = tool("prometheus")
CONFIG = os.path.join(ROOT, "config")


def read(path):
    with open(os.path.join(CONFIG, path)) as stream:
        return stream.read()


class Prometheus:
    def __init__(self, daemon, interval="1s"):
        folder = os.path.join(FOLDER, "prometheus")
        os.makedirs(os.path.join(folder, "prometheus"))
        self.port = free_port()
        config = re.sub(r"(scrape|evaluation)_interval: \d+s", r"\1_interval: " + interval, read("prometheus.yml"))
        assert config.count("_interval: " + interval) == 2 and "hwgqd:8080" in config
        with open(os.path.join(folder, "prometheus.yml"), "w") as stream:
            stream.write(config.replace("hwgqd:8080", "127.0.0.1:%d" % daemon.port))
        for name in ("records.yml", "alerts.yml"):
            with open(os.path.join(folder, "prometheus", name), "w") as stream:
                # Not the 15 minutes that starts are counted over: four starts may take longer than 15 seconds on a busy machine.
                stream.write(re.sub(r"(\[|for: )(\d+)m\b(?<!15m)", r"\1\2s", read("prometheus/" + name)))
        self.log = open(os.path.join(folder, "log"), "w+")
        self.process = subprocess.Popen(
            [PROMETHEUS, "--config.file=" + os.path.join(folder, "prometheus.yml"), "--storage.tsdb.path=" + os.path.join(folder, "data"),
             "--web.listen-address=127.0.0.1:%d" % self.port], stdout=self.log, stderr=self.log)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.terminate()
        self.process.wait(PATIENCE)
        self.log.close()

    def scrapes(self):
        return wait_for(lambda: self.process.poll() is not None or self.query('up{job="hwgqd"} == 1')) and self.process.poll() is None

    def tail(self):
        self.log.seek(0)
        return self.log.read()[-2000:]

    def api(self, path, **parameters):
        url = "http://127.0.0.1:%d/api/v1/%s?%s" % (self.port, path, urllib.parse.urlencode(parameters))
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as reply:
                return json.load(reply)["data"]
        except urllib.error.HTTPError as error:
            return {"error": error.read().decode()}
        except OSError:
            return {}

    def query(self, query):
        return self.api("query", query=query).get("result", [])

    def firing(self):
        return {alert["labels"]["alertname"] for alert in self.api("alerts").get("alerts", []) if alert["state"] == "firing"}

"""Makes docs/dashboard.png: three minutes of a real daemon under changing load, scraped by a real Prometheus, in the
dashboard's panels as dashboard.py draws them. Needs chromium for the PNG and pngquant to make it small; without
chromium the SVG stays. Minutes in alerts are seconds.
    usage: python3 -B tests/deploy/dashboard_picture.py BUILD_DIR EMPTY_FOLDER [PICTURE.png]"""
import os
import shutil
import subprocess
import sys
import time

from dashboard import WIDTH, Dashboard
from deploy import BUILD, CIFAR10, FOLDER, JPEG, ROOT, Load
from daemon import Daemon, form, free_port
from prometheus import PROMETHEUS, Prometheus, read

PICTURE = sys.argv[3] if len(sys.argv) > 3 else os.path.join(ROOT, "docs/dashboard.png")
FASHION = "/v1/models/fashion-mnist/classify"


def phase(port, seconds, cifar10, fashion, pause, crowd=0):
    """So many clients of each network, and clients that send forty images at a time."""
    body = form([("image", JPEG)] * 40)
    with Load(port, cifar10, JPEG, "image/jpeg", pause=pause), Load(port, fashion, JPEG, "image/jpeg", path=FASHION, pause=pause), \
            Load(port, crowd, *body, pause=0.02):
        time.sleep(seconds)


def main():
    port = free_port()
    flags = ("--models", "cifar10=" + CIFAR10, "--models", os.path.join(ROOT, "models/zoo/fashion-mnist.hwgq"), "--workers", "2",
             "--queue-capacity", "20", "--listen", "127.0.0.1:%d" % port)
    daemon = Daemon(BUILD, FOLDER, *flags)
    with Prometheus(daemon, "2s") as prometheus:
        if not prometheus.scrapes():
            sys.exit("Prometheus does not scrape: " + prometheus.tail())
        start = time.time()
        phase(port, 35, 2, 1, 0.05)
        phase(port, 35, 3, 2, 0.01)
        phase(port, 30, 2, 1, 0.02, crowd=24)
        phase(port, 30, 2, 1, 0.05)
        daemon.stop()
        time.sleep(3)
        daemon = Daemon(BUILD, FOLDER, *flags)
        phase(port, 45, 2, 2, 0.02)
        dashboard = Dashboard(read("grafana/hwgqd.json"), prometheus, int(time.time() - start), step=2)
        svg = os.path.join(FOLDER, "dashboard.svg")
        with open(svg, "w") as stream:
            stream.write(dashboard.svg())
        height = int(dashboard.out[0].split('height="')[1].split('"')[0])
    daemon.stop()
    print("%s; empty: %s" % (svg, dashboard.empty or "none"))
    browser = shutil.which("chromium")
    if browser:
        subprocess.run([browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--screenshot=" + os.path.abspath(PICTURE),
                        "--window-size=%d,%d" % (WIDTH, height), "file://" + os.path.abspath(svg)], check=True, capture_output=True, timeout=120)
        if shutil.which("pngquant"):
            subprocess.run(["pngquant", "--force", "--strip", "--output", PICTURE, "64", PICTURE], check=True)
        print("%s: %d bytes" % (PICTURE, os.path.getsize(PICTURE)))


if __name__ == "__main__":
    if not PROMETHEUS:
        sys.exit("prometheus is not there: config/install-packages.sh test fetches it")
    main()

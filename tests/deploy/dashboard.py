"""Draws config/grafana/hwgqd.json as an SVG: the panels in their places, with the results of their own queries from a Prometheus.
This is not Grafana; it knows the kinds of panels and units that the dashboard has."""
import html
import json
import math
import re
import time

WIDTH, CELL_HEIGHT, GAP = 1280, 30, 4  # pixels: the whole, a row of the grid, between panels
COLOURS = "#73bf69 #f2cc0c #5794f2 #ff9830 #f2495c #b877d9 #8ab8ff #96d98d #ffa6b0 #a352cc".split()
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}


def number(value, unit):
    """As a panel of that unit shows it."""
    def short(v):
        for limit, suffix in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
            if abs(v) >= limit:
                return "%.3g%s" % (v / limit, suffix)
        return "%.3g" % v

    if unit == "percentunit":
        return "%.3g%%" % (100 * value)
    if unit == "s":
        for limit, scale, name in ((60, 1 / 60, "min"), (1, 1, "s"), (1e-3, 1e3, "ms")):
            if value >= limit:
                return "%.3g %s" % (value * scale, name)
        return "%.3g µs" % (value * 1e6) if value else "0 s"
    if unit == "bytes":
        for limit, name in ((2**30, "GiB"), (2**20, "MiB"), (2**10, "KiB")):
            if value >= limit:
                return "%.3g %s" % (value / limit, name)
        return "%.3g B" % value
    return short(value) + {"reqps": " req/s", "cps": " c/s"}.get(unit, "")


def legend(target, labels):
    return re.sub(r"{{\s*(\w+)\s*}}", lambda match: labels.get(match.group(1), ""), target.get("legendFormat") or "")


class Dashboard:
    def __init__(self, text, prometheus, seconds, step=1, rate_interval="10s"):
        self.dashboard, self.prometheus, self.step, self.rate_interval = json.loads(text), prometheus, step, rate_interval
        self.end = math.floor(time.time())
        self.start = self.end - seconds
        self.out, self.empty = [], []

    def series(self, query):
        """[(labels, [(time, value), ...])] of a query over the picture's time."""
        for name, value in (("$__rate_interval", self.rate_interval), ("$instance", ".*"), ("$model", ".*")):
            query = query.replace(name, value)
        data = self.prometheus.api("query_range", query=query, start=self.start, end=self.end, step=self.step)
        if "result" not in data:
            raise RuntimeError("%s: %s" % (query, data))
        return [(one["metric"], [(t, float(v)) for t, v in one["values"] if math.isfinite(float(v))]) for one in data["result"]]

    def panel_series(self, panel):
        return [(legend(target, labels) or str(labels), points)
                for target in panel["targets"] for labels, points in self.series(target["expr"]) if points]

    def add(self, text, *values):
        self.out.append(text % values)

    def text(self, x, y, words, size=11, colour="#ccccdc", anchor="start", weight="400"):
        self.add('<text x="%.1f" y="%.1f" font-size="%d" fill="%s" text-anchor="%s" font-weight="%s">%s</text>', x, y, size, colour, anchor,
                 weight, html.escape(words))

    def path(self, points, colour, closing="", fill="none", opacity=1.0):
        if points:
            self.add('<path d="M%s%s" stroke="%s" stroke-width="1.2" fill="%s" fill-opacity="%.2f"/>',
                     "L".join("%.1f %.1f" % point for point in points), closing, colour, fill, opacity)

    # Panels: x, y, w, h are the pixels inside the frame, below the title.
    def stat(self, panel, unit, x, y, w, h):
        series = self.panel_series(panel)
        if not series:
            return False
        points = series[0][1]
        value, colour = points[-1][1], COLOURS[0]
        for step in (panel["fieldConfig"]["defaults"].get("thresholds") or {}).get("steps", []):
            if step["value"] is None or value >= step["value"]:
                colour = NAMED[step["color"]]
        top = max(v for _, v in points) or 1
        line = [(x + w * (t - self.start) / (self.end - self.start), y + h - h * 0.45 * v / top) for t, v in points]
        self.path(line, colour, "L%.1f %.1fL%.1f %.1fZ" % (line[-1][0], y + h, line[0][0], y + h), colour, 0.15)
        self.text(x + w / 2, y + h / 2 + 6, number(value, unit), 28, colour, "middle", "600")
        return True

    def time_axis(self, x, y, w, h):
        every = next(s for s in (10, 30, 60, 120, 300, 900, 3600) if (self.end - self.start) / s <= w / 60)
        for t in range((self.start // every + 1) * every, self.end, every):
            at = x + w * (t - self.start) / (self.end - self.start)
            self.add('<path d="M%.1f %.1fV%.1f" stroke="#2c3235"/>', at, y, y + h)
            if at < x + w - 20:
                self.text(at, y + h + 13, time.strftime("%H:%M:%S", time.gmtime(t)), 10, "#9fa3ab", "middle")

    def annotations(self, x, y, w, h):
        for annotation in self.dashboard["annotations"]["list"]:
            colour = NAMED[annotation["iconColor"]]
            for _, points in self.series(annotation["expr"]):
                edges = [t for (t, _), (before, _) in zip(points, [(0, 0)] + points) if t - before > 1.5 * self.step]
                for t in edges:
                    at = x + w * (t - self.start) / (self.end - self.start)
                    self.add('<path d="M%.1f %.1fV%.1f" stroke="%s" stroke-dasharray="3 3"/>', at, y, y + h, colour)
                    self.add('<path d="M%.1f %.1fl-4 6h8z" fill="%s"/>', at, y + h, colour)

    def timeseries(self, panel, unit, x, y, w, h):
        series = self.panel_series(panel)
        if not series:
            return False
        stacked = panel["fieldConfig"]["defaults"]["custom"].get("stacking", {}).get("mode") == "normal"
        below, shown = {}, []
        for name, points in series:
            if stacked:
                points = [(t, below.get(t, 0) + v) for t, v in points]
            shown.append((name, points, dict(below)))
            below = {**below, **dict(points)} if stacked else {}
        top = max(v for _, points, _ in shown for _, v in points) or 1
        tick = 1024 ** math.floor(math.log(max(top, 1), 1024)) if unit == "bytes" else 10 ** math.floor(math.log10(top))
        tick = 60 if unit == "s" and top >= 120 else tick * 10 ** math.floor(math.log10(top / tick))
        tick *= next(m for m in (0.2, 0.5, 1, 2) if top / (tick * m) <= 5.5)
        left, plot = 58, h - 42
        x0, width, limit = x + left, w - left - 6, max(top * 1.05, tick)
        for i in range(int(limit / tick + 1e-9) + 1):
            at = y + plot - plot * i * tick / limit
            self.add('<path d="M%.1f %.1fH%.1f" stroke="#2c3235"/>', x0, at, x0 + width)
            self.text(x0 - 6, at + 4, number(i * tick, unit), 10, "#9fa3ab", "end")
        self.time_axis(x0, y, width, plot)
        self.annotations(x0, y, width, plot)
        along = x0 - 40

        def place(t, v):
            return x0 + width * (t - self.start) / (self.end - self.start), y + plot - plot * v / limit

        for i, (name, points, base) in reversed(list(enumerate(shown))):
            colour = COLOURS[i % len(COLOURS)]
            parts, last = [], None
            for point in points:  # a gap in the data is a gap in the line
                if last is None or point[0] - last > 1.5 * self.step:
                    parts.append([])
                parts[-1].append(point)
                last = point[0]
            for part in parts:
                line = [place(t, v) for t, v in part]
                back = "".join("L%.1f %.1f" % place(t, base.get(t, 0)) for t, _ in reversed(part))
                self.path(line, "none", back + "Z", colour, 0.1)
                self.path(line, colour)
        for i, (name, _, _) in enumerate(shown):
            if along + 22 + 6.2 * len(name) > x + w:
                self.text(along, y + h - 6, "…", 11)
                break
            self.add('<rect x="%.1f" y="%.1f" width="12" height="3" fill="%s"/>', along, y + h - 11, COLOURS[i % len(COLOURS)])
            self.text(along + 17, y + h - 6, name, 11)
            along += 30 + 6.2 * len(name)
        return True

    def heatmap(self, panel, _, x, y, w, h):
        buckets = []
        for labels, points in self.series(panel["targets"][0]["expr"]):
            if points and math.isfinite(float(labels["le"])):
                buckets.append((float(labels["le"]), dict(points)))
        buckets.sort(key=lambda bucket: bucket[0])
        if not buckets:
            return False
        counts = [(le, {t: max(0, v - (buckets[i - 1][1].get(t, 0) if i else 0)) for t, v in values.items()})
                  for i, (le, values) in enumerate(buckets)]
        used = [i for i, (_, values) in enumerate(counts) if any(v > 1e-9 for v in values.values())]
        counts = counts[max(0, used[0] - 1):used[-1] + 2] if used else counts
        most = max(v for _, values in counts for v in values.values()) or 1
        x0, width, plot = x + 58, w - 64, h - 22
        self.time_axis(x0, y, width, plot)
        columns = 60
        every = (self.end - self.start) / columns
        for i, (le, values) in enumerate(counts):
            row = plot / len(counts)
            at = y + plot - row * (i + 1)
            if i % (len(counts) // 8 + 1) == 0:
                self.text(x0 - 6, at + 4, number(le, "s"), 10, "#9fa3ab", "end")
            for column in range(columns):
                inside = [v for t, v in values.items() if column <= (t - self.start) / every < column + 1]
                share = sum(inside) / len(inside) / most if inside else 0
                if share > 0.001:
                    self.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" fill="hsl(%d 90%% %d%%)"/>', x0 + width * column / columns, at,
                             width / columns - 1, row - 1, 20 + 25 * share ** 0.5, 20 + 50 * share ** 0.4)
        return True

    def table(self, panel, _, x, y, w, h):
        rows = [labels for labels, _ in self.series(panel["targets"][0]["expr"])]
        if not rows:
            return False
        columns = [name for name in rows[0] if name not in ("__name__", "job", "instance")]
        at = x + 8
        for name in columns:
            self.text(at, y + 16, name, 11, "#6e9fff", weight="600")
            for j, row in enumerate(rows):
                self.text(at, y + 40 + 22 * j, row.get(name, ""), 11)
            at += 24 + 6.4 * max(len(row.get(name, "")) for row in [*rows, {name: name}])
        return True

    def svg(self):
        bottom = max(p["gridPos"]["y"] + p["gridPos"]["h"] for p in self.dashboard["panels"]) * CELL_HEIGHT
        self.add('<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" font-family="Inter, Roboto, DejaVu Sans, sans-serif">', WIDTH, bottom + GAP)
        self.add('<rect width="100%%" height="100%%" fill="#111217"/>')
        for panel in self.dashboard["panels"]:
            place, cell = panel["gridPos"], (WIDTH - GAP) / 24
            x, y = place["x"] * cell + GAP, place["y"] * CELL_HEIGHT + GAP
            w, h = place["w"] * cell - GAP, place["h"] * CELL_HEIGHT - GAP
            self.add('<rect x="%.1f" y="%.1f" width="%.1f" height="%.1f" rx="2" fill="#181b1f" stroke="#23262b"/>', x, y, w, h)
            self.text(x + 8, y + 18, panel["title"], 13, weight="500")
            draw = {"stat": self.stat, "timeseries": self.timeseries, "heatmap": self.heatmap, "table": self.table}[panel["type"]]
            if not draw(panel, panel["fieldConfig"]["defaults"].get("unit"), x + 4, y + 28, w - 8, h - 32):
                self.text(x + w / 2, y + h / 2, "No data", 14, "#9fa3ab", "middle")
                self.empty.append(panel["title"])
        self.out.append("</svg>")
        return "\n".join(self.out)

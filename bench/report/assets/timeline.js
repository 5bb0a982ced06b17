"use strict";
// Draws the timelines: a lane chart of phases and requests, and below it one chart per unit, all on one time axis.
(() => {
  const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const make = (tag, className, text) => {
    const element = document.createElement(tag);
    if (className) element.className = className;
    if (text !== undefined) element.textContent = text;
    return element;
  };
  const LANE = 18, GAP = 4;

  function axes(unit, labels) {
    const common = { stroke: colour("--muted"), grid: { stroke: colour("--grid"), width: 1 }, ticks: { show: false }, font: "12px system-ui, sans-serif" };
    return [
      { ...common, size: labels ? 30 : 6, values: labels ? (_, ticks) => ticks.map((tick) => `${tick} s`) : () => [] },
      { ...common, size: 58, splits: unit === null ? () => [] : undefined, space: 26 },
    ];
  }

  function lanes(launch, width, share) {
    const streams = [...new Set(launch.requests.map((request) => request[1]))].sort((a, b) => a - b).slice(0, 16);
    const deep = launch.phases.reduce((most, phase) => Math.max(most, phase[3] + 1), launch.phases.length ? 1 : 0);
    const rows = streams.length + deep, height = rows * (LANE + GAP) + 44;
    const paint = (plot) => {
      const { ctx } = plot, ratio = devicePixelRatio || 1, left = plot.bbox.left, right = left + plot.bbox.width;
      const x = (seconds) => Math.min(right, Math.max(left, plot.valToPos(seconds, "x", true)));
      const top = (row) => plot.bbox.top + (16 + row * (LANE + GAP)) * ratio;
      const bar = (from, to, row, fill, alpha) => {
        const begin = x(from), end = x(to);
        if (end <= left || begin >= right) return 0;
        ctx.globalAlpha = alpha; ctx.fillStyle = fill;
        ctx.fillRect(begin, top(row), Math.max(end - begin, ratio), LANE * ratio);
        return end - begin;
      };
      ctx.save();
      ctx.font = `${11 * ratio}px system-ui, sans-serif`; ctx.textBaseline = "middle"; ctx.textAlign = "left";
      launch.phases.forEach(([name, from, to, depth], index) => {
        const wide = bar(from, to, depth, name === "unattributed" ? colour("--p5") : colour(`--p${index % 5}`), depth ? 0.75 : 0.95);
        if (wide > ctx.measureText(name).width + 8 * ratio) {
          ctx.globalAlpha = 1; ctx.fillStyle = colour("--paper");
          ctx.fillText(name, Math.max(x(from), left) + 4 * ratio, top(depth) + LANE * ratio / 2);
        }
      });
      for (const [stage, stream, sent, first, end, failed] of launch.requests) {
        const row = deep + streams.indexOf(stream);
        if (row < deep) continue;
        const fill = failed ? colour("--bad") : stage === "warmup" || stage === "quality" ? colour("--muted") : colour(`--v${launch.colour}`);
        bar(sent, first === null ? end : first, row, fill, 0.35);
        if (first !== null) bar(first, end, row, fill, 0.95);
      }
      ctx.globalAlpha = 1; ctx.strokeStyle = colour("--ink"); ctx.fillStyle = colour("--muted"); ctx.lineWidth = ratio;
      let free = left;
      for (const [name, at] of launch.marks) {
        const place = x(at);
        if (place <= left || place >= right) continue;
        ctx.setLineDash([3 * ratio, 3 * ratio]);
        ctx.beginPath(); ctx.moveTo(place, plot.bbox.top + 12 * ratio); ctx.lineTo(place, plot.bbox.top + plot.bbox.height); ctx.stroke();
        const wide = ctx.measureText(name).width, start = Math.min(place, right - wide);
        if (start >= free) { ctx.fillText(name, start, plot.bbox.top + 6 * ratio); free = start + wide + 8 * ratio; }
      }
      ctx.restore();
    };
    const options = { width, height, legend: { show: false }, cursor: { sync: { key: share.key }, y: false, points: { show: false } },
      scales: { x: { time: false, range: share.range }, y: { range: [0, 1] } }, axes: axes(null, false),
      series: [{}, { show: true, stroke: "transparent", points: { show: false } }], hooks: { draw: [paint], setScale: [share.follow] } };
    return [options, [launch.t, launch.t.map(() => null)]];
  }

  // A probe that reads once a second has no value in most slices: the reader is shown the nearest one.
  function nearest(plot, series, index) {
    const values = plot.data[series];
    for (let away = 0; series > 0 && away < 40; away++) {
      if (values[index - away] != null) return index - away;
      if (values[index + away] != null) return index + away;
    }
    return index;
  }

  function panel(content, launch, width, share, last) {
    const digits = (value) => value === null || value === undefined ? "–" : `${Number(value.toPrecision(4))} ${content.unit}`;
    const options = { width, height: last ? 150 : 126, cursor: { sync: { key: share.key }, y: false, dataIdx: nearest },
      scales: { x: { time: false, range: share.range }, y: { range: (_, low, high) => low === null ? [0, 1] : uPlot.rangeNum(Math.min(low, content.unit === "°C" || content.unit === "MHz" ? low : 0), high, 0.1, true) } },
      axes: axes(content.unit, last), hooks: { setScale: [share.follow] },
      series: [{ label: "at", value: (_, value) => value === null ? "–" : `${value.toFixed(2)} s` },
        ...content.series.map((series, index) => ({ label: series.label, stroke: colour(`--p${index % 5}`), width: 1.6, dash: index > 4 ? [4, 3] : undefined, spanGaps: true, points: { show: false }, value: (_, value) => digits(value) }))] };
    return [options, [launch.t, ...content.series.map((series) => series.v)]];
  }

  let count = 0;
  function build(figure) {
    const { launches } = JSON.parse(figure.querySelector("script").textContent);
    const controls = make("div", "controls"), body = make("div"), label = make("label", "", "Launch "), select = make("select");
    launches.forEach((launch, index) => {
      const option = make("option", "", launch.status === "ok" ? launch.id : `${launch.id} (${launch.status})`);
      option.value = index; select.append(option);
    });
    label.append(select); controls.append(label); figure.prepend(controls, body);
    const key = `timeline${count++}`;
    let plots = [];
    const draw = () => {
      plots.forEach((plot) => plot.destroy()); plots = []; body.replaceChildren();
      const launch = launches[select.value], width = body.clientWidth;
      if (!width) return;
      let window_ = [0, launch.end], moving = false;
      const share = { key, range: () => window_,
        follow: (plot, scale) => {
          if (scale !== "x" || moving) return;
          const { min, max } = plot.scales.x;
          if (min === window_[0] && max === window_[1]) return;
          moving = true; window_ = [min, max];
          plots.forEach((other) => { if (other !== plot) other.setScale("x", { min, max }); });
          moving = false;
        } };
      share.range = (plot, min, max) => min === null || min === launch.t[0] && max === launch.t.at(-1) ? [0, launch.end] : [min, max];
      const add = ([options, data], title) => {
        if (title) body.append(make("div", "keys", title));
        plots.push(new uPlot(options, data, body));
      };
      add(lanes(launch, width, share));
      launch.panels.forEach((content, index) => add(panel(content, launch, width, share, index === launch.panels.length - 1), `${content.title}, ${content.unit}`));
    };
    let pending = 0;
    new ResizeObserver(() => { cancelAnimationFrame(pending); pending = requestAnimationFrame(() => { if (plots[0]?.width !== body.clientWidth) draw(); }); }).observe(body);
    select.addEventListener("change", draw);
    document.addEventListener("theme", draw);
    draw();
  }
  document.querySelectorAll("figure.timeline").forEach(build);
})();

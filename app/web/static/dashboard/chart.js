// The loss chart: training (as measured, and smoothed), validation, checkpoints, a readout.
import { h, keyed, put, set, svg } from './dom.js';
import * as format from './format.js';
import { logTicks, smooth, ticks } from './points.js';

export const MARGIN = { top: 12, right: 14, bottom: 34, left: 52 };
const FEW_DOTS = 80;

export const path = (spots) => spots.map(([x, y], n) => `${n ? 'L' : 'M'}${x.toFixed(1)} ${y.toFixed(1)}`).join('');

export class LossChart {
  #points; #checkpoints = []; #log = false; #shown = null; #frame = null; #size = [0, 0];

  constructor(points) {
    this.#points = points;
    this.grid = svg('g', { class: 'grid' });
    this.marks = svg('g', { class: 'marks' });
    this.raw = svg('path', { class: 'raw' });
    this.smooth = svg('path', { class: 'smooth' });
    this.valid = svg('path', { class: 'valid' });
    this.dots = svg('g', { class: 'dots' });
    this.cross = svg('line', { class: 'cross' });
    this.spots = svg('g', { class: 'spots' });
    this.drawing = svg(
      'svg', { role: 'img', tabindex: 0 },
      this.grid, this.marks, this.raw, this.smooth, this.valid, this.dots, this.cross, this.spots,
    );
    this.readout = h('dl', { class: 'readout' });
    this.nothing = h('p', { class: 'nothing' });
    this.note = h('p', { class: 'warning', hidden: true });
    const scale = (log, text) => h('button', {
      type: 'button', 'aria-pressed': String(log === this.#log), 'data-log': String(log),
      onclick: () => this.#setLog(log),
    }, text);
    this.scales = h('div', { class: 'segments', role: 'group', 'aria-label': 'Scale of the loss' },
      scale(false, 'Linear'), scale(true, 'Log'));
    this.element = h('section', { class: 'card chart', 'aria-label': 'Loss' },
      h('header', {}, h('h2', {}, 'Loss'), this.readout, this.scales),
      h('div', { class: 'plot' }, this.drawing, this.nothing), this.note);
    this.drawing.addEventListener('pointermove', (event) => this.#point(event));
    this.drawing.addEventListener('pointerleave', () => this.#show(null));
    this.drawing.addEventListener('blur', () => this.#show(null));
    this.drawing.addEventListener('keydown', (event) => this.#key(event));
    this.observer = new ResizeObserver(() => this.changed());
    this.observer.observe(this.drawing);
  }

  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  setCheckpoints(checkpoints) {
    this.#checkpoints = checkpoints;
    this.changed();
  }

  setEmptyText(text) { put(this.nothing, text); }

  changed() {
    this.#frame ??= requestAnimationFrame(() => { this.#frame = null; this.#draw(); });
  }

  #setLog(log) {
    this.#log = log;
    for (const button of this.scales.children) {
      set(button, 'aria-pressed', String(button.dataset.log === String(log)));
    }
    this.changed();
  }

  #draw() {
    const { clientWidth: width, clientHeight: height } = this.drawing;
    const training = this.#points.values('trainingLoss');
    const validation = this.#points.values('validationLoss');
    const all = [...training, ...validation].filter(({ value }) => !this.#log || value > 0);
    this.nothing.hidden = all.length > 0;
    set(this.drawing, 'class', all.length ? null : 'bare');
    this.#countBad();
    if (!width || !all.length) return;
    this.#size = [width, height];
    set(this.drawing, 'viewBox', `0 0 ${width} ${height}`);
    this.#scale(all);
    const smoothed = smooth(training);
    set(this.raw, 'd', this.#line(training));
    set(this.smooth, 'd', this.#line(smoothed));
    set(this.valid, 'd', this.#line(validation));
    this.#drawDots(validation);
    this.#drawGrid();
    this.#drawCheckpoints();
    this.#drawReadout(smoothed);
    const last = smoothed.at(-1);
    set(this.drawing, 'aria-label', last
      ? `Training loss from ${format.loss(smoothed[0].value)} at step ${smoothed[0].step} to `
        + `${format.loss(last.value)} at step ${last.step}. Arrow keys read single steps.`
      : 'Validation loss. Arrow keys read single steps.');
  }

  #countBad() {
    const bad = this.#points.sorted.filter((point) => point.nonFinite?.length).length;
    this.note.hidden = !bad;
    put(this.note, `At ${format.plural(bad, 'step')} a value was NaN or infinite. `
      + 'A lower learning rate often helps.');
  }

  #scale(all) {
    const [width, height] = this.#size;
    const steps = this.#points.sorted;
    const change = this.#log ? Math.log10 : (value) => value;
    let low = Infinity;
    let high = -Infinity;
    for (const { value } of all) { low = Math.min(low, value); high = Math.max(high, value); }
    [this.low, this.high] = [low, high];
    const pad = (change(high) - change(low)) * 0.06 || Math.abs(change(high)) * 0.1 || 0.1;
    const bottom = this.#log ? change(low) - pad : Math.max(0, low - pad);
    const top = change(high) + pad;
    const first = steps[0].step;
    const span = Math.max(1, steps.at(-1).step - first);
    const inner = [width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom];
    this.first = first;
    this.last = first + span;
    this.x = (step) => MARGIN.left + ((step - first) / span) * inner[0];
    this.y = (value) => MARGIN.top + (1 - (change(value) - bottom) / (top - bottom)) * inner[1];
    this.stepAt = (x) => first + ((x - MARGIN.left) / inner[0]) * span;
    const most = Math.max(3, Math.round(inner[1] / 50));
    this.yTicks = this.#log ? logTicks(10 ** bottom, 10 ** top) : ticks(bottom, top, most);
    this.xTicks = ticks(first, this.last, Math.max(2, Math.round(inner[0] / 90)))
      .filter(Number.isInteger);
  }

  #spot = ({ step, value }) => [this.x(step), this.y(value)];

  #line(values) {
    return path(values.filter(({ value }) => !this.#log || value > 0).map(this.#spot));
  }

  #drawDots(validation) {
    const shown = validation.length > FEW_DOTS ? [] : validation;
    this.dots.replaceChildren(...shown.filter(({ value }) => !this.#log || value > 0).map((one) => {
      const [cx, cy] = this.#spot(one);
      return svg('circle', { cx, cy, r: 3 });
    }));
  }

  #drawGrid() {
    const [width, height] = this.#size;
    const floor = height - MARGIN.bottom;
    const lines = this.yTicks.flatMap((value) => {
      const y = this.y(value);
      return [svg('line', { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
        svg('text', { x: MARGIN.left - 8, y: y + 4, 'text-anchor': 'end' }, tickText(value))];
    });
    const steps = this.xTicks.map((step) =>
      svg('text', { x: this.x(step), y: floor + 18, 'text-anchor': 'middle' }, format.count(step)));
    const name = svg('text', { x: width - MARGIN.right, y: height - 3, 'text-anchor': 'end',
      class: 'axis' }, 'step');
    this.grid.replaceChildren(...lines, ...steps, name);
  }

  #drawCheckpoints() {
    const floor = this.#size[1] - MARGIN.bottom;
    const inside = this.#checkpoints.filter(({ step }) => step >= this.first && step <= this.last);
    this.marks.replaceChildren(...inside.map(({ step }) => {
      const x = this.x(step);
      return svg('g', {}, svg('title', {}, `Checkpoint at step ${format.count(step)}`),
        svg('line', { x1: x, x2: x, y1: MARGIN.top, y2: floor }),
        svg('path', { d: `M${x - 5} ${floor}L${x} ${floor - 6}L${x + 5} ${floor}L${x} ${floor + 6}Z` }));
    }));
  }

  #point(event) {
    if (!this.x || !this.#points.size) return;
    const x = event.clientX - this.drawing.getBoundingClientRect().left;
    this.#show(this.#points.nearest(this.stepAt(x)));
  }

  #key(event) {
    const last = this.#points.size - 1;
    const from = this.#shown ?? last;
    const far = event.shiftKey ? 10 : 1;
    const to = { ArrowLeft: from - far, ArrowRight: from + far, Home: 0, End: last }[event.key];
    if (event.key === 'Escape') this.#show(null);
    if (to === undefined || last < 0) return;
    event.preventDefault();
    set(this.readout, 'aria-live', 'polite');
    this.#show(Math.max(0, Math.min(last, to)));
  }

  #show(index) {
    if (index === null) set(this.readout, 'aria-live', null);
    this.#shown = index;
    this.changed();
  }

  // The step under the pointer, else the newest one.
  #drawReadout(smoothed) {
    const all = this.#points.sorted;
    const hovered = this.#shown === null ? null : all[this.#shown];
    const at = hovered ?? all.at(-1);
    const valid = this.#points.values('validationLoss').findLast(({ step }) => step <= at.step);
    const lightly = smoothed.findLast(({ step }) => step <= at.step) ?? smoothed[0];
    const bad = at.nonFinite?.includes('training_loss');
    const rows = [
      ['Step', format.count(at.step), ''],
      ['Training', bad ? 'NaN' : format.loss(at.trainingLoss), 'train'],
      ['Smoothed', bad ? '–' : format.loss(lightly?.value), 'train'],
      ['Validation', format.loss(valid?.value), 'valid'],
      ['Epoch', at.epoch?.toFixed(2) ?? '–', ''],
      ['Rate', at.learningRate?.toExponential(2) ?? '–', 'rate'],
    ];
    keyed(this.readout, rows, ([name]) => name,
      ([name, , kind]) => h('div', { class: kind }, h('dt', {}, name), h('dd')),
      (node, [, value]) => put(node.lastChild, value));
    this.#drawCross(hovered, lightly);
  }

  #drawCross(at, lightly) {
    set(this.cross, 'visibility', at ? 'visible' : 'hidden');
    const spots = [];
    if (at) {
      const x = this.x(at.step);
      for (const [name, value] of Object.entries({ x1: x, x2: x, y1: MARGIN.top, y2: this.#size[1] - MARGIN.bottom })) {
        set(this.cross, name, value);
      }
      if (at.trainingLoss !== null && lightly) spots.push(['smooth', lightly.value]);
      if (at.validationLoss !== null) spots.push(['valid', at.validationLoss]);
    }
    this.spots.replaceChildren(...spots.filter(([, value]) => !this.#log || value > 0)
      .map(([kind, value]) => svg('circle', { class: kind, cx: this.x(at.step), cy: this.y(value), r: 4 })));
  }
}

export const tickText = (value) => (value !== 0 && (Math.abs(value) < 1e-3 || Math.abs(value) >= 1e5)
  ? value.toExponential(0) : String(Number(value.toPrecision(4))));

// The scores of the checkpoints, below the loss and on the same steps; hidden while there is none.
import { MARGIN, path, tickText } from './chart.js';
import { h, put, set, svg } from './dom.js';
import * as format from './format.js';
import { ticks } from './points.js';

export class ScoreChart {
  #points; #frame = null;

  constructor(points) {
    this.#points = points;
    this.grid = svg('g', { class: 'grid' });
    this.line = svg('path', { class: 'score' });
    this.dots = svg('g', { class: 'scores' });
    this.drawing = svg('svg', { role: 'img' }, this.grid, this.line, this.dots);
    this.best = h('p', { class: 'best' });
    this.element = h('section', { class: 'card chart score-chart', 'aria-label': 'Score', hidden: true },
      h('header', {}, h('h2', {}, 'Score'), this.best), h('div', { class: 'plot' }, this.drawing));
    this.observer = new ResizeObserver(() => this.changed());
    this.observer.observe(this.drawing);
  }

  close() {
    this.observer.disconnect();
    cancelAnimationFrame(this.#frame);
  }

  changed() {
    this.#frame ??= requestAnimationFrame(() => { this.#frame = null; this.#draw(); });
  }

  #draw() {
    const scores = this.#points.values('score');
    this.element.hidden = scores.length === 0;
    const { clientWidth: width, clientHeight: height } = this.drawing;
    if (!scores.length || !width) return;
    const best = scores.reduce((one, other) => (other.value > one.value ? other : one));
    const said = `Best: ${format.loss(best.value)} at step ${format.count(best.step)}`;
    put(this.best, said);
    set(this.drawing, 'aria-label', `${said}, of ${format.plural(scores.length, 'checkpoint')}.`);
    set(this.drawing, 'viewBox', `0 0 ${width} ${height}`);
    this.#scale(scores, width, height);
    const spots = scores.map(({ step, value }) => [this.x(step), this.y(value)]);
    set(this.line, 'd', path(spots));
    this.dots.replaceChildren(...scores.map(({ step, value }, n) => {
      const [cx, cy] = spots[n];
      const top = step === best.step;
      return svg('circle', { cx, cy, r: top ? 5 : 3, class: top ? 'top' : null },
        svg('title', {}, `${format.loss(value)} at step ${format.count(step)}`));
    }));
  }

  #scale(scores, width, height) {
    const values = scores.map(({ value }) => value);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const pad = (high - low) * 0.12 || Math.abs(high) * 0.1 || 0.1;
    const [bottom, top] = [low - pad, high + pad];
    const steps = this.#points.sorted;
    const first = steps[0].step;
    const span = Math.max(1, steps.at(-1).step - first);
    const inner = [width - MARGIN.left - MARGIN.right, height - 2 * MARGIN.top];
    this.x = (step) => MARGIN.left + ((step - first) / span) * inner[0];
    this.y = (value) => MARGIN.top + (1 - (value - bottom) / (top - bottom)) * inner[1];
    this.grid.replaceChildren(...ticks(bottom, top, 3).flatMap((value) => {
      const y = this.y(value);
      return [svg('line', { x1: MARGIN.left, x2: width - MARGIN.right, y1: y, y2: y }),
        svg('text', { x: MARGIN.left - 8, y: y + 4, 'text-anchor': 'end' }, tickText(value))];
    }));
  }
}

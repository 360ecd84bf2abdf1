// A job's metric points: one per step, the newest attempt's, as the server's `metrics` has them.
const WEIGHT = 0.6; // of what came before, in the smoothed line

export class Points {
  #bySteps = new Map();
  #sorted = null;

  get size() { return this.#bySteps.size; }

  add(points) {
    for (const point of points) {
      const known = this.#bySteps.get(point.step);
      if (!known || point.attempt >= known.attempt) this.#bySteps.set(point.step, point);
    }
    this.#sorted = null;
  }

  replace(points) {
    this.#bySteps.clear();
    this.add(points);
  }

  // An attempt that begins at step 0 starts the curve anew.
  forgetBefore(attempt) {
    for (const point of this.#bySteps.values()) {
      if (point.attempt < attempt) this.#bySteps.delete(point.step);
    }
    this.#sorted = null;
  }

  get sorted() {
    this.#sorted ??= [...this.#bySteps.values()].sort((a, b) => a.step - b.step);
    return this.#sorted;
  }

  values(name) {
    return this.sorted
      .filter((point) => point[name] !== null && point[name] !== undefined)
      .map((point) => ({ step: point.step, value: point[name] }));
  }

  // The measured point nearest to a step.
  nearest(step) {
    const all = this.sorted;
    let low = 0;
    let high = all.length - 1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (all[middle].step < step) low = middle + 1;
      else high = middle;
    }
    const before = all[low - 1];
    return before && step - before.step < all[low].step - step ? low - 1 : low;
  }
}

// A running mean that leans on the newest values; unbiased at its beginning.
export function smooth(values) {
  let sum = 0;
  let weight = 0;
  return values.map(({ step, value }) => {
    sum = WEIGHT * sum + (1 - WEIGHT) * value;
    weight = WEIGHT * weight + (1 - WEIGHT);
    return { step, value: sum / weight };
  });
}

// Round numbers between two values, at most about `most` of them.
export function ticks(low, high, most) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / most;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].find((n) => n * unit >= rough) * unit;
  const found = [];
  for (let n = Math.ceil(low / step - 1e-9); n * step <= high + step * 1e-9; n += 1) {
    found.push(Number((n * step).toPrecision(12)));
  }
  return found;
}

// Powers of ten, with 2 and 5 between them while there are few.
export function logTicks(low, high) {
  const found = [];
  const few = Math.log10(high / low) < 2.5;
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    for (const n of few ? [1, 2, 5] : [1]) found.push(n * 10 ** power);
  }
  const inside = found.filter((value) => value >= low && value <= high);
  return inside.length > 1 ? inside : ticks(low, high, 4);
}

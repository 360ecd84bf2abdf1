// The list of jobs with its figures, filters and the machines it runs on.
import { coalesce, h, keyed, put, set } from './dom.js';
import { empty } from './empty.js';
import * as format from './format.js';
import { isElsewhere, placeName, PLACES } from './places.js';
import { isOver } from './store.js';

const FILTERS = {
  all: ['All', null],
  running: ['Running', ['RUNNING']],
  queued: ['Queued', ['PENDING', 'VALIDATING', 'QUEUED']],
  paused: ['Paused', ['PAUSED']],
  succeeded: ['Succeeded', ['SUCCEEDED']],
  failed: ['Failed', ['FAILED']],
  cancelled: ['Cancelled', ['CANCELLED']],
};
const TILES = ['running', 'queued', 'succeeded', 'failed'];

export const badge = () => h('span', { class: 'badge' });
export function showBadge(node, { status, requestedAction, isStale, queueReason }) {
  put(node, format.words(status));
  set(node, 'class', `badge ${format.words(status)}${isStale ? ' stale' : ''}`);
  const asked = requestedAction && `${format.words(requestedAction)} requested.`;
  set(node, 'title', [asked, queueReason].filter(Boolean).join(' ') || null);
  set(node, 'data-asked', requestedAction);
}

export class JobList {
  #store; #open = null; #chosen = 'all';

  constructor(store, root) {
    this.#store = store;
    this.tiles = new Map(TILES.map((name) => [name, this.#tile(name)]));
    this.search = h('input', {
      type: 'search', placeholder: 'Search by name', 'aria-label': 'Search jobs by name',
      oninput: coalesce(() => store.setFilter({ search: this.search.value.trim() })),
    });
    this.select = h('select', {
      'aria-label': 'Filter by status', onchange: () => this.#choose(this.select.value),
    }, ...Object.entries(FILTERS).map(([value, [text]]) => h('option', { value }, text)));
    this.place = h('select', {
      'aria-label': 'Filter by provider', onchange: () => this.choosePlace(this.place.value),
    }, h('option', { value: '' }, 'All providers'),
    ...PLACES.map((value) => h('option', { value }, placeName(value))));
    this.hardware = h('p', { class: 'hardware' });
    this.list = h('ul', { class: 'jobs' });
    this.nothing = h('p', { class: 'nothing', role: 'status' });
    this.more = h('button', {
      type: 'button', class: 'lt-button', onclick: () => store.more().catch(() => {}),
    }, 'Show more');
    this.empty = empty(root);
    this.head = h('div', { class: 'columns', 'aria-hidden': 'true' },
      ...['Job', 'Provider', 'Status', 'Progress', 'Loss', 'Submitted'].map((text) => h('span', {}, text)));
    this.body = h('div', { class: 'list-body' },
      h('div', { class: 'tiles' }, ...this.tiles.values()),
      h('div', { class: 'filters' }, h('h1', {}, 'Jobs'), this.search, this.place, this.select),
      h('div', { class: 'card list' }, this.head, this.list, this.nothing, this.more));
    this.element = h('section', { class: 'overview', 'aria-label': 'Jobs' },
      this.hardware, this.empty, this.body);
    store.addEventListener('jobs', () => this.draw());
    store.addEventListener('stats', () => { this.#drawTiles(); this.draw(); });
    store.addEventListener('hardware', () => this.#drawHardware());
    this.draw();
  }

  setOpen(id) {
    this.#open = id;
    this.draw();
  }

  draw() {
    const { loaded, stats, trouble, filtered, hasMore, list } = this.#store;
    const none = loaded && !filtered && list.length === 0 && stats?.total === 0;
    this.empty.hidden = !none;
    this.body.hidden = none;
    this.head.hidden = list.length === 0;
    this.nothing.hidden = list.length > 0;
    this.more.hidden = !hasMore;
    put(this.nothing, trouble ?? (loaded && filtered ? 'No job matches.' : 'Loading …'));
    keyed(this.list, list, (job) => job.id, row, (node, job) => this.#drawRow(node, job));
  }

  tick() { this.draw(); }

  choosePlace(provider) {
    this.place.value = provider;
    this.#store.setFilter({ provider: provider || null });
  }

  #tile(name) {
    const [text] = FILTERS[name];
    return h('button', {
      type: 'button', class: `tile ${name}`, 'aria-pressed': 'false',
      onclick: () => this.#choose(this.#chosen === name ? 'all' : name),
    }, h('strong', {}, '–'), h('span', {}, text));
  }

  #choose(name) {
    this.#chosen = name;
    this.select.value = name;
    for (const [tile, node] of this.tiles) set(node, 'aria-pressed', String(tile === name));
    this.#store.setFilter({ status: FILTERS[name][1] });
  }

  #drawTiles() {
    const counts = new Map(this.#store.stats.byStatus.map((one) => [one.status, one.count]));
    for (const [name, node] of this.tiles) {
      const sum = FILTERS[name][1].reduce((all, status) => all + (counts.get(status) ?? 0), 0);
      put(node.firstChild, format.count(sum));
    }
  }

  #drawHardware() {
    const machines = this.#store.hardware;
    const text = machines.map((one) => {
      const unit = one.kind === 'gpu' ? format.plural(one.count, 'GPU') : format.plural(one.count, 'core');
      return `${one.name}, ${unit}, ${format.bytes(one.memoryBytes)}`;
    });
    set(this.hardware, 'data-none', machines.length === 0);
    put(this.hardware, machines.length
      ? `Trains on ${text.join(' · ')}`
      : 'No machine trains here: local jobs wait until a worker is started with luthier work.');
  }

  #drawRow(node, job) {
    const link = node.firstChild;
    set(link, 'aria-current', job.id === this.#open ? 'page' : null);
    const { name, model, where, state, bar, done, loss, when, why } = node.parts;
    put(name, job.name);
    put(model, job.baseModel);
    put(where, placeName(job.provider));
    put(why, job.isStale && !isOver(job) ? job.queueReason ?? 'Silent for a while.' : '');
    showBadge(state, job);
    drawProgress(bar, done, job);
    put(loss, job.latestMetrics ? format.loss(job.latestMetrics.trainingLoss) : '–');
    put(when, format.ago(job.createdAt));
    set(when, 'title', format.full(job.createdAt));
  }
}

function row(job) {
  const parts = {
    name: h('strong', { class: 'name' }), model: h('span', { class: 'model' }), where: h('span', { class: 'where' }),
    state: badge(), why: h('span', { class: 'why troubled' }),
    bar: h('progress', { max: 100, 'aria-label': 'Progress' }), done: h('span', { class: 'done' }),
    loss: h('span', { class: 'loss' }), when: h('time', { class: 'when' }),
  };
  const node = h('li', {}, h('a', { class: 'job', href: `#/jobs/${job.id}` },
    h('span', { class: 'what' }, parts.name, parts.model), parts.where, parts.state,
    h('span', { class: 'progress' }, parts.bar, parts.done), parts.loss, parts.when, parts.why));
  node.parts = parts;
  return node;
}

// Some providers tell neither how many steps there will be nor what share is done.
export const isEndless = (job) => Boolean(job.progress) && job.progress.percent === null && !isOver(job);

// The bar and its words, the same in the list and on the job's page.
export function drawProgress(bar, done, job) {
  const { progress, status } = job;
  const value = progress?.percent ?? (status === 'SUCCEEDED' ? 100 : 0);
  if (isEndless(job)) bar.removeAttribute('value');
  else if (bar.value !== value || !bar.hasAttribute('value')) bar.value = value;
  set(bar, 'class', format.words(status));
  put(done, summary(job, value));
}

function summary(job, value) {
  if (isEndless(job)) return `step ${format.count(job.progress.step)}`;
  if (job.status === 'RUNNING' && job.progress) {
    const { estimatedFinishAt: finish } = job.progress;
    return [format.percent(value), finish && format.left(finish)].filter(Boolean).join(' · ');
  }
  if (isOver(job) && job.startedAt && job.finishedAt) {
    const took = format.duration((new Date(job.finishedAt) - new Date(job.startedAt)) / 1_000);
    return job.status === 'SUCCEEDED' ? `done in ${took}` : `${format.percent(value)} · ${took}`;
  }
  if (job.status === 'RUNNING') return isElsewhere(job) ? 'under way' : 'starting …';
  return job.progress ? format.percent(value) : '–';
}

// What is known of the organization's jobs: a snapshot, then every change after its cursor.
import { coalesce } from './dom.js';
import { HARDWARE, JOBS, JOB_CHANGES, STATS, WAITS } from './documents.js';

const PAGE = 50;
const AGAIN = 2_000;
const HARDWARE_EVERY = 20_000;
const WAITS_EVERY = 15_000;
const MOST_ASKED = 100; // ids that the server takes at once

export const OVER = ['SUCCEEDED', 'FAILED', 'CANCELLED'];
export const isOver = (job) => OVER.includes(job.status);

// Events: "jobs" (the list), "stats", "hardware", "trouble", and "job" with one job's news.
export class Store extends EventTarget {
  jobs = new Map();
  filter = { status: null, provider: null, search: '' };
  stats = null;
  hardware = null;
  #places = new Map();
  trouble = null;
  loaded = false;
  hasMore = false;
  #session; #feed = null; #end = null; #timers = []; #load = 0; #missed = []; #closed = false;

  constructor(session) {
    super();
    this.#session = session;
    this.restat = coalesce(() => this.#quietly(async () => {
      const { provider } = this.filter;
      this.stats = (await session.ask(STATS, { filter: provider && { provider } })).stats;
      this.#say('stats');
    }), 150);
    const look = () => this.#quietly(async () => {
      const { hardware, providers } = await session.ask(HARDWARE);
      this.hardware = hardware;
      this.#places = new Map(providers.map((place) => [place.provider, place]));
      this.#say('hardware');
    });
    this.rewait = coalesce(() => this.#quietly(() => this.#rewait()));
    this.#timers.push(setInterval(look, HARDWARE_EVERY), setInterval(this.rewait, WAITS_EVERY));
    look();
    this.restat();
    this.reload();
  }

  close() {
    this.#closed = true;
    this.#timers.forEach(clearInterval);
  }

  setFilter(change) {
    this.filter = { ...this.filter, ...change };
    this.#say('filter');
    if ('provider' in change) this.restat();
    this.reload();
  }

  get filtered() { return Object.values(this.filter).some(Boolean); }

  // What can be done at a provider; null before it is known.
  place(provider) { return this.#places.get(provider) ?? null; }

  get list() {
    return [...this.jobs.values()].sort((a, b) =>
      b.createdAt.localeCompare(a.createdAt) || b.id.localeCompare(a.id));
  }

  async reload() {
    const load = ++this.#load;
    this.#missed = [];
    try {
      const { jobs } = await this.#page(null);
      if (load !== this.#load || this.#closed) return;
      this.jobs.clear();
      this.#take(jobs);
      this.loaded = true;
      this.trouble = null;
      // One feed carries all jobs, whatever is listed: it also moves the figures and the open job.
      this.#feed ??= this.#session.live.subscribe(JOB_CHANGES, { after: jobs.cursor }, {
        next: (change) => this.#apply(change),
        error: () => this.#again(),
        complete: () => this.#again(),
      });
    } catch (error) {
      if (load !== this.#load || this.#closed) return;
      this.trouble = error.message;
      this.#timers.push(setTimeout(() => this.reload(), AGAIN));
    }
    this.#say('jobs');
  }

  async more() {
    const load = this.#load;
    this.#missed = [];
    const { jobs } = await this.#page(this.#end);
    if (load !== this.#load) return; // the filter has changed meanwhile
    this.#take(jobs);
    this.#say('jobs');
  }

  #page(after) {
    const { status, provider, search } = this.filter;
    const filter = { status, provider: provider && [provider], search: search || null };
    return this.#session.ask(JOBS, { filter, first: PAGE, after });
  }

  #take({ nodes, pageInfo }) {
    for (const job of nodes) this.jobs.set(job.id, job);
    this.hasMore = pageInfo.hasNextPage;
    this.#end = pageInfo.endCursor;
    // The page may have been read before changes that came while it was on its way.
    for (const change of this.#missed) this.#place(change);
    this.#missed = null;
  }

  #again() {
    this.#feed = null;
    if (!this.#closed) this.#timers.push(setTimeout(() => this.reload(), AGAIN));
    this.restat();
  }

  #place({ type, jobId, job }) {
    if (!job || !this.#belongs(job)) { this.jobs.delete(jobId); return; }
    const known = this.jobs.get(jobId);
    // It has just been heard of; what it waits for now is asked for.
    const queueReason = type === 'PROGRESS' ? null : known?.queueReason;
    this.jobs.set(jobId, { queueReason, ...job, isStale: false });
  }

  async #rewait() {
    const ids = this.list.filter((job) => !isOver(job)).slice(0, MOST_ASKED).map(({ id }) => id);
    if (!ids.length) return;
    const { nodes } = await this.#session.ask(WAITS, { ids });
    for (const found of nodes) if (found) this.#learn(found);
    this.#say('jobs');
  }

  #learn({ id, isStale, queueReason }) {
    const known = this.jobs.get(id);
    if (known) this.jobs.set(id, { ...known, isStale, queueReason });
  }

  // What a job's own page has found out.
  learn(job) {
    this.#learn(job);
    this.#say('jobs');
  }

  #apply(change) {
    const { type, jobId, job } = change;
    this.#missed?.push(change);
    this.#place(change);
    if (type !== 'PROGRESS') {
      this.restat();
      this.rewait();
    }
    this.#say('jobs');
    this.dispatchEvent(new CustomEvent('job', { detail: { jobId, job } }));
  }

  // As the server's filter judges, and not older than what has been loaded of the list.
  #belongs(job) {
    const { status, provider, search } = this.filter;
    const text = `${job.name}\n${job.description ?? ''}`.toLowerCase();
    if (status && !status.includes(job.status)) return false;
    if (provider && job.provider !== provider) return false;
    if (search && !text.includes(search.toLowerCase())) return false;
    return this.jobs.has(job.id) || !this.hasMore || job.createdAt >= this.list.at(-1)?.createdAt;
  }

  async #quietly(work) {
    if (this.#closed) return;
    try {
      await work();
    } catch { /* figures only: the next change or tick tries again */ }
  }

  #say(what) { this.dispatchEvent(new Event(what)); }
}

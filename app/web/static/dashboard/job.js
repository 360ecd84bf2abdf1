// One job's page: a snapshot, then its events, metrics and deployments live.
import { Actions } from './actions.js';
import { LossChart } from './chart.js';
import { Deploy } from './deploy.js';
import { coalesce, h, put, set } from './dom.js';
import * as docs from './documents.js';
import * as format from './format.js';
import { badge, drawProgress, isEndless, showBadge } from './jobs.js';
import { Examples } from './examples.js';
import { EventLog } from './log.js';
import { course, given } from './panels.js';
import { Points } from './points.js';
import { ScoreChart } from './score.js';
import { Standing } from './standing.js';
import { isOver } from './store.js';

const FIRST_POINTS = 500;
const MOST_POINTS = 3_000; // held here; beyond it the server thins them out again
const AGAIN = 2_000;
const LOOK_EVERY = 5; // seconds

export class JobPage {
  #session; #store; #feeds = []; #closed = false; #timers = []; #positions = null; #facts = null; #measured = false; #ticks = 0;

  constructor(session, store, viewer, id) {
    this.#session = session;
    this.#store = store;
    this.id = id;
    this.job = null;
    this.points = new Points();
    this.chart = new LossChart(this.points);
    this.score = new ScoreChart(this.points);
    this.log = new EventLog();
    this.actions = new Actions(session, viewer, (provider) => store.place(provider), () => this.refresh());
    this.standing = new Standing();
    this.deploy = new Deploy(session, viewer);
    this.examples = new Examples(session);
    this.refresh = coalesce(() => this.#refresh().catch(() => {})); // the next event asks again
    this.look = coalesce(() => this.#look().catch(() => {}));
    this.thin = coalesce(() => this.#thin().catch(() => {}));
    this.#build();
    store.addEventListener('job', this.#hear);
    this.#start();
  }

  close() {
    this.#closed = true;
    this.#store.removeEventListener('job', this.#hear);
    this.#timers.forEach(clearTimeout);
    for (const feed of this.#feeds) feed.stop();
    this.chart.close();
    this.score.close();
    this.deploy.close();
  }

  #build() {
    this.name = h('h1', { tabindex: -1 });
    this.state = badge();
    set(this.state, 'role', 'status');
    this.subtitle = h('p', { class: 'subtitle' });
    this.bar = h('progress', { max: 100, 'aria-label': 'Progress' });
    this.done = h('span', { class: 'done' });
    this.figures = h('dl', { class: 'figures' });
    this.error = h('p', { class: 'warning error', role: 'alert' });
    this.course = h('div', { class: 'panels fold' });
    this.given = h('div', { class: 'panels fold' });
    this.back = h('a', { class: 'back', href: '#/' }, '← All jobs');
    this.nothing = h('p', { class: 'nothing', role: 'status' }, 'Loading …');
    this.body = h('div', { class: 'job-body', hidden: true },
      h('header', { class: 'job-head' },
        h('div', {}, h('div', { class: 'title' }, this.name, this.state), this.subtitle, this.standing.element),
        this.actions.element),
      this.error,
      h('div', { class: 'card progress-card' },
        h('span', { class: 'progress' }, this.bar, this.done), this.figures),
      this.deploy.element, this.chart.element, this.score.element,
      h('div', { class: 'lower' },
        h('div', { class: 'panels' }, this.log.element, this.examples.element, this.course), this.given));
    this.element = h('article', { class: 'detail', 'aria-label': 'Job' },
      this.back, this.nothing, this.body);
  }

  async #start() {
    const { id } = this;
    try {
      const positions = await this.#session.ask(docs.POSITIONS, { id });
      if (!positions.job) { put(this.nothing, 'There is no such job. It may have been deleted.'); return; }
      this.#positions = positions;
      const [, { job }] = await Promise.all([
        this.#refresh(), this.#session.ask(docs.METRICS, { id, maxPoints: FIRST_POINTS }), this.#readEvents(),
      ]);
      if (this.#closed) return;
      this.points.add(job.metrics);
      this.#measured = true;
      this.#draw();
      this.#redraw();
      this.#follow(positions.job.cursor);
    } catch (error) {
      if (this.#closed) return;
      put(this.nothing, error.message);
      this.#timers.push(setTimeout(() => this.#start(), AGAIN));
    }
  }

  async #readEvents() {
    for (let after = null; !this.#closed;) {
      const variables = { id: this.id, after, types: docs.EVENT_TYPES };
      const { job } = await this.#session.ask(docs.EVENTS, variables);
      if (!job) return;
      this.log.add(job.events.nodes);
      if (!job.events.pageInfo.hasNextPage) return;
      after = job.events.pageInfo.endCursor;
    }
  }

  #follow(after) {
    const error = () => this.#timers.push(setTimeout(() => this.#restart(), AGAIN));
    const { live } = this.#session;
    const jobId = this.id;
    this.#feeds = [
      live.subscribe(docs.JOB_EVENTS, { jobId, after, types: docs.EVENT_TYPES }, {
        next: (event) => this.#take(event), complete: () => this.refresh(), error,
      }),
      live.subscribe(docs.JOB_METRICS, { jobId, after }, {
        next: ({ points }) => this.#measure(points), error,
      }),
    ];
  }

  #restart() {
    for (const feed of this.#feeds) feed.stop();
    if (!this.#closed) this.#start();
  }

  #take(event) {
    this.log.add([event]);
    if (event.type === 'ATTEMPT_STARTED' && event.data.fromStep === 0) {
      this.points.forgetBefore(event.attempt);
      this.#redraw();
    }
    if (event.type === 'MESSAGE') this.look();
    else this.refresh();
  }

  #redraw() {
    this.chart.changed();
    this.score.changed();
  }

  #measure(points) {
    this.points.add(points);
    this.#redraw();
    if (this.points.size > MOST_POINTS) this.thin();
  }

  async #thin() {
    const { job } = await this.#session.ask(docs.METRICS, { id: this.id, maxPoints: FIRST_POINTS });
    const last = job.metrics.at(-1).step;
    const newer = this.points.sorted.filter(({ step }) => step > last); // came meanwhile
    this.points.replace([...job.metrics, ...newer]);
  }

  // The list's feed brings progress and status changes of every job, this one's too.
  #hear = ({ detail: { jobId, job } }) => {
    if (jobId !== this.id || !this.job) return;
    if (!job) { this.#gone(); return; }
    const moved = job.status !== this.job.status;
    this.job = { ...this.job, ...job };
    this.#draw();
    if (moved) this.refresh();
  };

  // The feeds of a job that was over have ended; a restarted one goes on where they were.
  #reopen() {
    for (const feed of this.#feeds) feed.reopen();
  }

  #gone() {
    this.body.hidden = true;
    this.nothing.hidden = false;
    put(this.nothing, 'This job has been deleted.');
  }

  async #refresh() {
    const { job } = await this.#session.ask(docs.JOB, { id: this.id });
    if (this.#closed) return;
    if (!job) { this.#gone(); return; }
    this.job = job;
    if (!isOver(job)) this.#reopen();
    this.nothing.hidden = true;
    if (this.body.hidden) {
      this.body.hidden = false;
      this.log.toEnd(); // what is hidden cannot scroll
    }
    this.chart.setCheckpoints(job.checkpoints.nodes);
    this.course.replaceChildren(...course(job));
    // Left alone while nothing in it changes: somebody may be reading or selecting there.
    const facts = JSON.stringify([job.resolvedHyperparameters, job.resultFiles, job.cost, isOver(job)]);
    if (facts !== this.#facts) this.given.replaceChildren(...given(job));
    this.#facts = facts;
    this.examples.draw(job);
    this.deploy.draw(job, this.#positions.viewer.organization.cursor);
    this.#draw();
  }

  tick() {
    if (!this.job) return;
    this.#ticks += 1;
    if (this.#ticks % LOOK_EVERY === 0 && !isOver(this.job) && !document.hidden) this.look();
    this.#draw();
  }

  // Being heard of, and silence, make no events.
  async #look() {
    const { job } = await this.#session.ask(docs.STANDING, { id: this.id });
    if (!job || !this.job || this.#closed) return;
    this.job = { ...this.job, ...job };
    this.#store.learn(job);
    this.#draw();
  }

  #draw() {
    const { job } = this;
    put(this.name, job.name);
    showBadge(this.state, job);
    put(this.subtitle, [job.baseModel, job.description].filter(Boolean).join(' · '));
    put(this.error, job.error?.message ?? '');
    this.standing.draw(job);
    drawProgress(this.bar, this.done, job);
    this.chart.setEmptyText(!this.#measured ? 'Loading …'
      : isOver(job) ? 'No loss was measured.' : this.#store.place(job.provider)?.metrics === null
        ? 'This provider tells no loss.' : 'The loss appears with the first step.');
    this.actions.draw(job);
    this.#drawFigures();
    document.title = `${job.name} · ${job.status === 'RUNNING' && job.progress && !isEndless(job)
      ? format.percent(job.progress.percent) : format.words(job.status)} · Luthier`;
  }

  #drawFigures() {
    const { progress, startedAt, finishedAt, status } = this.job;
    const figures = [];
    if (progress) {
      const known = progress.totalSteps !== null;
      figures.push(['Step', format.count(progress.step) + (known ? ` of ${format.count(progress.totalSteps)}` : '')]);
      if (known) figures.push(['Epoch', `${progress.epoch.toFixed(1)} of ${progress.totalEpochs}`]);
      if (status === 'RUNNING' && progress.tokensPerSecond) {
        figures.push(['Tokens per second', format.count(Math.round(progress.tokensPerSecond))]);
      }
      if (Number(progress.trainedTokens)) figures.push(['Tokens', format.short(progress.trainedTokens)]);
    }
    if (startedAt) {
      const end = finishedAt ? new Date(finishedAt) : Date.now();
      figures.push([finishedAt ? 'Took' : 'Elapsed', format.duration((end - new Date(startedAt)) / 1_000)]);
    }
    const { cost, estimatedCost } = this.job;
    if (cost) figures.push([isOver(this.job) ? 'Cost' : 'Cost so far', format.money(cost)]);
    else if (estimatedCost && cost === null) figures.push(['Estimated cost', format.money(estimatedCost)]);
    const nodes = figures.map(([name, value]) => h('div', {}, h('dt', {}, name), h('dd', {}, value)));
    this.figures.replaceChildren(...nodes);
    set(this.figures, 'hidden', figures.length ? null : '');
  }
}
